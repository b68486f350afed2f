"""Pictures for notebooks: clips that play, sheets of frames, and plots, all made without a network.

    player(videos, labels)          clips that play in the notebook          -> HTML
    filmstrip(videos, labels)       one row of frames per clip               -> PIL image
    contact_sheet(videos, labels)   many clips at a glance                   -> PIL image
    figure(rows, columns)           axes for a plot, styled as all are       -> Matplotlib figure and axes
    loss_curve(metrics, path)       how a training went                      -> Matplotlib figure
    picture(shown, alt)             any of the stills in a notebook, with words for those who cannot see it -> HTML
    save_png(picture, path)         keep one of them

Videos are floats in [-1, 1]: a batch (B, 3, T, H, W), one clip (3, T, H, W), or a list of clips of any sizes.

Five colours mean the same thing in every figure: SPACE, TIME, TEXT, DATA and NOISE.
"""

from minivdm.viz.player import player
from minivdm.viz.plots import DATA, INK, NOISE, SPACE, TEXT, TIME, figure, loss_curve, save_png
from minivdm.viz.sheets import contact_sheet, filmstrip
from minivdm.viz.words import picture

__all__ = [
    "DATA", "INK", "NOISE", "SPACE", "TEXT", "TIME",
    "contact_sheet", "figure", "filmstrip", "loss_curve", "picture", "player", "save_png",
]  # fmt: skip
