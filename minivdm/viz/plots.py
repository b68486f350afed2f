"""Plots that look alike: on a light panel of their own, to suit any page, in colours with fixed meanings."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from minivdm.data.io import write_atomically
from minivdm.viz.words import SpokenFigure

# From the palette of Okabe and Ito, "Color Universal Design" (2008), with a grey for noise. Under simulated red, green
# and blue blindness (Machado et al. 2009) any two stay at least 17 apart in CIE Lab; 2 is just noticeable.
SPACE = "#0072B2"  # blue
TIME = "#D55E00"  # vermilion
TEXT = "#CC79A7"  # pink
DATA = "#009E73"  # green
NOISE = "#555555"  # grey
INK = "#222222"  # axes, words, and what has none of those meanings

_STYLE = {
    "figure.facecolor": "#FAFAFA",
    "axes.facecolor": "#FAFAFA",
    "savefig.facecolor": "#FAFAFA",
    "figure.dpi": 100,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[SPACE, TIME, DATA, TEXT, NOISE]),
}


def figure(
    rows: int = 1, columns: int = 1, width: float = 7.0, height: float | None = None
) -> tuple[Figure, Axes | np.ndarray]:
    """A figure and its axes (one, or an array of them as `plt.subplots` gives), in the style of this course.

    width and height in inches; the height defaults to what suits the number of rows and columns. Say what a line means
    by its colour: `axes.plot(x, y, color=NOISE)`. Titles, labels and the names of the curves are also what a notebook
    says to those who cannot see the figure.
    """
    size = (width, height or 0.62 * width / columns * rows)
    with plt.rc_context(_STYLE):
        return plt.subplots(rows, columns, figsize=size, layout="constrained", FigureClass=SpokenFigure)


def loss_curve(
    metrics: str | Path | Iterable[Mapping[str, float]], path: str | Path | None = None, floor: float | None = None
) -> Figure:
    """Loss against step: what was measured in grey, its running mean as a line.

    metrics: a run's `metrics.jsonl`, or its rows, mappings with "step" and "loss".
    path: where to save the picture as PNG. floor: the lowest loss that any model can have, where it is known.
    """
    rows = read_rows(Path(metrics)) if isinstance(metrics, (str, Path)) else list(metrics)
    steps = np.array([row["step"] for row in rows if "loss" in row])
    losses = np.array([row["loss"] for row in rows if "loss" in row])
    fig, axes = figure(width=6.5, height=3.6)
    axes.plot(steps, losses, color="#AAAAAA", linewidth=1, marker="." if len(steps) < 30 else "", label="measured")
    if len(steps) >= 10:
        axes.plot(steps, _running_mean(losses, len(losses) // 10), color=INK, linewidth=2, label="running mean")
    if floor is not None:
        axes.axhline(floor, color=DATA, linestyle="--", label=f"floor, {floor:.3g}")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(color="#DDDDDD")
    if len(losses) and losses.min() > 0 and losses.max() > 3 * losses.min():  # late gains are small: let them show
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    if path is not None:
        save_png(fig, path)
    plt.close(fig)  # so that a notebook shows the figure once, as the cell's value
    return fig


def save_png(picture: Figure | Image.Image, path: str | Path) -> Path:
    """Save a figure or an image as PNG, whole or not at all. Raises UserError when the disk is full."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", facecolor=picture.get_facecolor(), dpi=150)
    else:
        picture.save(buffer, "PNG", optimize=True)
    return write_atomically(path, buffer.getvalue())


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`; a last line that an interruption cut short is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a window around each value; at the ends the window is what there is of it."""
    weights = np.ones(max(1, window))
    return np.convolve(values, weights, "same") / np.convolve(np.ones_like(values), weights, "same")
