"""Progress counts what lies in the workbook; whole notebooks are checked from the command line."""

import nbformat
import pytest

from minivdm.course import progress
from minivdm.course.build import handed_out, sources
from minivdm.course.exercise import NUM_NOTEBOOKS, check, exercises
from minivdm.course.progress import TITLES, check_notebooks, progress_table, progress_widget
from minivdm.errors import UserError
from minivdm.paths import repo_root

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


def test_table_has_every_notebook_and_counts_the_workbook(course):
    (course / "workbook").mkdir()
    (course / "workbook" / "01.snr.py").write_text("snr = None")
    table = progress_table()
    rows = [line for line in table.splitlines() if line[:2].isdigit() and line[2] == " "]
    assert [row[:2] for row in rows] == [f"{n:02d}" for n in range(1, NUM_NOTEBOOKS + 1)]
    assert len(rows) == len(TITLES)
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


def test_a_notebook_that_cannot_be_read_is_one_line(course):
    (course / "notebooks" / "01_ddpm_math.ipynb").write_text("{")
    with pytest.raises(UserError, match="01_ddpm_math.ipynb is not a notebook"):
        check_notebooks("01")


def test_widget_tells_passed_and_open_in_words_as_well(course, capsys):
    (course / "workbook").mkdir()
    (course / "workbook" / "01.snr.py").write_text("snr = None")
    shown = progress_widget(1)
    text, page = capsys.readouterr().out, shown.to_html()
    assert (
        text.startswith("notebook 01, DDPM math: 1 of 8 exercises passed\n")
        and "✓ snr" in text
        and "· gaussian_kl" in text
    )
    assert '<span aria-label="passed">✓</span> <code>snr</code>' in page
    assert page.count('aria-label="open"') == 7 and '<progress value="1" max="8"' in page
    assert "http" not in page and "<script" not in page and "#" not in page, "no colour of its own: light and dark"
    with pytest.raises(UserError, match="no notebook 99"):
        progress_widget(99)


def test_widget_in_jupyter_follows_the_checks(course, monkeypatch, capsys):
    import IPython.display

    sent = []
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_on_screen", set())
    monkeypatch.setattr(IPython.display, "display", lambda data, **how: sent.append(("new", how["display_id"], data)))
    monkeypatch.setattr(
        IPython.display, "update_display", lambda data, **how: sent.append(("again", how["display_id"], data))
    )
    assert progress_widget(1)._ipython_display_() is None, "as the last value of a cell it is not shown twice"
    assert check("02.predict_v", exercises()["02.predict_v"].reference).passed
    assert [kind for kind, _, _ in sent] == ["new"], "the widget of another notebook is not there"
    assert check("01.snr", exercises()["01.snr"].reference).passed
    (_, first, before), (kind, second, after) = sent
    assert kind == "again" and first == second
    assert "0 of 8" in before["text/plain"] and "1 of 8" in after["text/plain"] and "1 of 8" in after["text/html"]


def test_every_lesson_is_handed_out_with_its_progress_under_the_title():
    for source in sources(repo_root()):
        title, cell = handed_out(source).cells[:2]
        assert title.cell_type == "markdown" and cell.id == "progress" and cell.metadata.tags == ["nbval-ignore-output"]
        assert cell.source == f"from minivdm.course import progress_widget\n\nprogress_widget({int(source.name[:2])})"
