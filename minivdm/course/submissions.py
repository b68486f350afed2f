"""What students handed in: a folder with one subfolder each, in which lie notebooks, a workbook, or both.

Notebooks are found at any depth and under any name; the exercises in them by their `# exercise: 02.q_sample` lines. Of
a whole clone of the course `solutions/` is not looked at. Nothing is run here: files are only read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minivdm.course.definitions import code_cells, marked, text_of
from minivdm.course.exercise import exercises
from minivdm.errors import UserError, printable

NOT_THEIRS = {"solutions", "site-packages", "node_modules"}
USED = """import math, itertools, functools
import numpy as np, torch, torch.nn.functional as F
from collections.abc import Callable, Iterator, Sequence
from einops import rearrange, reduce, repeat
from torch import Tensor, nn"""  # what the lessons import: a workbook holds bare functions


@dataclass(frozen=True)
class Source:
    """One notebook, or one whole workbook: its name, its cells (label, code), and the exercises it answers."""

    name: str
    cells: tuple[tuple[str, str], ...]
    exercises: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """All that one student handed in. unreadable: a line for each file that is no notebook or no text."""

    student: str
    sources: tuple[Source, ...]
    unreadable: tuple[str, ...]


def submissions(folder: Path) -> list[Submission]:
    """One for each subfolder, by name. Raises UserError when there is none, and for archives."""
    if folder.suffix.lower() == ".zip":
        raise UserError(f"{folder} is an archive; unpack it into a folder with one subfolder per student")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; expected a folder with one subfolder per student")
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_symlink())
    if archives := [path.name for path in inside if path.suffix.lower() == ".zip"]:
        raise UserError(f"{archives[0]} in {folder} is an archive ({len(archives)} of them); unpack each first")
    students = [path for path in inside if path.is_dir()]
    if not students:
        raise UserError(f"no submissions in {folder}: expected one subfolder per student with notebooks in it")
    return [read(path) for path in students]


def read(folder: Path) -> Submission:
    """What one student handed in."""
    sources, unreadable = [], []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            if path.suffix == ".ipynb":
                cells = code_cells(path)
                ids = (each for each in marked(source for _, source in cells) if each in exercises())
                sources.append(Source(name, tuple(cells), tuple(dict.fromkeys(ids))))
            elif path.stem in exercises():
                sources.append(Source(name, ((path.name, text_of(path)),), (path.stem,)))
        except UserError as error:
            unreadable.append(str(error))
        except OSError as error:
            unreadable.append(f"{name} cannot be read: {error.strerror}")
    notebooks = [source for source in sources if source.name.endswith(".ipynb")]
    pieces = [source for source in sources if not source.name.endswith(".ipynb")]
    if pieces:  # functions of a workbook call each other, so they share one room
        cells = (("imports", USED), *(cell for piece in pieces for cell in piece.cells))
        notebooks.append(Source("workbook", cells, tuple(piece.exercises[0] for piece in pieces)))
    return Submission(printable(folder.name), tuple(notebooks), tuple(unreadable))


def _files(folder: Path) -> Iterator[Path]:
    """Notebooks at any depth, and the Python files of workbooks; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NOT_THEIRS)
        for name in sorted(names):
            path = Path(place, name)
            wanted = path.suffix == ".ipynb" or (path.suffix == ".py" and path.parent.name == "workbook")
            if wanted and not path.is_symlink():
                yield path
