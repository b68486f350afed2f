"""A class's submissions: right and wrong answers are counted, and nothing that an answer does stops the table."""

import csv
import inspect
import os
import sys
from pathlib import Path

import nbformat
import pytest

from minivdm import cli
from minivdm.course import classroom
from minivdm.course.classroom import class_progress
from minivdm.course.exercise import exercises
from minivdm.course.submissions import submissions
from minivdm.errors import UserError

IMPORTS = "import os, socket, subprocess, sys, time\nimport torch\nimport nosuchpackage"
SWALLOWS = "while True:\n        try:\n            while True: time.sleep(0.01)\n        except Exception: pass"
NASTY = {  # what comes of it, the answer, and words that say why
    "01.linear_betas": ("never ends", "while True: pass", "stopped after"),
    "01.cosine_betas": ("out of memory", "return torch.empty(25 * 10**9)", "allocate"),
    "01.alphas_cumprod": ("left the process", "sys.exit(0)", "sys.exit"),
    "01.noise_one_step": ("wrong", "open('here.txt', 'w').write('x')\n    return 1", "It wrote here.txt"),
    "01.noise_chain": ("left the process", "os._exit(3)", "status 3"),
    "01.snr": ("passed", "print('flood ' * 10**6)\n    return alphas_cumprod / (1 - alphas_cumprod)", "It printed"),
    "01.first_noisy_step": ("wrong", "open(OUTSIDE, 'w').write('x')", "only into its own folder"),
    "01.gaussian_kl": ("not written", "raise NotImplementedError", "not written yet"),
    "02.extract": ("never ends", SWALLOWS, "stopped after"),
    "02.q_sample": ("wrong", "socket.create_connection(('127.0.0.1', 9))", "no network"),
    "02.predict_x0": ("wrong", "subprocess.run(['true'])", "no programs"),
    "02.ddim_step": ("wrong", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    "02.predict_v": ("missing", "return (", "nosuchpackage"),
}
if sys.platform != "linux":
    NASTY.pop("01.cosine_betas")  # other systems limit no memory


def definition(exercise_id, body):
    parameters = inspect.signature(exercises()[exercise_id].reference).parameters.values()
    names = ", ".join(str(each.replace(annotation=each.empty)) for each in parameters)
    return f"# exercise: {exercise_id}\ndef {exercise_id[3:]}({names}):\n    {body}"


def notebook(path, cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    outside = f"OUTSIDE = {str(tmp_path / 'outside.txt')!r}"
    answers = [definition(name, body) for name, (_, body, _) in NASTY.items()]
    notebook(
        folder / "nasty" / "a" / "b" / "any name.ipynb",
        [IMPORTS, outside, *answers],
    )
    ratio = definition("01.snr", "return alphas_cumprod / (1 - alphas_cumprod)")
    notebook(folder / "good ñ" / "01.ipynb", ["import torch", definition("01.snr", "return alphas_cumprod")])
    (folder / "good ñ" / "workbook").mkdir()
    (folder / "good ñ" / "workbook" / "01.snr.py").write_text(ratio, encoding="utf-8")
    steps = definition("01.first_noisy_step", "return int((snr(alphas_cumprod) >= 1).sum())")
    (folder / "good ñ" / "workbook" / "01.first_noisy_step.py").write_text(steps, encoding="utf-8")
    (folder / "=broken").mkdir()
    (folder / "=broken" / "02.ipynb").write_bytes(b"\xff{not json")
    notebook(folder / "=broken" / "solutions" / "01.ipynb", [ratio])  # a clone of the course brings ours
    monkeypatch.setattr(classroom, "SECONDS", 1.0)
    monkeypatch.setattr(classroom, "PATIENCE_S", 20.0)
    return folder


def test_whatever_answers_do_every_student_gets_a_row(folder, tmp_path):
    lines = []
    results = class_progress(folder, tmp_path / "class.csv", show=lines.append)
    found = {result.student: result for result in results}
    assert list(found) == ["=broken", "good ñ", "nasty"]
    assert lines[0].split() == ["student", *(f"{n:02d}" for n in range(1, 11)), "all"]
    rows = {
        result.student: line.removeprefix(result.student).split()
        for result, line in zip(results, lines[1:4], strict=True)
    }
    assert rows["good ñ"][:2] == ["2/8", "0/8"] and rows["good ñ"][-1] == f"2/{len(exercises())}"
    assert rows["nasty"][:2] == ["1/8", "0/8"] and rows["=broken"][-1].startswith("0/")
    with (tmp_path / "class.csv").open(encoding="utf-8-sig", newline="") as file:
        table = {row["student"]: row for row in csv.DictReader(file)}
    assert list(table) == ["'=broken", "good ñ", "nasty"]
    assert table["good ñ"]["passed"] == table["good ñ"]["passed 01"] == "2"
    assert table["good ñ"]["01.snr"] == "passed", "the workbook's counts, though the notebook's is wrong"
    assert {name: table["nasty"][name] for name in NASTY} == {name: outcome for name, (outcome, _, _) in NASTY.items()}
    nasty = found["nasty"]
    for name, (_, _, words) in NASTY.items():
        finding = nasty.finding(name)
        assert words in f"{finding.said} {finding.beside}", name
    (missing,) = (
        line for line in lines if line.startswith("nasty: 02.predict_v missing: a/b/any name.ipynb, cell 0, line 3")
    )
    assert "No module named 'nosuchpackage'; a/b/any name.ipynb, cell 14 is not Python: " in missing
    assert any(line.startswith("nasty: 02.extract never ends: stopped after") for line in lines), nasty.remarks()
    assert "=broken: 02.ipynb is no text in UTF-8" in lines
    assert not (tmp_path / "outside.txt").exists()
    assert sorted(os.listdir(folder)) == ["=broken", "good ñ", "nasty"]


def test_command_line(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(classroom, "class_progress", lambda *given: asked.append(given))
    assert cli.main(["progress", "--folder", "a class", "--csv", "b.csv"]) == 0
    assert asked == [(Path("a class"), Path("b.csv"))]
    assert cli.main(["progress", "--csv", "x.csv"]) == 2
    assert "--csv goes with --folder" in capsys.readouterr().err


def test_archives_and_empty_folders_are_one_line(tmp_path):
    (tmp_path / "class.zip").write_bytes(b"PK")
    for wrong in (tmp_path / "class.zip", tmp_path, tmp_path / "nosuch"):
        with pytest.raises(UserError) as error:
            submissions(wrong)
        assert "\n" not in str(error.value)
        assert "unpack" in str(error.value) or not wrong.exists()
    (tmp_path / "class.zip").unlink()
    with pytest.raises(UserError, match="one subfolder per student"):
        submissions(tmp_path)
    (tmp_path / "anna").mkdir()
    with pytest.raises(UserError, match="make it first"):
        class_progress(tmp_path, tmp_path / "nosuch" / "class.csv")


def test_links_checkpoints_and_solutions_are_not_read(tmp_path):
    ratio = definition("01.snr", "return 1")
    for place in ("solutions", ".ipynb_checkpoints", "notebooks"):
        notebook(tmp_path / "anna" / place / "01.ipynb", [ratio])
    if sys.platform != "win32":
        (tmp_path / "anna" / "linked.ipynb").symlink_to(tmp_path / "anna" / "notebooks" / "01.ipynb")
        (tmp_path / "berta").symlink_to(tmp_path / "anna", target_is_directory=True)
    (anna,) = submissions(tmp_path)
    assert [source.name for source in anna.sources] == ["notebooks/01.ipynb"]
    assert anna.sources[0].exercises == ("01.snr",)
