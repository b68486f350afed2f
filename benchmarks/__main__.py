"""Compare minivdm with its peers on this machine, and write benchmarks/RESULTS.md.

    make bench                                       all of it, in a virtual environment of its own
    python -m benchmarks --only unet3d-16            one row, printed and not written
    python -m benchmarks --only unet3d-16 --profile  where its time goes, operator by operator, on both sides
    python -m benchmarks --tiny                      every row at no size at all: does it run?

Outputs are compared before anything is timed: a row whose two sides disagree is an error.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.commands import commands, spend
from benchmarks.growth import draw, table
from benchmarks.growth import measure as measure_growth
from benchmarks.measure import compare, in_fresh_process, matmul_rate, peak_memory, profile, shares
from benchmarks.peers import installed
from benchmarks.report import CommandRow, Row, document
from benchmarks.rows import works
from benchmarks.work import Work

RESULTS = Path(__file__).with_name("RESULTS.md")
ALIKE = 2e-3  # the largest relative difference of outputs that rounding explains


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    rows, others = works(options.tiny), commands(options.tiny, options.notebooks)
    if options.only:
        rows, others = ([one for one in group if one.key in options.only] for group in (rows, others))
    if options.profile:
        for work in rows:
            for side in ("ours", "theirs"):
                print(f"{work.name}, {side}\n{in_fresh_process(profile, work, side, options.threads)}")
        return 0
    load, took, failures = os.getloadavg()[0], {}, []
    rate = in_fresh_process(matmul_rate, options.threads)
    found, commands_found, growth = [], [], []
    bar = tqdm(total=len(rows) + len(others) + 1, disable=None)
    for work in rows:
        bar.set_description(work.key)
        start = time.perf_counter()
        row = measure_row(work, options.repeats, options.threads)
        took[work.key] = row.seconds = time.perf_counter() - start
        found.append(row)
        print(f"{work.key}: {took[work.key]:.0f} s", file=sys.stderr, flush=True)
        if row.compared.difference > ALIKE:
            failures.append(f"{work.key}: outputs differ by {row.compared.difference:.1e} of the largest")
        bar.update()
    for command in others:
        bar.set_description(command.key)
        start = time.perf_counter()
        repeats = command.repeats or options.repeats
        commands_found.append(CommandRow(command, [spend(command) for _ in range(repeats)]))
        took[command.key] = time.perf_counter() - start
        bar.update()
    if not options.only or "growth" in options.only:
        start = time.perf_counter()
        curves = in_fresh_process(measure_growth, 1, min(options.repeats, 3), options.tiny)
        growth = table(curves)
        if not options.tiny:
            draw(curves)
        took["growth"] = time.perf_counter() - start
    bar.update()
    bar.close()
    page = document(found, commands_found, rate, options.threads, options.repeats, load, growth, took)
    print(page)
    if not options.only and not options.tiny:
        RESULTS.write_text(page, encoding="utf-8")
        print(f"written to {RESULTS}")
    for failure in failures:
        print(f"not the same work: {failure}", file=sys.stderr)
    return 1 if failures else 0


def measure_row(work: Work, repeats: int, threads: int) -> Row:
    """Times of both sides, the memory of each, profiles where a target is missed; ours alone where there is no peer."""
    alone = not installed(work.peer)
    missing = f"{work.peer} is not installed: make bench, or pip install 'minivdm[bench]'" if alone else ""
    row = Row(work, in_fresh_process(compare, work, repeats, threads, alone), 0, missing=missing)
    if work.memory is not None:
        row.our_memory = in_fresh_process(peak_memory, work, "ours", threads)
        row.their_memory = 0 if alone else in_fresh_process(peak_memory, work, "theirs", threads)
    if not alone and row.misses():
        sides = ("ours", "theirs")
        row.shares = {side: in_fresh_process(shares, work, side, threads) for side in sides}
    return row


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows, by their keys; growth is one")
    parser.add_argument("--repeats", type=int, help="runs of each side (default: 7; tiny: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one per core; 1 if others work")
    parser.add_argument("--notebooks", action="store_true", help="run the nine lessons too: minutes")
    parser.add_argument("--profile", action="store_true", help="print profiles of the rows instead of comparing them")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, one repetition, nothing written")
    options = parser.parse_args(argv)
    options.repeats = options.repeats or (1 if options.tiny else 7)
    known = [one.key for one in (*works(options.tiny), *commands(options.tiny, True))] + ["growth"]
    if unknown := sorted(set(options.only or []) - set(known)):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
