"""Clips that play inside a notebook."""

import base64
import html
from collections.abc import Sequence

from IPython.display import HTML

from minivdm.data.webp import write_webp
from minivdm.viz.clips import Videos, to_clips, to_labels


def player(
    videos: Videos,
    labels: Sequence[str] | str | None = None,
    columns: int | None = None,
    fps: float = 8.0,
    scale: int = 4,
    alt: str | None = None,
) -> HTML:
    """Clips side by side, playing for ever, each above its label.

    videos: a batch (B, 3, T, H, W), a clip (3, T, H, W) or a list of clips, in [-1, 1].
    labels: one per clip. columns: clips in a row; without it as many as fit. fps: frames per second.
    scale: how many screen pixels a pixel gets per side; the browser enlarges, so files stay small and pixels sharp.
    alt: what a screen reader says instead of each clip's label.

    The clips are lossless animated WebP, written into the page itself: nothing is loaded, and the notebook keeps them.
    """
    clips = to_clips(videos)
    caption_style = "font-size:85%;line-height:1.3;padding-top:3px"
    figures = []
    for number, (clip, label) in enumerate(zip(clips, to_labels(labels, len(clips)), strict=True), start=1):
        frames, height, width = clip.shape[:3]
        which = f"clip {number} of {len(clips)}, " if len(clips) > 1 else ""
        said = html.escape(f"{alt or label or 'video'} ({which}{frames} frames, playing for ever)")
        data = base64.b64encode(write_webp(clip, fps)).decode()
        figures.append(
            f'<figure style="margin:0;width:{width * scale}px"><img src="data:image/webp;base64,{data}" alt="{said}" '
            f'width="{width * scale}" height="{height * scale}" style="image-rendering:pixelated;display:block">'
            f'<figcaption style="{caption_style}">{html.escape(label)}</figcaption></figure>'
        )
    # No colours: text takes the page's, so it is readable on light and on dark.
    places = f"{columns},max-content" if columns else f"auto-fill,{max(clip.shape[2] for clip in clips) * scale}px"
    return HTML(f'<div style="display:grid;grid-template-columns:repeat({places});gap:10px">{"".join(figures)}</div>')
