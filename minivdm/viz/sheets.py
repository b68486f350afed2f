"""Frames of clips side by side in one still picture: it brings its own background, so it suits light and dark pages."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

from minivdm.errors import UserError
from minivdm.viz.clips import Videos, to_clips, to_labels

PANEL, WORDS = (38, 42, 51), (232, 234, 237)  # behind the frames, and written on it: 12 to 1 in contrast
GAP, MARGIN = 2, 8  # pixels between frames, and around clips
FONT_SIZE = 12


def filmstrip(
    videos: Videos,
    labels: Sequence[str] | str | None = None,
    titles: Sequence[str] | None = None,
    moments: int | None = None,
    scale: int = 3,
) -> Image.Image:
    """One row per clip, its frames from left to right.

    videos: a batch (B, 3, T, H, W), a clip (3, T, H, W) or a list of clips, in [-1, 1].
    labels: one per clip, to the left of its row. titles: one per shown frame, above the first row, such as "t = 500".
    moments: how many frames are shown, spread evenly; without it all. scale: screen pixels per pixel and side.
    """
    rows = [_side_by_side(_spread(clip, moments), scale) for clip in to_clips(videos)]
    labels = to_labels(labels, len(rows))
    font = ImageFont.load_default(FONT_SIZE)
    shown = min(moments or len(clip) for clip in to_clips(videos))
    if titles is not None and len(titles) != shown:
        raise UserError(f"got {len(titles)} titles for {shown} frames; expected one for each")
    left = max(int(font.getlength(label)) for label in labels) + MARGIN if any(labels) else 0
    top = FONT_SIZE + MARGIN // 2 if titles else 0
    width = 2 * MARGIN + left + max(row.width for row in rows)
    sheet = Image.new("RGB", (width, 2 * MARGIN + top + sum(row.height + GAP for row in rows) - GAP), PANEL)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN + top
    for row, label in zip(rows, labels, strict=True):
        sheet.paste(row, (MARGIN + left, y))
        draw.text((MARGIN, y + row.height / 2), label, WORDS, font, anchor="lm")
        y += row.height + GAP
    for i, title in enumerate(titles or []):
        place = MARGIN + left + (i + 0.5) * (rows[0].width + GAP) / shown - GAP / 2
        draw.text((place, MARGIN), title, WORDS, font, anchor="ma")
    return sheet


def contact_sheet(
    videos: Videos,
    labels: Sequence[str] | None = None,
    columns: int = 4,
    moments: int = 4,
    scale: int = 2,
) -> Image.Image:
    """Many clips at a glance: each shows `moments` of its frames above its label.

    videos: a batch (B, 3, T, H, W), a clip (3, T, H, W) or a list of clips, in [-1, 1].
    labels: one per clip; long ones are wrapped. columns: clips in a row. scale: screen pixels per pixel and side.
    """
    strips = [_side_by_side(_spread(clip, moments), scale) for clip in to_clips(videos)]
    font = ImageFont.load_default(FONT_SIZE)
    cell_width = max(strip.width for strip in strips)
    texts = [_wrap(label, cell_width, font) for label in to_labels(labels, len(strips))]
    text_height = max(len(lines) for lines in texts) * (FONT_SIZE + 2)
    cell_height = max(strip.height for strip in strips) + text_height
    columns = min(columns, len(strips))
    rows = -(-len(strips) // columns)
    size = columns * (cell_width + MARGIN) + MARGIN, rows * (cell_height + MARGIN) + MARGIN
    sheet = Image.new("RGB", size, PANEL)
    draw = ImageDraw.Draw(sheet)
    for number, (strip, lines) in enumerate(zip(strips, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (cell_width + MARGIN), MARGIN + row * (cell_height + MARGIN)
        sheet.paste(strip, (x, y))
        for i, line in enumerate(lines):
            draw.text((x, y + strip.height + 2 + i * (FONT_SIZE + 2)), line, WORDS, font)
    return sheet


def _spread(clip: np.ndarray, moments: int | None) -> np.ndarray:
    """`moments` frames of a clip (T, H, W, 3), each from the middle of an equal part of it."""
    if moments is None:
        return clip
    return clip[[int((i + 0.5) * len(clip) / moments) for i in range(moments)]]


def _side_by_side(frames: np.ndarray, scale: int) -> Image.Image:
    """Frames (T, H, W, 3) in a row with gaps, every pixel enlarged to a square."""
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    row = np.pad(large, ((0, 0), (0, 0), (0, GAP), (0, 0)))
    row[:, :, large.shape[2] :] = PANEL
    return Image.fromarray(rearrange(row, "t h w c -> h (t w) c")[:, :-GAP].copy())


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines of words that fit into `width` pixels (a single longer word is left to be cut off)."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
