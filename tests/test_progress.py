"""Progress counts what lies in the workbook; whole notebooks are checked from the command line."""

import nbformat
import pytest

from minivdm.course.exercise import exercises
from minivdm.course.progress import check_notebooks, progress_table
from minivdm.errors import UserError

SNR = "# exercise: 01.snr\ndef snr(alphas_cumprod):\n    return alphas_cumprod / (one - alphas_cumprod)"
WRONG_SNR = SNR.replace("/ (one", "* (one")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course folder that we stand in."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("MINIVDM_WORKBOOK", raising=False)
    return tmp_path


def write_notebook(course, name, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, course / "notebooks" / name)


def test_table_has_nine_notebooks_and_counts_the_workbook(course):
    (course / "workbook").mkdir()
    (course / "workbook" / "01.snr.py").write_text("snr = None")
    table = progress_table()
    rows = [line for line in table.splitlines() if line[:2].isdigit() and line[2] == " "]
    assert [row[:2] for row in rows] == [f"{n:02d}" for n in range(1, 10)]
    assert "✓ snr" in table and "· gaussian_kl" in table and "1 of 8" in rows[0] and "0 of 10" in rows[8]
    assert f"1 of {len(exercises())} exercises" in table
    assert max(map(len, table.splitlines()[:-1])) <= 110


def test_check_runs_definitions_only_and_keeps_right_answers(course, capsys):
    write_notebook(course, "01_ddpm_math.ipynb", "one = 1\nraise SystemExit('not run')", SNR)
    assert check_notebooks("1") == 0
    assert "✓ 01.snr" in capsys.readouterr().out
    assert "alphas_cumprod / (one" in (course / "workbook" / "01.snr.py").read_text()


def test_check_reports_wrong_missing_and_unreadable_answers(course, capsys):
    write_notebook(
        course, "01_ddpm_math.ipynb", "one = 1", WRONG_SNR, "# exercise: 01.gaussian_kl\nx = (", "import nosuch"
    )
    assert check_notebooks("all") == 1
    printed = capsys.readouterr().out
    assert "✗ 01.snr" in printed and "does not define it" in printed
    assert "cell 2 is not Python" in printed and "No module named 'nosuch'" in printed
    assert not (course / "workbook").exists()


def test_no_such_notebook_is_one_line(course):
    with pytest.raises(UserError, match="no notebook '12'"):
        check_notebooks("12")
