"""Pictures of any size to the size that a model wants."""

import numpy as np
from PIL import Image


def fit_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One frame (h, w, 3) uint8 -> (H, W, 3) for size (H, W): the largest centred part of that shape, scaled.

    Bilinear, each pixel from all that lie under it: what video-diffusion-pytorch's folders give, in half the time of a
    bicubic filter.
    """
    (height, width), (h, w) = size, frame.shape[:2]
    if (h, w) == (height, width):
        return frame
    scale = max(height / h, width / w)
    top, left = (h - height / scale) / 2, (w - width / scale) / 2
    box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))  # rounding may have left the picture
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
