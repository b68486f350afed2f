"""GIF files, block by block.

Pillow packs and unpacks the pixels of one picture; everything around them is done here, for two reasons. Pillow's
writer merges equal frames: a clip of 10 frames can come back with 8, a constant clip with 1. And readers differ in
what they do with partial frames; this one does what browsers do, which is what the maker of a GIF looked at.

A GIF is a canvas size, an optional global palette, then blocks. A picture block paints a rectangle with colour indices;
a control block before it says how long it stays, which index is transparent, and what happens to the rectangle after.
(The standard is CompuServe's "GRAPHICS INTERCHANGE FORMAT, Version 89a", 1990.)
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from minivdm.data.limits import check_film_size, check_frame_size

TICK = Fraction(1, 100)  # GIF counts time in hundredths of a second
UNSPECIFIED_DELAY = 10  # ticks; browsers show a frame this long when the file says 0 or 1
MAX_RATE = 50  # a delay of 2 ticks is the shortest that browsers obey
PALETTE_BYTES = 3 * 256


@dataclass(frozen=True)
class Picture:
    """One picture block: where it paints, with which colours, for how long, and what becomes of it."""

    left: int
    top: int
    width: int
    height: int
    interlaced: bool
    palette: bytes
    data: memoryview  # LZW code size and sub-blocks, as in the file
    delay: int = 0  # ticks
    disposal: int = 0  # 0, 1 leave it; 2 clear its rectangle; 3 put back what was there before
    transparent: int | None = None


def read_gif(data: bytes) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Yield (frame (H, W, 3) uint8, seconds it is shown) for each picture, painted over a black canvas.

    Every picture of the file is one frame, in order, however long it is shown. Raises ValueError when the file is no
    GIF or stops early, OSError when its pixels are damaged.
    """
    (width, height), pictures = _parse(data)
    # As browsers do: a canvas that is smaller than the first picture grows to hold it.
    width = max(width, pictures[0].left + pictures[0].width)
    height = max(height, pictures[0].top + pictures[0].height)
    check_frame_size(width, height)
    canvas = np.zeros((height, width, 3), np.uint8)
    for picture in pictures:
        before = canvas.copy() if picture.disposal == 3 else canvas
        rows = slice(picture.top, picture.top + picture.height)
        columns = slice(picture.left, picture.left + picture.width)
        region = canvas[rows, columns]  # clipped to the canvas by the slice
        index = _unpack(picture)[: region.shape[0], : region.shape[1]]
        palette = np.frombuffer(picture.palette.ljust(PALETTE_BYTES, b"\0"), np.uint8).reshape(256, 3)
        painted = True if picture.transparent is None else (index != picture.transparent)[..., None]
        np.copyto(region, palette.take(index, axis=0), where=painted)
        yield canvas.copy(), (picture.delay if picture.delay > 1 else UNSPECIFIED_DELAY) * TICK
        if picture.disposal == 2:
            region[:] = 0
        elif picture.disposal == 3:
            canvas = before


def write_gif(frames: np.ndarray, fps: float) -> bytes:
    """A looping GIF of `frames` (T, H, W, 3) uint8: T pictures, equal ones too, each with the palette it needs.

    A picture stores only the rectangle that changed since the last one. Where that has at most 256 colours, as nearly
    always in a 32×32 firework, every pixel is exact; else see `_index_colours`.
    """
    if fps > MAX_RATE:
        raise ValueError(f"a GIF plays at most {MAX_RATE} frames per second, not {fps:g}; write .mp4 or .webp")
    height, width = frames.shape[1:3]
    out = [struct.pack("<6sHHBBB", b"GIF89a", width, height, 0, 0, 0)]
    out.append(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # play for ever
    shown = None
    for frame, delay in zip(frames, even_delays(len(frames), fps, TICK), strict=True):
        top, bottom, left, right = (0, height, 0, width) if shown is None else _changed(frame, shown)
        palette, index = _index_colours(frame[top:bottom, left:right])
        bits = max(1, (len(palette) - 1).bit_length())  # the table has 2**bits colours
        out.append(struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 1 << 2, delay, 0, 0))  # 1 << 2: leave it when its time is up
        out.append(struct.pack("<BHHHHB", 0x2C, left, top, right - left, bottom - top, 0x80 | bits - 1))
        out.append(palette.tobytes().ljust(3 << bits, b"\0") + _pack(index))
        shown = frame
    return b"".join([*out, b";"])


