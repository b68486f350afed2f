"""Who has done what: the table of nine notebooks, and checking whole notebooks from the command line."""

import ast
import json
import linecache
import textwrap
from pathlib import Path
from typing import Any

from minivdm.course import workbook
from minivdm.course.build import MARKER
from minivdm.course.exercise import NUM_NOTEBOOKS, check, exercises
from minivdm.errors import UserError

TITLES = (
    "DDPM math",
    "q_sample and the posterior",
    "the 2D VAE",
    "the causal temporal VAE",
    "chunked Conv3D",
    "PatchGAN and losses",
    "the Unet3D",
    "STDiT3 and rectified flow",
    "text to video",
)
WIDTH = 110


def progress_table() -> str:
    """Nine notebooks and their exercises: ✓ for each that lies in the workbook, · for each that does not yet."""
    lines = []
    done_in_all = 0
    for number, title in enumerate(TITLES, start=1):
        names = [exercise.name for exercise in exercises().values() if exercise.notebook == number]
        done = [name for name in names if workbook.path_of(f"{number:02d}.{name}").exists()]
        done_in_all += len(done)
        count = f"{len(done)} of {len(names)}" if names else "to come"
        marks = " ".join(f"{'✓' if name in done else '·'}\N{NO-BREAK SPACE}{name}" for name in names)
        first, *rest = textwrap.wrap(marks, WIDTH - 42, break_on_hyphens=False) or [""]
        lines.append(f"{number:02d} {title:<28}{count:>8}   {first}".rstrip())
        lines += [f"{'':42}{line}" for line in rest]
    lines.append(f"\n{done_in_all} of {len(exercises())} exercises in {workbook.folder()}")
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def check_notebooks(which: str) -> int:
    """Checks every exercise in the learner's notebook `which` ("01" to "09", or "all"); 0 when all pass, else 1.

    Of the notebook only imports, definitions and plain constants are run, not the experiments around them.
    """
    numbers = [f"{n:02d}" for n in range(1, NUM_NOTEBOOKS + 1)] if which == "all" else [which.zfill(2)]
    folder = workbook.course_root() / "notebooks"
    notebooks = [path for number in numbers for path in sorted(folder.glob(f"{number}_*.ipynb"))]
    if not notebooks:
        raise UserError(f"no notebook {which!r} in {folder}; expected 01 to {NUM_NOTEBOOKS:02d} or all")
    passed = True
    for path in notebooks:
        ids, space = _read(path)
        for exercise_id in ids:
            answer = space.get(exercise_id.split(".", 1)[1])
            if answer is None:
                print(f"✗ {exercise_id}\n  {path.name} does not define it: run the notebook once to see why.")
            passed &= answer is not None and check(exercise_id, answer).passed
    return 0 if passed else 1


def _read(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The ids of a notebook's exercises and what its definitions make."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    ids: list[str] = []
    space: dict[str, Any] = {"__name__": path.stem}
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        ids += [match[1] for match in map(MARKER.match, source.splitlines()) if match]
        name = f"{path.name}, cell {index}"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # so that errors show lines
        try:
            tree = ast.parse(source, name)
        except SyntaxError as error:
            print(f"✗ {name} is not Python: {error.msg} in line {error.lineno}")
            continue
        for node in filter(_is_definition, tree.body):
            try:
                exec(compile(ast.Module([node], []), name, "exec"), space)
            except Exception as error:  # a cell that does not run by itself; what it should have defined will be missed
                print(f"✗ {name}, line {node.lineno}: {type(error).__name__}: {error}")
    return ids, space


def _is_definition(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
