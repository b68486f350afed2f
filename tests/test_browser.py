"""A learner's first minutes in JupyterLab, in a real browser: an exercise wrong, an exercise right, a slider.

Needs Playwright and a Chromium (`make browser`); build/screenshots/ keeps what was on the screen.
"""

import io
import sys
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest
from browser_lab import ROOT, jupyter_lab, missing
from PIL import Image

from minivdm.course.exercise import get

LESSON = "02_q_sample_posterior.ipynb"
PROGRESS, SLIDER = "progress_widget(2)", "with_slider(noised_film"
EXTRACT, CHECK_EXTRACT = "# exercise: 02.extract", 'check("02.extract"'
Q_SAMPLE, CHECK_Q_SAMPLE, CHECK_NEXT = "# exercise: 02.q_sample", 'check("02.q_sample"', 'check("02.predict_x0"'
WRONG, MISTAKE = "return a[t]", "not reshaped"
RIGHT = "return a[t].reshape(-1, *[1] * (len(x_shape) - 1))"
JUMP = "a = extract(alphas_cumprod, t, x0.shape); return a.sqrt() * x0 + (1 - a).sqrt() * noise"


@pytest.fixture
def browser():
    """Skips, in so many words, where there is no browser; looks after what the learner has."""
    if reason := missing():
        pytest.skip(reason)
    before = learners_files()
    yield
    assert learners_files() == before


def learners_files():
    files = [ROOT / "notebooks" / LESSON, *(ROOT / "workbook").glob("*")]
    return {path: path.stat().st_mtime_ns for path in files}


def processes_of(lab):
    """Kernels name the server's runtime folder on their command line, also when the server is gone."""
    found = psutil.process_iter(["cmdline"])
    return [each.pid for each in found if any(str(lab.folder) in word for word in each.info["cmdline"] or ())]


def test_a_learner_errs_succeeds_and_moves_a_slider(browser):
    from browser_notebook import open_notebook
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    with jupyter_lab([LESSON]) as lab, open_notebook(lab, LESSON) as notebook:
        expect(notebook.run_all(until=CHECK_EXTRACT)).to_contain_text("Exercise 02.extract is not written yet")
        expect(notebook.output(PROGRESS)).to_contain_text("0 of 8 exercises passed")
        notebook.photograph("1-not-written", CHECK_EXTRACT)

        notebook.write_last_line(EXTRACT, WRONG)
        notebook.run(EXTRACT)
        verdict = notebook.run(CHECK_EXTRACT)
        mistake = next(each for each in get("02.extract").mistakes if each.name == MISTAKE)
        for words in ("✗ 02.extract", mistake.seen, mistake.why, mistake.question):
            expect(verdict).to_contain_text(words.replace("`", ""))
        notebook.photograph("2-wrong", CHECK_EXTRACT)
        assert not (lab.folder / "workbook").exists()

        notebook.write_last_line(EXTRACT, RIGHT)
        notebook.run(EXTRACT)
        expect(notebook.run(CHECK_EXTRACT)).to_contain_text("✓ 02.extract")
        notebook.photograph("3-right", CHECK_EXTRACT)
        expect(notebook.output(PROGRESS)).to_contain_text("1 of 8 exercises passed")
        notebook.photograph("4-progress", PROGRESS)
        assert RIGHT in (lab.folder / "workbook" / "02.extract.py").read_text(encoding="utf-8")

        notebook.write_last_line(Q_SAMPLE, JUMP)
        expect(notebook.run_below(Q_SAMPLE, until=CHECK_NEXT)).to_contain_text("is not written yet")
        expect(notebook.output(CHECK_Q_SAMPLE)).to_contain_text("✓ 02.q_sample")
        picture = notebook.output(SLIDER).locator("figure")
        roughness = {}
        for place, label in ((None, "t = 160"), (0, "t = 0"), (1, "t = 999")):
            if place is not None:
                notebook.drag_slider(SLIDER, place)
            expect(picture).to_have_text(label)
            roughness[label] = roughness_of(picture.locator("img"))
            notebook.photograph(f"5-slider-{label.removeprefix('t = ')}", SLIDER)
        assert 4 * roughness["t = 0"] < roughness["t = 160"] < roughness["t = 999"] / 2
        assert notebook.faults == []
    assert not lab.folder.exists() and processes_of(lab) == []


def roughness_of(picture):
    """How much neighbouring pixels of the film differ on the screen, where it is drawn 6 times as large."""
    shown = Image.open(io.BytesIO(picture.screenshot())).convert("L")
    pixels = np.asarray(shown, dtype=float)[3::6, 3::6]
    return np.abs(np.diff(pixels, axis=1)).mean()


def test_the_server_wants_its_token_and_ends_when_a_test_fails(browser):
    with pytest.raises(ZeroDivisionError), jupyter_lab([LESSON]) as lab:
        contents = f"{lab.url}api/contents/notebooks/{LESSON}?content=0"
        assert lab.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{contents}&token={lab.token}") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(contents)
        assert lab.token not in " ".join(psutil.Process().children()[0].cmdline())
        1 / 0  # noqa: B018
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(lab.url)
    assert not lab.folder.exists() and processes_of(lab) == []


def test_without_playwright_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright", None)
    assert "`make browser` installs it" in missing()


def test_without_a_browser_the_ways_to_get_one_are_said(monkeypatch, tmp_path):
    pytest.importorskip("playwright", reason="Playwright is not installed; `make browser` installs it")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert missing().startswith("no Chromium found") and "apt install chromium" in missing()
