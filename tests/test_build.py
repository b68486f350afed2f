"""From one source to two notebooks: stubs, tags, outputs that stay, and errors that name the place."""

import json
import sys

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from minivdm.course import build as builder
from minivdm.course.build import build, chosen, differences, learner_edition, main, solved_edition
from minivdm.errors import UserError

LESSON = '''# %% [markdown]
# # 01 A lesson, about 2 minutes

# %% tags=["parameters"]
preset = "toy"

# %% slideshow={"slide_type": "slide"} tags=["nbval-ignore-output"]
import torch
from minivdm.course import check

# %%
# exercise: 01.snr
def snr(alphas_cumprod):
    """The ratio."""
    ### BEGIN SOLUTION
    noise = 1 - alphas_cumprod
    return alphas_cumprod / noise
    ### END SOLUTION

# exercise: 01.alphas_cumprod
def alphas_cumprod(betas):
    if True:
        ### BEGIN SOLUTION
        return torch.cumprod(1 - betas, 0)
        ### END SOLUTION

# %%
check("01.snr", snr)

# %%
check("01.alphas_cumprod", alphas_cumprod)
print(float(snr(torch.tensor(0.75))), preset)
'''
STUBS = '''# exercise: 01.snr
def snr(alphas_cumprod):
    """The ratio."""
    raise NotImplementedError("exercise 01.snr")

# exercise: 01.alphas_cumprod
def alphas_cumprod(betas):
    if True:
        raise NotImplementedError("exercise 01.alphas_cumprod")'''


@pytest.fixture
def root(tmp_path):
    write_lesson(tmp_path, LESSON)
    return tmp_path


def write_lesson(root, text):
    (root / "solutions").mkdir(exist_ok=True)
    (root / "solutions" / "01_lesson.py").write_text(text)


def read(path):
    return nbformat.read(path, as_version=4)


def test_learners_edition_has_stubs_where_the_solution_was(root):
    lesson = root / "solutions" / "01_lesson.py"
    learner, solved = learner_edition(lesson), solved_edition(lesson)
    assert learner.cells[3].source == STUBS
    assert "### BEGIN SOLUTION" in solved.cells[3].source
    others = [(a.source, b.source) for i, (a, b) in enumerate(zip(learner.cells, solved.cells, strict=True)) if i != 3]
    assert all(one == other for one, other in others)
    nbformat.validate(learner)


def test_kernel_tags_and_ids_are_kept_and_nothing_else(root):
    notebook = solved_edition(root / "solutions" / "01_lesson.py")
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.metadata for cell in notebook.cells[1:3]] == [
        {"tags": ["parameters"]},
        {"tags": ["nbval-ignore-output"]},
    ]
    assert [cell.id for cell in notebook.cells] == [f"cell-{index:03d}" for index in range(6)]


def test_building_twice_gives_the_same_bytes_and_no_difference(root):
    first = {path: path.read_bytes() for path in build(root, builder.sources(root))}
    assert [path.relative_to(root).as_posix() for path in first] == [
        "notebooks/01_lesson.ipynb",
        "solutions/01_lesson.ipynb",
    ]
    build(root, builder.sources(root))
    assert {path: path.read_bytes() for path in first} == first
    assert differences(root, builder.sources(root)) == []


def test_every_kind_of_difference_is_told(root):
    lessons = builder.sources(root)
    assert len(differences(root, lessons)) == 2  # nothing built yet
    build(root, lessons)
    learner = root / "notebooks" / "01_lesson.ipynb"
    notebook = read(learner)
    notebook.cells[3].source += "\n"
    nbformat.write(notebook, learner)
    (root / "notebooks" / "02_stray.ipynb").write_bytes(learner.read_bytes())
    assert differences(root, lessons) == [
        "notebooks/01_lesson.ipynb differs from solutions/01_lesson.py; run make notebooks",
        "notebooks/02_stray.ipynb has no source in solutions/; remove it",
    ]
    write_lesson(root, LESSON.replace('tags=["parameters"]', ""))
    assert "solutions/01_lesson.ipynb differs from solutions/01_lesson.py; run make notebooks" in differences(
        root, lessons
    )