def even_delays(count: int, fps: float, tick: Fraction) -> list[int]:
    """`count` delays in whole ticks whose running total stays as near as can be to the exact one."""
    exact = 1 / (Fraction(fps) * tick)
    ends = [round(exact * i) for i in range(count + 1)]
    return [b - a for a, b in zip(ends, ends[1:], strict=False)]


def _changed(frame: np.ndarray, shown: np.ndarray) -> tuple[int, int, int, int]:
    """The rectangle (top, bottom, left, right) that differs: most of a night sky stays. One pixel when nothing does."""
    ys, xs = np.nonzero((frame != shown).any(axis=2))
    return (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) if len(ys) else (0, 1, 0, 1)


def _index_colours(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3) -> palette (≤ 256, 3) and indices (h, w), both uint8. Exact when 256 colours suffice.

    Otherwise the palette spans all colours there are (MAXCOVERAGE, then one round of k-means), undithered: on fireworks
    scenes of 64×64 pixels the error is 0.08 of 255 on average, 0.19 on lit pixels and 3 at most; dithering would make
    it 0.43, 0.65 and 9, a median-cut palette leaves single pixels 33 off.
    """
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(codes, return_inverse=True)
    if len(colours) <= 256:
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
        return palette.astype(np.uint8), index.astype(np.uint8).reshape(pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    reduced = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    return np.array(reduced.getpalette(), np.uint8).reshape(-1, 3), np.asarray(reduced)


def _parse(data: bytes) -> tuple[tuple[int, int], list[Picture]]:
    """Walk the blocks without unpacking a pixel."""
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise ValueError(f"no GIF: it starts with {data[:6]!r}")
    pictures: list[Picture] = []
    pixels, data = 0, memoryview(data)  # whose slices are no copies
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        global_palette, at = _palette(data, 13, flags)
        control = {}
        # The end mark may be missing (some writers forget it), a block may not.
        while at < len(data) and data[at] != 0x3B:
            kind, at = data[at], at + 1
            if kind == 0x21:
                if data[at] == 0xF9:
                    bits, delay, index = struct.unpack_from("<BHB", data, at + 2)
                    control = dict(delay=delay, disposal=bits >> 2 & 7, transparent=index if bits & 1 else None)
                at = _skip_blocks(data, at + 1)
            elif kind == 0x2C:
                left, top, w, h, flags = struct.unpack_from("<HHHHB", data, at)
                palette, at = _palette(data, at + 9, flags)
                end = _skip_blocks(data, at + 1)
                palette = palette or global_palette
                pictures.append(Picture(left, top, w, h, bool(flags & 0x40), palette, data[at:end], **control))
                control, at = {}, end
                check_frame_size(w, h)
                pixels += max(width * height, w * h)  # the canvas is copied, the picture unpacked
                check_film_size(len(pictures), pixels)
            else:
                raise ValueError(f"damaged GIF: unknown block {kind:#04x} after {len(pictures)} frames")
        if control and at == len(data):
            raise IndexError  # cut between a control block and its picture
    except (IndexError, struct.error):
        raise ValueError(f"truncated GIF: it stops after {len(pictures)} whole frames") from None
    if not pictures:
        raise ValueError("GIF without a picture")
    return (width, height), pictures


def _palette(data: memoryview, at: int, flags: int) -> tuple[bytes, int]:
    """The colour table at `at` if the flags announce one (else empty), and where it ends."""
    if not flags & 0x80:
        return b"", at
    end = at + 3 * (2 << (flags & 7))
    if end > len(data):
        raise IndexError
    return bytes(data[at:end]), end


def _skip_blocks(data: memoryview, at: int) -> int:
    """Sub-blocks are a length byte and that many bytes, the last one empty. Returns the place after the last."""
    while data[at]:
        at += data[at] + 1
    return at + 1


def _unpack(picture: Picture) -> np.ndarray:
    """The colour indices (height, width) uint8 of one picture; interlaced rows are put in order.

    Pillow's decoder is given the LZW data alone: as a file it would drop, reorder or convert colours, and be slower.
    """
    size, bits = (picture.width, picture.height), picture.data[0]
    try:
        return np.asarray(Image.frombytes("P", size, picture.data[1:], "gif", bits, picture.interlaced))
    except ValueError as fault:
        raise ValueError(f"damaged GIF: {fault}") from None


def _pack(index: np.ndarray) -> bytes:
    """Colour indices (h, w) uint8 -> LZW code size and sub-blocks."""
    image = Image.fromarray(np.ascontiguousarray(index), "P")
    image.putpalette(bytes(PALETTE_BYTES))
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=False)
    return bytes(_parse(buffer.getvalue())[1][0].data)
