"""A report on a folder of clips as text for a terminal, and as a page with plots."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minivdm.data.io import write_atomically
from minivdm.data.report import Survey
from minivdm.viz.plots import SPACE, TEXT, TIME, figure, save_png

PANELS = (  # what is counted, its axis, its colour
    ("frames", "frames", TIME),
    ("seconds", "seconds", TIME),
    ("fps", "frames per second", TIME),
    ("height", "height in pixels", SPACE),
    ("ratio", "width / height", SPACE),
    ("words", "words in a caption", TEXT),
)


def as_text(found: Survey) -> str:
    """Aligned columns, and what to do at the end."""
    width = max(len(_clean(label)) for section in found.sections for label, _ in section.rows)
    lines = [f"{_clean(str(found.folder))}"]
    for section in found.sections:
        lines += ["", section.title.upper()]
        lines += [f"  {_clean(label):<{width}}  {_clean(value)}" for label, value in section.rows]
    return "\n".join([*lines, "", "WHAT TO DO", *(f"  - {_clean(line)}" for line in found.advice)])


def write_page(found: Survey, out: str | Path) -> Path:
    """Write `report.md` and `report.png` into a folder; returns the path of the page. UserError when it cannot."""
    out = Path(out)
    lines = [f"# {_clean(found.folder.name)}", "", f"![Histograms]({_plots(found, out).name})"]
    for section in found.sections:
        lines += ["", f"## {section.title.capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(label)} | {_cell(value)} |" for label, value in section.rows]
    lines += ["", "## What to do", "", *(f"- {_clean(line)}" for line in found.advice), ""]
    return write_atomically(out / "report.md", "\n".join(lines).encode())


def _plots(found: Survey, out: Path) -> Path:
    numbers = found.numbers | {"ratio": found.numbers["width"] / found.numbers["height"]}
    picture, axes = figure(2, 3, width=10.0)
    for panel, (name, label, colour) in zip(axes.flat, PANELS, strict=True):
        values = numbers[name]
        if len(values):
            whole = name in ("frames", "words", "height") and np.ptp(values) < 30
            steps = np.arange(values.min() - 0.5, values.max() + 1) if whole else 20
            panel.hist(values, bins=steps, color=colour)
        panel.set_xlabel(label)
        panel.set_ylabel("captions" if name == "words" else "clips")
    page = save_png(picture, out / "report.png")
    plt.close(picture)
    return page


def _cell(text: str) -> str:
    return _clean(text).strip().replace("|", "\\|").replace("<", "&lt;")


def _clean(text: str) -> str:
    """Names of files may hold anything; a terminal and a page get what can be shown."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