def test_outputs_of_unchanged_cells_live_on_and_do_not_count_as_difference(root):
    lessons = builder.sources(root)
    solved = build(root, lessons)[1]
    notebook = read(solved)
    for cell in notebook.cells[4:]:
        cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="kept")], 7
    nbformat.write(notebook, solved)
    assert differences(root, lessons) == []
    write_lesson(root, LESSON.replace("0.75", "0.5"))
    build(root, lessons)
    unchanged, changed = read(solved).cells[4:]
    assert unchanged.outputs[0].text == "kept" and unchanged.execution_count == 7
    assert changed.outputs == [] and changed.execution_count is None
    assert all(not cell.get("outputs") for cell in read(root / "notebooks" / "01_lesson.ipynb").cells)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("# exercise: 01.snr\n", "", "needs an '# exercise: NN.name' line above"),
        ("    return alphas_cumprod / noise\n    ### END SOLUTION", "    return 1", "'### BEGIN SOLUTION' without"),
        ("    ### BEGIN SOLUTION\n    noise", "    noise", "'### END SOLUTION' without"),
        ("# exercise: 01.snr\n", "# exercise: 01.snrr\n", "'01.snrr' is not registered"),
        ('check("01.snr", snr)', "pass", "01.snr is never checked"),
    ],
)
def test_errors_name_the_lesson_and_the_place(root, before, after, text):
    assert before in LESSON
    write_lesson(root, LESSON.replace(before, after))
    with pytest.raises(UserError, match="01_lesson.py") as error:
        learner_edition(root / "solutions" / "01_lesson.py")
    assert text in str(error.value) and "\n" not in str(error.value)


def test_command_line(root, monkeypatch, capsys):
    monkeypatch.setattr(builder, "repo_root", lambda: root)
    assert main(["--check"]) == 1
    assert "notebooks/01_lesson.ipynb is missing" in capsys.readouterr().out
    assert main(["01"]) == 0 and main(["--check"]) == 0
    assert main(["05"]) == 2
    assert "no lesson '05'" in capsys.readouterr().err
    assert chosen(root, []) == builder.sources(root)


def test_executing_keeps_outputs_and_leaves_the_workbook_alone(root, monkeypatch):
    monkeypatch.setenv("MINIVDM_WORKBOOK", str(root / "mine"))
    solved = build(root, builder.sources(root), execute=True)[1]
    notebook = read(solved)
    texts = ["".join(json.dumps(output) for output in cell.get("outputs", [])) for cell in notebook.cells]
    assert "01.snr" in texts[4] and "text/html" in texts[4]
    assert "3.0 toy" in texts[5]
    assert not (root / "mine").exists()
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells) and "papermill" not in notebook.metadata
    assert not list(root.glob("**/*.unfinished"))


def test_badges_and_the_cell_for_colab_come_with_an_address(root, capsys):
    [source] = builder.sources(root)
    plain = builder.handed_out(source)
    (root / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/some-one/mini.vdm"\n')
    published = builder.handed_out(source)
    badges, cell = published.cells[1:3]
    assert [c.source for c in published.cells if c not in (badges, cell)] == [c.source for c in plain.cells]
    for address in (
        "https://colab.research.google.com/github/some-one/mini.vdm/blob/HEAD/notebooks/01_lesson.ipynb",
        "https://mybinder.org/v2/gh/some-one/mini.vdm/HEAD?labpath=notebooks/01_lesson.ipynb",
    ):
        assert f"]({address})" in badges.source
    assert len(cell.source.splitlines()) <= 20
    shell = InteractiveShell()
    before = list(sys.path)
    shell.run_cell(cell.source).raise_error()  # not on Colab: nothing is fetched, nothing is said
    assert sys.path == before and capsys.readouterr().out == ""

    fetched = []
    shell.system, shell.run_line_magic = fetched.append, lambda *magic, **_: fetched.append(" ".join(magic[:2]))
    sys.modules["google.colab"] = sys
    try:
        shell.run_cell(cell.source).raise_error()
        assert "https://github.com/some-one/mini.vdm" in fetched[1] and fetched[2:] == [
            "pip install -q ./mini.vdm",
            "cd -q mini.vdm/notebooks",
        ]
        assert sys.path[0] == "/content/mini.vdm"
    finally:
        del sys.modules["google.colab"]
        sys.path[:] = before


def test_an_address_that_is_not_on_github_is_told(root):
    (root / "pyproject.toml").write_text('[project.urls]\nRepository = "https://example.org/x"\n')
    with pytest.raises(UserError, match="Repository in pyproject.toml is https://example.org/x; expected https://git"):
        builder.handed_out(builder.sources(root)[0])
