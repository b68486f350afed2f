"""Animated WebP files: each frame packed losslessly by Pillow, the container around them built here.

Pillow's own animation writer merges equal frames, as it does for GIF. The container is RIFF: a tag of four letters, a
length, and that many bytes, padded to an even number. An animation is VP8X (canvas size), ANIM (loop), then one ANMF
(place, duration, picture) per frame. (Google, "WebP Container Specification".)
"""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

from minivdm.data.gif import even_delays
from minivdm.data.limits import check_film_size, check_frame_size

TICK = Fraction(1, 1000)  # WebP counts time in thousandths of a second
UNSPECIFIED_DELAY = 100  # ticks; a still picture has no duration


def read_webp(data: bytes) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Yield (frame (H, W, 3) uint8, seconds it is shown); what is transparent is shown over black.

    Raises ValueError or OSError when the file is no WebP or is damaged.
    """
    announced = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < announced:
        raise ValueError(f"truncated WebP: it holds {len(data)} of {announced} bytes")
    if data[12:16] == b"VP8X":  # the canvas, for which libwebp takes memory before it says how large it is
        check_frame_size(*(1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27)))
    image = Image.open(io.BytesIO(data), formats=["WEBP"])
    check_frame_size(*image.size)
    check_film_size(image.n_frames, image.n_frames * image.width * image.height)
    for position in range(image.n_frames):
        image.seek(position)
        pixels = np.asarray(image.convert("RGBA"))
        colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
        yield ((colour * alpha + 127) // 255).astype(np.uint8), (image.info.get("duration") or UNSPECIFIED_DELAY) * TICK


def write_webp(frames: np.ndarray, fps: float) -> bytes:
    """A looping, lossless WebP of `frames` (T, H, W, 3) uint8: T frames, equal ones too."""
    height, width = frames.shape[1:3]
    size = _int24(width - 1) + _int24(height - 1)
    body = _chunk(b"VP8X", b"\x02\0\0\0" + size) + _chunk(b"ANIM", bytes(6))  # 2: animated; black behind, no end
    for frame, delay in zip(frames, even_delays(len(frames), fps, TICK), strict=True):
        buffer = io.BytesIO()
        # exact: else libwebp may change colours that it takes to be invisible
        Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "WEBP", lossless=True, exact=True, method=6)
        picture = buffer.getvalue()[12:]  # without "RIFF", length, "WEBP": the bare VP8L chunk
        body += _chunk(b"ANMF", bytes(6) + size + _int24(delay) + b"\x02" + picture)  # 2: replace, do not blend
    return _chunk(b"RIFF", b"WEBP" + body)


def _int24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _chunk(tag: bytes, content: bytes) -> bytes:
    return tag + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
