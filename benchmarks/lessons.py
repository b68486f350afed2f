"""How long does each lesson compute?

    python -m benchmarks.lessons           every solved lesson once, on one thread: half an hour
    python -m benchmarks.lessons 01 07     these only

Processor time, so that what else the machine does counts little, and the highest memory of a process. What is measured
is kept in benchmarks/lessons.json, beside what was measured before of the other lessons; the README's table is from it.
"""

import argparse
import json
import os
import platform
from pathlib import Path

from benchmarks.commands import MIB, NOTEBOOKS, Command, spend
from minivdm.course.build import chosen
from minivdm.data.io import write_atomically
from minivdm.paths import repo_root

RESULTS = Path(__file__).with_name("lessons.json")


def measure(lesson: Path) -> dict[str, float]:
    """Runs a lesson (its source) once: CPU seconds, and MiB of its largest process."""
    only = NOTEBOOKS.replace('sources(pathlib.Path("."))', f'[pathlib.Path("solutions/{lesson.name}")]')
    used = spend(Command(lesson.stem, lesson.stem, ("-c", only)))
    return {"cpu_seconds": round(used.cpu, 1), "mib": round(used.memory / MIB)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons; all when none is given")
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would count as work
    for lesson in chosen(repo_root(), parser.parse_args().lessons):
        found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        found[lesson.name[:2]] = measure(lesson) | {"machine": f"{platform.machine()}, one thread"}
        write_atomically(RESULTS, (json.dumps(dict(sorted(found.items())), indent=1) + "\n").encode())
        print(lesson.stem, found[lesson.name[:2]], flush=True)


if __name__ == "__main__":
    main()
