"""Builds both sets of notebooks from the one source, `solutions/NN_name.py` (jupytext percent format).

    python -m minivdm.course.build              learner's editions into notebooks/, solved ones into solutions/
    python -m minivdm.course.build --execute    runs the solved ones (toy preset) and keeps their outputs
    python -m minivdm.course.build --check      changes nothing; status 1 when a notebook is not what its source says
    python -m minivdm.course.build 02 07        the same for some lessons only

What a source must contain, and what becomes of it:

*   An exercise cell holds a marker, then a function whose body the learner writes between two lines:

        # exercise: 02.q_sample
        def q_sample(x0, t, noise, alphas_cumprod):
            '''Signature and docstring stay in both editions.'''
            ### BEGIN SOLUTION
            ...
            ### END SOLUTION

    The region, markers included, becomes `raise NotImplementedError("exercise 02.q_sample")` in the learner's edition.
    A cell may hold several exercises; each region belongs to the marker above it. The id must be a registered exercise.
*   A later cell runs `check("02.q_sample", q_sample)`: there a learner's edition stops while the stub stands.
*   Exactly one cell is tagged `parameters` (papermill overrides it): `# %% tags=["parameters"]`.
*   Cells whose output may differ between runs (timings, progress bars, pictures) are tagged `nbval-ignore-output`;
    cells that must not run in tests `nbval-skip`; a question to answer before running the next cell `predict`.
*   A cell that draws a still picture says in its line what is to be seen: `# %% alt="two curves that cross"`, unless
    the picture does so itself (`viz.picture`). Tags and these words are kept, other cell metadata is not.

A learner's edition begins, under its title, with a cell of its own that shows what is passed and what is open; where
pyproject.toml says where the project is published, badges and a cell for Colab stand above it (`elsewhere.py`).

Cells are numbered (`cell-007`), so that building twice gives the same bytes. Outputs of the solved set live on for
cells whose source did not change.
"""

import argparse
import base64
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from minivdm.course.definitions import MARKER
from minivdm.course.elsewhere import with_badges
from minivdm.course.exercise import exercises
from minivdm.errors import UserError
from minivdm.paths import repo_root
from minivdm.viz.words import Picture

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
WIDGET = "application/vnd.jupyter.widget-view+json"
CONTROL = re.compile(r"\w+\(")  # how a slider writes itself as text; a progress bar has words
STILL = "(Run this cell to move the slider.)"
STORED_PNG = re.compile(r'<img src="data:image/png;base64,([^"]+)"')
TIMEOUT_S = 900  # one cell; a guard against a cell that never ends, not a target


def sources(root: Path) -> list[Path]:
    """The lessons: `solutions/NN_name.py` in order."""
    return sorted((root / "solutions").glob("[0-9][0-9]_*.py"))


def chosen(root: Path, numbers: list[str]) -> list[Path]:
    """The sources with these numbers, all of them for an empty list; UserError for a number without a source."""
    lessons = {source.name[:2]: source for source in sources(root)}
    if missing := [number for number in numbers if number not in lessons]:
        raise UserError(f"no lesson {missing[0]!r} in solutions/; there are {', '.join(lessons) or 'none yet'}")
    return [lessons[number] for number in numbers] or list(lessons.values())


def exercise_ids(notebook: NotebookNode) -> list[str]:
    """Ids of the exercise markers in a solved notebook, in order."""
    lines = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    return [match[1] for match in map(MARKER.match, lines) if match]


def solved_edition(source: Path) -> NotebookNode:
    """The lesson as it is written, without outputs. Raises UserError for an unknown or unchecked exercise."""
    read = jupytext.read(source, fmt="py:percent")
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for index, cell in enumerate(read.cells):
        new_cell = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        kept = {key: cell.metadata[key] for key in ("tags", "alt") if cell.metadata.get(key)}
        notebook.cells.append(new_cell(cell.source, id=f"cell-{index:03d}", metadata=kept))
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for exercise_id in exercise_ids(notebook):
        if exercise_id not in exercises():
            raise UserError(f"{source.name}: exercise {exercise_id!r} is not registered in minivdm/course/exercises")
        if f'check("{exercise_id}"' not in code:
            raise UserError(f'{source.name}: exercise {exercise_id} is never checked; add check("{exercise_id}", ...)')
    return notebook


