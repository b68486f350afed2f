"""Both editions of every lesson, run as a learner and as a teacher would, with the network blocked."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from minivdm.course.build import differences, exercise_ids, solved_edition, sources
from minivdm.paths import repo_root

ROOT = repo_root()
LESSONS = sources(ROOT)
MOST_CPU_SECONDS = 2 * 180  # three minutes of two cores: unlike the clock, the same on a busy machine
LONGER = {"09": 2 * 360}  # it trains a text-to-video model, and what has to go before it
MOST_MEMORY = 4 * 2**30
MOST_LINES = 20

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
needs_wait4 = pytest.mark.skipif(sys.platform == "win32", reason="resource use of a process is measured with wait4")


def test_notebooks_are_in_step_with_their_sources():
    assert differences(ROOT, LESSONS) == []


@each_lesson
def test_lesson_has_what_every_lesson_has(lesson):
    notebook = solved_edition(lesson)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith(f"# {lesson.name[:2]}")
    assert re.search(r"\bminutes?\b", first.source), "the first cell says how many minutes the lesson takes"
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1
    assert tags.count("predict") >= 2
    ids = exercise_ids(notebook)
    assert len(set(ids)) == len(ids) >= 5
    assert all(exercise_id.startswith(lesson.name[:2]) for exercise_id in ids)
    for index, cell in enumerate(notebook.cells):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert cell.cell_type != "code" or len(lines) <= MOST_LINES, f"cell {index} has {len(lines)} lines"


@each_lesson
@needs_wait4
def test_solved_lesson_runs_and_gives_the_stored_outputs(lesson, tmp_path):
    """nbval runs every cell from the top and compares numbers to the last digit; in tagged cells only errors count."""
    from blocked import run

    options = ["--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = ["pytest", "--nbval", *options, "--color=no", lesson.with_suffix(".ipynb").name]
    used = run(command, lesson.parent, tmp_path / "workbook")
    print(f"{lesson.stem}: {used.cpu_seconds:.0f} CPU seconds, {used.memory / 2**30:.2f} GiB")
    assert used.status == 0, used.printed[-6000:]
    assert used.cpu_seconds <= LONGER.get(lesson.name[:2], MOST_CPU_SECONDS)
    assert used.memory <= MOST_MEMORY
    kept = {path.stem for path in (tmp_path / "workbook").glob("*.py")}
    assert kept == set(exercise_ids(solved_edition(lesson))), "every check of the solved lesson passes"


@each_lesson
@needs_wait4
def test_learners_lesson_stops_at_its_first_exercise_with_one_friendly_line(lesson, tmp_path):
    from blocked import run

    ran = tmp_path / "ran.ipynb"
    notebook = f"{lesson.stem}.ipynb"
    command = ["papermill", notebook, str(ran), "-p", "preset", "toy", "-p", "seed", "0", "-k", "python3"]
    used = run(command, ROOT / "notebooks", tmp_path / "workbook")
    assert used.status != 0
    first = exercise_ids(solved_edition(lesson))[0]
    errors = [out for out in outputs(ran) if out.output_type == "error"]
    assert [error.ename for error in errors] == ["ExerciseNotDone"], used.printed[-3000:]
    assert len(errors[0].traceback) == 1
    assert errors[0].traceback[0].startswith(f"✎ Exercise {first} is not written yet")


def outputs(path: Path) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(path, as_version=4)
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
