"""The workbook: a folder with the source of every function that passed its check.

It lies beside the notebooks (`workbook/`, git-ignored) or where MINIVDM_WORKBOOK says, and holds one file per exercise,
such as `workbook/02.q_sample.py`. The file defines the exercise's name, so that it can be run later.
"""

import ast
import contextlib
import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minivdm.course.exercise import Exercise


def course_root() -> Path:
    """The nearest folder, from here upwards, that holds `notebooks/` or a workbook; else the current folder."""
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / "notebooks").is_dir() or (place / "workbook").is_dir():
            return place
    return here


def folder() -> Path:
    """Where the workbook is: MINIVDM_WORKBOOK, else `workbook/` in the course's folder."""
    told = os.environ.get("MINIVDM_WORKBOOK")
    return Path(told) if told else course_root() / "workbook"


def path_of(exercise_id: str) -> Path:
    return folder() / f"{exercise_id}.py"


def save(exercise: Exercise, answer: Callable[..., Any]) -> str:
    """Writes the answer's source and returns a sentence that says so, or why it could not be kept."""
    source = source_of(answer, exercise.name)
    if source is None:
        return "(Python cannot find its source, so it is not in your workbook.)"
    target = path_of(exercise.id)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(source, encoding="utf-8")
        os.replace(unfinished, target)  # a reader sees the old file or the new one, never half of one
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        return f"(It could not be kept in {target.parent}: {error.strerror}.)"
    return f"Kept as workbook/{target.name}."


def source_of(answer: Callable[..., Any], name: str) -> str | None:
    """Source that defines `name`: the function as written, or `name = lambda …`; None when it cannot be found."""
    try:
        source = textwrap.dedent(inspect.getsource(answer))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return None
    first = tree.body[0]
    if isinstance(first, (ast.FunctionDef, ast.ClassDef)):
        return source if first.name == name else f"{source}\n\n{name} = {first.name}\n"
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    return f"{name} = {ast.unparse(lambdas[0])}\n" if len(lambdas) == 1 else None
