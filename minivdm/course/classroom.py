"""Progress of a class: every function that was handed in, run in a process of its own, as a table and as CSV.

    minivdm progress --folder submissions --csv class.csv

Nothing leaves the machine. An answer gets SECONDS of computing for each call and MEMORY bytes, no network, a folder
that is thrown away and a reduced environment; what it does beside answering is told and does not stop the table. These
are limits against accidents, not a sandbox against malice: see `trial.py`. Who copied from whom is not looked at.
"""

import contextlib
import csv
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from minivdm.course.exercise import NUM_NOTEBOOKS, exercises
from minivdm.course.submissions import Source, Submission, submissions
from minivdm.course.trial import Finding
from minivdm.errors import UserError, printable
from minivdm.paths import PACKAGE

SECONDS = 10.0  # of computing, for one call of an answer, which needs milliseconds
PATIENCE_S = 60.0  # for all calls of one exercise, or for the imports of one notebook: then its process is ended
STARTING_S = 300.0  # until torch is loaded from a slow disk; not the answer's time
MEMORY = 4 * 2**30  # bytes beyond what Python and torch take
NUMBERS = range(1, NUM_NOTEBOOKS + 1)
EXPECTED = ("passed", "wrong", "not written", "missing")  # everything else gets a line under the table
KEPT = ("PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass
class Result:
    """Of one student: what came of every exercise that was handed in, and lines about what could not be run."""

    student: str
    findings: dict[str, Finding] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def finding(self, exercise_id: str) -> Finding:
        return self.findings.get(exercise_id, Finding("missing"))

    def add(self, exercise_id: str, finding: Finding) -> None:
        """A right answer counts wherever it lies; else the first one that was tried."""
        if exercise_id not in self.findings or finding.outcome == "passed":
            self.findings[exercise_id] = finding

    def count(self, notebook: int | None = None) -> str:
        """`passed/all` of one notebook, or of the whole course."""
        ids = [each.id for each in exercises().values() if notebook in (None, each.notebook)]
        return f"{sum(self.finding(each).outcome == 'passed' for each in ids)}/{len(ids)}"

    def remarks(self) -> list[str]:
        """Lines for the teacher: what did not run, and what ran in an unusual way."""
        odd = {key: each for key, each in self.findings.items() if each.outcome not in EXPECTED or each.beside}
        odd |= {key: each for key, each in self.findings.items() if each.outcome == "missing" and each.said}
        told = [f"{key} {each.outcome}: {each.said} {each.beside}" for key, each in odd.items()]
        return [printable(" ".join(line.split())) for line in self.notes + told]


def class_progress(folder: Path, csv_file: Path | None = None, show: Callable[[str], None] = print) -> list[Result]:
    """Judges every submission in `folder`, shows a row of the table as each is done, and writes `csv_file`.

    Raises UserError when there is no submission, for archives, and when the CSV would have no folder to lie in.
    """
    handed_in = submissions(folder)
    if csv_file and not csv_file.absolute().parent.is_dir():
        raise UserError(f"no folder {csv_file.absolute().parent} to write {csv_file.name} into; make it first")
    width = max(len("student"), *(len(each.student) for each in handed_in))
    show(f"{'student':<{width}}" + "".join(f"{f'{number:02d}':>7}" for number in NUMBERS) + f"{'all':>8}")
    results = []
    for submission in handed_in:
        result = judge(submission)
        counts = "".join(f"{result.count(number):>7}" for number in NUMBERS)
        show(f"{result.student:<{width}}{counts}{result.count():>8}")
        results.append(result)
    for result in results:
        for line in result.remarks():
            show(f"{result.student}: {line}")
    if sys.platform != "linux":
        show("This system limited the time of each answer, not its memory.")
    if csv_file:
        write_csv(results, csv_file)
        show(f"wrote {csv_file}")
    return results


def write_csv(results: Sequence[Result], path: Path) -> None:
    """One row per student: passed of each notebook and in all, then the outcome of each exercise."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # spreadsheets know UTF-8 by its mark
        out = csv.writer(file)
        out.writerow(["student", "passed", *(f"passed {number:02d}" for number in NUMBERS), *exercises(), "remarks"])
        for result in results:
            counts = [result.count(number).partition("/")[0] for number in (None, *NUMBERS)]
            outcomes = [result.finding(each).outcome for each in exercises()]
            out.writerow(map(_no_formula, [result.student, *counts, *outcomes, "; ".join(result.remarks())]))


def _no_formula(text: str) -> str:
    """A spreadsheet would run `=…`; a name of a folder should stay a name."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def judge(submission: Submission) -> Result:
    """Tries all that one student handed in; after a process has died, what is left goes on in a new one."""
    result = Result(submission.student, notes=list(submission.unreadable))
    left = [source for source in submission.sources if source.exercises]
    if not left:
        result.notes.append("no exercise found: no notebook with a line like `# exercise: 02.q_sample`, no workbook")
    while left:
        left = _try(left, result)
    return result


def _try(sources: list[Source], result: Result) -> list[Source]:
    """Runs a trial process until it is done or dead, and returns what is left to try."""
    at, patience, died = None, STARTING_S, False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _process(folder) as process:
        lines = _lines(process.stdout)
        job = {"sources": [vars(source) for source in sources], "seconds": SECONDS, "memory": MEMORY}
        with contextlib.suppress(OSError):  # it may die before it has read; then it says nothing, and that is noticed
            process.stdin.write(json.dumps(job))
            process.stdin.close()
        try:
            while (line := lines.get(timeout=patience)) is not None:
                news = json.loads(line)
                if "finished" in news:
                    return []
                at = news.get("start", at)
                patience = PATIENCE_S if at[1] else STARTING_S  # imports may be slow
                if "finding" in news:
                    result.add(at[1], Finding(**news["finding"]))
            died = True
        except queue.Empty:
            pass
        finally:
            status = process.wait() if died else process.kill()
            while lines.get() is not None:  # until its reader is done
                pass
    finding = _ended(status) if died else Finding("never ends", f"stopped after {patience:g} seconds")
    if at is None:
        raise UserError(f"answers cannot be tried here: {finding.said} before the first one; does minivdm check work?")
    index, exercise_id = at
    answered = sources[index].exercises
    lost = (exercise_id,) if exercise_id else answered
    for each in lost:
        result.add(each, finding)
    rest = answered[answered.index(lost[-1]) + 1 :]
    return [replace(sources[index], exercises=rest)] * bool(rest) + sources[index + 1 :]


def _process(folder: str) -> subprocess.Popen:
    """A Python of its own in `folder`, which sees nothing of our environment but where programs and libraries are."""
    place = Path(folder, "answers")  # beside what libraries keep in a home
    place.mkdir()
    home = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "MPLCONFIGDIR"), folder)
    python = {"PYTHONPATH": str(PACKAGE.parent), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "minivdm.course.trial"],
        cwd=place,
        env=kept | home | python | quiet,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )


def _lines(stream: IO[str]) -> "queue.Queue[str | None]":
    """The lines of a pipe as they come, None at its end. A thread reads: Windows cannot wait for a pipe."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            found.put(line)
        found.put(None)
        found.put(None)  # for whoever has seen the first and looks again

    threading.Thread(target=read, daemon=True).start()
    return found


def _ended(status: int) -> Finding:
    name: Any = signal.Signals(-status).name if status < 0 else f"status {status}"
    return Finding("left the process", f"Python ended with {name}")
