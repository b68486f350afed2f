"""What the cells of a notebook define, without running the experiments around the definitions."""

import ast
import json
import linecache
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minivdm.errors import UserError

MARKER = re.compile(r"^\s*# exercise: (\S+)\s*$")
LARGEST = 64 * 2**20  # bytes of one file; a lesson with all its pictures has two million


def text_of(path: Path) -> str:
    """A file as text; UserError when it is too large or no text."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path.name} is larger than {LARGEST // 2**20} MB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is no text in UTF-8") from error


def code_cells(path: Path) -> list[tuple[str, str]]:
    """The code cells of a notebook as (label, source); UserError when it is none."""
    try:
        cells = json.loads(text_of(path))["cells"]
        code = [(f"cell {index}", cell["source"]) for index, cell in enumerate(cells) if cell["cell_type"] == "code"]
        return [(label, source if isinstance(source, str) else "".join(source)) for label, source in code]
    except (TypeError, KeyError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path.name} is not a notebook ({type(error).__name__})") from error


def marked(cells: Iterable[str]) -> list[str]:
    """The ids of the exercise markers in these cells, in order."""
    return [match[1] for cell in cells for match in map(MARKER.match, cell.splitlines()) if match]


def define(name: str, cells: Iterable[tuple[str, str]], space: dict[str, Any]) -> list[str]:
    """Runs imports, definitions and plain constants of `cells` (label, source) in `space`; returns a line for each
    cell or definition that would not run. What it should have defined will be missed."""
    problems = []
    for label, source in cells:
        where = f"{name}, {label}"
        linecache.cache[where] = (
            len(source),
            None,
            source.splitlines(keepends=True),
            where,
        )  # so that errors show lines
        try:
            tree = ast.parse(source, where)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a null byte
            line = getattr(error, "lineno", None)
            problems.append(
                f"{where} is not Python: {getattr(error, 'msg', error)}" + (f" in line {line}" if line else "")
            )
            continue
        for node in filter(_is_definition, tree.body):
            try:
                exec(compile(ast.Module([node], []), where, "exec"), space)
            except (Exception, SystemExit) as error:  # a cell that does not run by itself
                problems.append(f"{where}, line {node.lineno}: {type(error).__name__}: {error}")
    return problems


def _is_definition(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
