"""RESULTS.md: the tables, and what a reader needs to judge them."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.commands import MIB, Command, Spent
from benchmarks.measure import Compared
from benchmarks.peers import versions
from benchmarks.work import Work


@dataclass
class Row:
    """One work and what was found; `missing` says why there is nothing to compare with.

    shares: per side, what takes most of the time and which part of it; of rows that miss a target.
    """

    work: Work
    compared: Compared
    our_memory: int
    their_memory: int = 0
    missing: str = ""
    seconds: float = 0.0  # that it took to find out
    shares: dict[str, dict[str, float]] = field(default_factory=dict)

    def misses(self) -> bool:
        """Whether it takes more time or memory than it should."""
        work = self.work
        slow = work.time is not None and self.compared.ratio("wall", work.times_theirs) > work.time
        return slow or (work.memory is not None and self.our_memory > work.memory * self.their_memory)


@dataclass
class CommandRow:
    """One command and every run of it."""

    command: Command
    spent: list[Spent]


def verdict(value: float, target: float | None) -> str:
    """A ratio, and whether it keeps to its target."""
    if target is None:
        return f"**{value:.3g}**"
    return f"**{value:.3g}** ≤ {target:.3g}" if value <= target else f"**{value:.3g}** > {target:.3g}, missed"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2f}"


def time_table(rows: Sequence[Row], rate: float) -> list[str]:
    """Time, ours and theirs; the share of the matmul rate where it was counted."""
    lines = [
        "| work | peer | ours, ms | peer, ms | time ratio | CPU-time ratio | with our allocator | difference "
        "| matmul rate, ours / peer |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found, factor = row.compared, row.work.times_theirs
        ours = median(found.ours.wall)
        start = f"| {row.work.name} | {row.work.peer or 'itself'} | {milliseconds(ours)} |"
        if row.missing:
            lines.append(f"{start} {row.missing} | | | | | |")
            continue
        theirs = factor * median(found.theirs.wall)
        share = ""
        if found.our_flops:
            share = f"{found.our_flops / ours / rate:.0%} / {found.their_flops / theirs / rate:.0%}"
        ratios = f"{verdict(ours / theirs, row.work.time)} | {found.ratio('cpu', factor):.2f}"
        if row.work.time and row.work.time < 0.1:
            ratios = (
                f"{verdict(ours / theirs, row.work.time)} (1/{theirs / ours:.0f}) | {found.ratio('cpu', factor):.3f}"
            )
        helped = f"{ours / (factor * median(found.helped.wall)):.3g}" if found.helped.wall else ""
        lines.append(f"{start} {milliseconds(theirs)} | {ratios} | {helped} | {found.difference:.0e} | {share} |")
    return lines


def memory_table(rows: Sequence[Row]) -> list[str]:
    """Peak memory, ours and theirs."""
    lines = ["| work | ours, MiB | peer, MiB | memory ratio |", "|---|---|---|---|"]
    for row in rows:
        ours = f"| {row.work.name} | {row.our_memory / MIB:,.0f} |"
        if row.missing:
            lines.append(f"{ours} {row.missing} | |")
        else:
            ratio = verdict(row.our_memory / row.their_memory, row.work.memory)
            lines.append(f"{ours} {row.their_memory / MIB:,.0f} | {ratio} |")
    return lines


def command_table(rows: Sequence[CommandRow]) -> list[str]:
    """Whole commands: seconds and the process's highest memory."""
    lines = ["| command | seconds | at most | CPU seconds | MiB | at most |", "|---|---|---|---|---|---|"]
    for row in rows:
        wall, cpu, memory = (median(getattr(one, name) for one in row.spent) for name in ("wall", "cpu", "memory"))
        command = row.command
        at_most = "" if command.time is None else f"{command.time:g}{' missed' if wall > command.time else ''}"
        room = f"{command.memory / MIB:,.0f}" if command.memory else ""
        too_much = " missed" if command.memory and memory > command.memory else ""
        lines.append(
            f"| {command.name} | **{wall:.2f}** | {at_most} | {cpu:.2f} | {memory / MIB:,.0f} "
            f"| {room}{too_much} |"
        )
    return lines


def gaps(rows: Sequence[Row]) -> list[str]:
    """What stands in the way of every target that is missed, with both profiles in short."""
    lines = []
    for row in rows:
        if row.shares:
            lines += ["", f"**{row.work.name}.** {row.work.why}", ""]
            for side, name in (("ours", "ours"), ("theirs", row.work.peer or "itself")):
                lines.append(f"- {name}: " + ", ".join(f"{key} {share:.0%}" for key, share in row.shares[side].items()))
    return ["Where the time goes in the rows that miss a target:", *lines, ""] if lines else []


def machine() -> str:
    """The processor, its cores and memory, and how busy it was with other things."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def document(
    rows: Sequence[Row],
    commands: Sequence[CommandRow],
    rate: float,
    threads: int,
    repeats: int,
    load: float,
    growth: Sequence[str],
    took: dict[str, float],
) -> str:
    """The whole page."""
    today = datetime.datetime.now(datetime.UTC).date()
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    minutes = sum(took.values()) / 60
    parts = [
        "# minivdm beside its peers",
        "",
        f"Made by `make bench` on {today}, in {minutes:.0f} minutes. {machine()}. {packages}.",
        "",
        f"Both sides do the same work in turns, in one process, with {threads} thread{'s' * (threads > 1)}, and with",
        f"the same weights where the models are the same; medians of {repeats} runs. A ratio is ours over the peer's:",
        "below 1 we need less. CPU time leaves out what other programs did meanwhile; the load average was",
        f"{load:.1f} at the start, and this machine multiplies 1024×1024 matrices at {rate / 1e9:.0f} GFLOP/s.",
        "With our allocator: importing minivdm makes glibc keep what large tensors free (`minivdm/allocator.py`).",
        "Peers are measured as they come, without that; this is the time ratio where they have it too.",
        "Difference: of the outputs, over the largest of them. Matmul rate: the share of it that a training step",
        "reaches with its matrix products and convolutions; doing with fewer of them does not raise it.",
        "",
        *time_table(rows, rate),
        "",
        "Peak memory above the loaded model, each in a process of its own; in training that is gradients, the",
        "optimizer's state and activations.",
        "",
        *memory_table([row for row in rows if row.our_memory]),
        "",
        *[f"- {row.work.name}: {row.compared.remark}." for row in rows if row.compared.remark],
        "",
        *gaps(rows),
    ]
    if commands:
        parts += ["Whole commands, with the memory of the whole process:", "", *command_table(commands), ""]
    if growth:
        parts += ["![how time and memory grow](growth.png)", "", *growth, ""]
    parts += ["Seconds that each part of this took: " + ", ".join(f"{k} {v:.0f}" for k, v in took.items()) + "."]
    return "\n".join(parts) + "\n"