def learner_edition(source: Path) -> NotebookNode:
    """The lesson with every solution region replaced by a stub that names its exercise."""
    notebook = solved_edition(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _without_solutions(cell.source, source.name)
    return notebook


def handed_out(source: Path) -> NotebookNode:
    """The learner's edition with the progress of its exercises under the title, and badges where it is published."""
    notebook = learner_edition(source)
    code = f"from minivdm.course import progress_widget\n\nprogress_widget({int(source.name[:2])})"
    cell = nbformat.v4.new_code_cell(code, id="progress", metadata={"tags": ["nbval-ignore-output"]})
    notebook.cells.insert(1, cell)
    return with_badges(notebook, source.stem, source.parents[1])


def _without_solutions(code: str, where: str) -> str:
    kept: list[str] = []
    exercise_id = None
    inside = False
    for line in code.splitlines():
        if match := MARKER.match(line):
            exercise_id = match[1]
        if line.strip() == BEGIN:
            if inside:
                raise UserError(f"{where}: {BEGIN!r} without {END!r} in exercise {exercise_id}")
            if exercise_id is None:
                raise UserError(f"{where}: {BEGIN!r} needs an '# exercise: NN.name' line above it, in the same cell")
            indent = line[: len(line) - len(line.lstrip())]
            kept.append(f'{indent}raise NotImplementedError("exercise {exercise_id}")')
            inside = True
        elif line.strip() == END:
            if not inside:
                raise UserError(f"{where}: {END!r} without {BEGIN!r} in the same cell")
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise UserError(f"{where}: {BEGIN!r} without {END!r} in exercise {exercise_id}")
    return "\n".join(kept)


def with_outputs_of(notebook: NotebookNode, earlier: NotebookNode) -> NotebookNode:
    """Copies outputs from `earlier` into the cells that have the same source there."""
    outputs: dict[str, list[NotebookNode]] = {}
    for cell in earlier.cells:
        if cell.cell_type == "code":
            outputs.setdefault(cell.source, []).append(cell)
    for cell in notebook.cells:
        if cell.cell_type == "code" and outputs.get(cell.source):
            old = outputs[cell.source].pop(0)
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with the outputs of a papermill run in `folder`; the learner's workbook is left alone."""
    import papermill

    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before.ipynb", Path(scratch) / "after.ipynb"
        nbformat.write(notebook, before)
        own_workbook = os.environ.get("MINIVDM_WORKBOOK")
        os.environ["MINIVDM_WORKBOOK"] = str(Path(scratch) / "workbook")
        try:
            papermill.execute_notebook(
                before, after, cwd=folder, kernel_name="python3", execution_timeout=TIMEOUT_S, progress_bar=False
            )
        finally:
            os.environ.pop("MINIVDM_WORKBOOK")
            if own_workbook is not None:
                os.environ["MINIVDM_WORKBOOK"] = own_workbook
        return with_outputs_of(notebook, nbformat.read(after, as_version=4))


def with_words(notebook: NotebookNode) -> NotebookNode:
    """Gives every picture among the outputs its alternative text, and every widget a sentence where it cannot move.

    UserError where there are no words for a picture.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data and CONTROL.match(data["text/plain"]):
                data["text/plain"] = STILL
            said = cell.metadata.get("alt") or output.get("metadata", {}).get("image/png", {}).get("alt")
            stored = STORED_PNG.match(data.get("text/html", ""))
            png = stored[1] if stored else data.get("image/png")
            if png is None or (stored and not said):
                continue
            if not said:
                raise UserError(
                    f'{cell.id} draws a picture without words; say in its line: # %% alt="what is to be seen"'
                )
            shown = Picture(base64.b64decode(png), said)
            output.data = NotebookNode({"text/html": shown.data, "text/plain": repr(shown)})
            output.metadata = NotebookNode()
    return notebook


def same_source(one: NotebookNode, other: NotebookNode) -> bool:
    """Equal cells (kind, id, source, tags, words) and kernel; outputs do not matter."""

    def view(notebook: NotebookNode) -> list[tuple]:
        kernel = notebook.metadata.get("kernelspec", {}).get("name")
        said = [(c.metadata.get("tags", []), c.metadata.get("alt")) for c in notebook.cells]
        return [(kernel,)] + [
            (c.cell_type, c.get("id"), c.source, *of) for c, of in zip(notebook.cells, said, strict=True)
        ]

    return view(one) == view(other)


def write(notebook: NotebookNode, path: Path) -> None:
    """Writes under another name first, so that an interruption leaves the old notebook whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    nbformat.write(notebook, unfinished)
    os.replace(unfinished, path)


def build(root: Path, lessons: list[Path], execute: bool = False) -> list[Path]:
    """Writes both editions of these lessons (sources) and returns their paths."""
    written = []
    for source in lessons:
        learner, solved = root / "notebooks" / f"{source.stem}.ipynb", source.with_suffix(".ipynb")
        write(handed_out(source), learner)
        notebook = solved_edition(source)
        if execute:
            print(f"running {source.stem}", flush=True)
            notebook = executed(notebook, solved.parent)
        elif solved.exists():
            notebook = with_outputs_of(notebook, nbformat.read(solved, as_version=4))
        write(with_words(notebook), solved)
        written += [learner, solved]
    return written


def differences(root: Path, lessons: list[Path]) -> list[str]:
    """One line for each notebook that is not what its source says, and for each notebook without a source."""
    found = []
    expected: dict[Path, NotebookNode] = {}
    for source in lessons:
        expected[root / "notebooks" / f"{source.stem}.ipynb"] = handed_out(source)
        expected[source.with_suffix(".ipynb")] = solved_edition(source)
    for path, notebook in expected.items():
        name = path.relative_to(root).as_posix()
        if not path.exists():
            found.append(f"{name} is missing; run make notebooks")
        elif not same_source(notebook, nbformat.read(path, as_version=4)):
            found.append(f"{name} differs from solutions/{path.stem}.py; run make notebooks")
    stems = {source.stem for source in sources(root)}
    for folder in ("notebooks", "solutions"):
        strays = sorted(path for path in (root / folder).glob("*.ipynb") if path.stem not in stems)
        found += [f"{folder}/{path.name} has no source in solutions/; remove it" for path in strays]
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minivdm.course.build", description="Build the notebooks.")
    parser.add_argument("--execute", action="store_true", help="run the solved notebooks and keep their outputs")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a notebook is out of step")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons; all when none is given")
    options = parser.parse_args(arguments)
    try:
        lessons = chosen(repo_root(), options.lessons)
        if options.check:
            found = differences(repo_root(), lessons)
            print("\n".join(found) or "notebooks are in step with their sources")
            return 1 if found else 0
        for path in build(repo_root(), lessons, execute=options.execute):
            print(path.relative_to(repo_root()).as_posix())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
