"""What every picture of videos starts with: the clips as bytes, and a label for each."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from minivdm.data.io import to_uint8
from minivdm.errors import UserError

Videos = Tensor | Sequence[Tensor]


def to_clips(videos: Videos) -> list[np.ndarray]:
    """A batch (B, 3, T, H, W), a clip (3, T, H, W) or a list of clips, in [-1, 1] -> list of (T, H, W, 3) uint8.

    Raises UserError for another shape, or for no clip at all.
    """
    clips = [videos] if isinstance(videos, Tensor) and videos.ndim == 4 else list(videos)
    for clip in clips:
        if clip.ndim != 4 or clip.shape[0] != 3 or 0 in clip.shape:
            raise UserError(
                f"got a clip of shape {tuple(clip.shape)}; expected (3, T, H, W), or a batch (B, 3, T, H, W)"
            )
    if not clips:
        raise UserError("got no clips to show; expected at least one")
    return [to_uint8(clip) for clip in clips]


def to_labels(labels: Sequence[str] | str | None, count: int) -> list[str]:
    """One label per clip, "" without labels. Raises UserError when their number is another."""
    labels = [labels] if isinstance(labels, str) else [""] * count if labels is None else list(labels)
    if len(labels) != count:
        raise UserError(f"got {len(labels)} labels for {count} clips; expected one for each")
    return labels
