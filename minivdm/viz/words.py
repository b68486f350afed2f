"""Pictures with words for those who cannot see them.

JupyterLab shows a PNG output without alternative text, whatever its metadata say; an `<img alt="…">` in an HTML output
it shows as it is, and so do the book and every other page that a notebook becomes.
"""

import base64
import html
import io

from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


class Picture(HTML):
    """A PNG that says what it shows: as a picture with alternative text, or as these words where there is only text."""

    def __init__(self, png: bytes, alt: str):
        self.alt = " ".join(alt.split())
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        super().__init__(f'<img src="{source}" alt="{html.escape(self.alt)}" style="max-width:100%">')

    def __repr__(self) -> str:
        return self.alt


def picture(shown: bytes | Image.Image | Figure, alt: str) -> Picture:
    """A PNG, an image or a figure for a notebook, with what a screen reader says in its place."""
    if isinstance(shown, bytes):
        return Picture(shown, alt)
    buffer = io.BytesIO()
    if isinstance(shown, Figure):
        shown.savefig(buffer, format="png", facecolor=shown.get_facecolor(), bbox_inches="tight")
    else:
        shown.save(buffer, "PNG", optimize=True)
    return Picture(buffer.getvalue(), alt)


class SpokenFigure(Figure):
    """A figure that shows itself in a notebook with the words that stand in it (`in_words`) as alternative text."""

    def _ipython_display_(self) -> None:
        display(picture(self, in_words(self)))


def in_words(figure: Figure) -> str:
    """What each panel plots, against what, and what its curves are called: "loss against step: curves: measured"."""
    panels = [words for axes in figure.axes if axes.axison and (words := _panel(axes))]
    return "; ".join(panels) or "a drawing without words"


def _panel(axes: Axes) -> str:
    what, against = axes.get_ylabel(), axes.get_xlabel()
    quantity = f"{what} against {against}" if what and against else what or against
    names = ", ".join(axes.get_legend_handles_labels()[1])
    kinds = {"picture": axes.images, "bars": axes.patches, "curves": axes.lines, "points": axes.collections}
    kind = next((kind for kind, artists in kinds.items() if artists), "")
    parts = (axes.get_title(), quantity, f"{kind} {names}".strip())
    return ": ".join(" ".join(part.split()) for part in parts if part)
