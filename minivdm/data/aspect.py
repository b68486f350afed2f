"""Sizes of pictures that have about the same number of pixels and different shapes: both of Open-Sora's tables.

A batch needs clips of one size, and a model that has seen squares only knows no other. So a *resolution* is a number of
pixels, and for it there is a table: one size (height, width) for each ratio. Open-Sora 2 computes its tables by a rule,
`resolution`. Those of Open-Sora 1.2, `OPEN_SORA_12`, are fixed, and needed to do what it does.
"""

import math
import re
from collections.abc import Callable, Mapping

from minivdm.errors import UserError

Sizes = Mapping[str, tuple[int, int]]  # name of a ratio -> (height, width) in pixels
Resolution = tuple[int, Sizes]  # number of pixels, and its sizes

# Width to height, as cinemas, televisions, telephones and photographs have it; each is also used lying on its side.
RATIOS = ("2.39:1", "2:1", "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3", "1:1")


def height_to_width(ratio: str) -> float:
    """Height over width of "WIDTH:HEIGHT", or of a number, which says it itself: "16:9" and "0.5625" are the same."""
    width, colon, height = ratio.partition(":")
    return float(height) / float(width) if colon else float(ratio)


def closest_ratio(height: float, width: float, sizes: Sizes) -> str:
    """The ratio of a table that a picture is nearest to, by |h/w - ratio|; of equally near ones the first."""
    return min(sizes, key=lambda ratio: abs(height_to_width(ratio) - height / width))


# Open-Sora 2


def num_pixels(name: str) -> int:
    """Pixels of "256px" (a square of that side) or "360p" (so many lines of 16:9). Raises UserError for other names."""
    found = re.fullmatch(r"([1-9]\d*)(px|p)(?:_.*)?", name)
    if not found:
        raise UserError(f"{name!r} is no resolution; expected a side in pixels such as 256px, or lines such as 360p")
    side = int(found[1])
    return side * side if found[2] == "px" else int(side * side / 9 * 16)


def sizes_of(pixels: int, training: bool = True, multiple: int = 16) -> dict[str, tuple[int, int]]:
    """The table of a resolution: (height, width) in multiples of `multiple`, of nearly as many pixels as can be.

    Sides are rounded down. For `training` a size is then moved by one step, if that comes nearer, and a ratio whose
    size another one has already is left out; so is one too small to have a size.
    """
    table: dict[str, tuple[int, int]] = {}
    for ratio in RATIOS:
        across, down = map(float, ratio.split(":"))
        width = int(math.sqrt(pixels * (across / down))) // multiple * multiple
        height = int(pixels / width) // multiple * multiple if width else 0
        if training:
            height, width = _nearer(height, width, pixels, multiple)
        if height and width and not (training and (height, width) in table.values()):
            table[ratio] = height, width
    turned = {":".join(reversed(ratio.split(":"))): (width, height) for ratio, (height, width) in table.items()}
    return table | turned


def _nearer(height: int, width: int, pixels: int, step: int) -> tuple[int, int]:
    """The size itself, or of its four neighbours the first of those that come nearest to `pixels`."""
    neighbours = [(height - step, width), (height + step, width), (height, width - step), (height, width + step)]
    return min([(height, width), *neighbours], key=lambda size: abs(pixels - size[0] * size[1]))


def resolution(name: str, training: bool = True, multiple: int = 16) -> Resolution:
    """Pixels and sizes of "256px"; of "256px_ar16:9" that ratio alone, of "256px_max" the size of most pixels alone.

    Raises UserError for a name that is none of these.
    """
    pixels = num_pixels(name)
    sizes, which = sizes_of(pixels, training, multiple), name.partition("_")[2]
    if which == "max":
        largest = max(sizes, key=lambda ratio: sizes[ratio][0] * sizes[ratio][1])
        return pixels, {largest: sizes[largest]}
    if which:
        ratio = which.removeprefix("ar")
        if ratio not in sizes:
            raise UserError(f"{name!r} has no size; expected one of {', '.join(f'ar{ratio}' for ratio in sizes)}, max")
        return pixels, {ratio: sizes[ratio]}
    return pixels, sizes


def named_by_shape(table: Resolution) -> Resolution:
    """The same sizes, each called what it is: of 32 × 32 pixels "1:1", even where they were rounded from "3:2".

    Where multiples are large beside the sizes, the names of a table lie, and with them what `closest_ratio` finds.
    """
    pixels, sizes = table
    steps = {size: math.gcd(*size) for size in sizes.values()}
    return pixels, {f"{width // step}:{height // step}": (height, width) for (height, width), step in steps.items()}


def target_fps(fps: float, most: float) -> tuple[float, int]:
    """(frames per second, every which frame) to bring a film to at most `most`: of 30 to 16, every second, so 15."""
    if fps < most:
        return fps, 1
    interval = math.ceil(fps / most)
    return math.floor(fps / interval), interval


# Open-Sora 1.2

# Height to width, and the name it goes by in the tables.
RATIO_NAMES_12 = {
    "3:8": "0.38",
    "9:21": "0.43",
    "12:25": "0.48",
    "1:2": "0.50",
    "9:17": "0.53",
    "27:50": "0.54",
    "9:16": "0.56",
    "5:8": "0.62",
    "2:3": "0.67",
    "3:4": "0.75",
    "1:1": "1.00",
    "4:3": "1.33",
    "3:2": "1.50",
    "16:9": "1.78",
    "17:9": "1.89",
    "2:1": "2.00",
    "50:27": "2.08",
}
# What the tables were made with differs from what they are called in two places: 1:1.85 is not 27:50, nor 25:12 50:27.
_MADE_WITH = {"0.54": 1 / 1.85, "2.08": 1 / 0.48}
# Left to themselves, these would be made even.
_UNEVEN = {("480p", "0.48"): (444, 925), ("480p", "1.33"): (740, 555), ("240p", "0.67"): (262, 393)}


def even_size(ratio: float, pixels: int) -> tuple[int, int]:
    """(height, width) of about `pixels` pixels with height over width `ratio`: the even of the two numbers around."""

    def even(side: float) -> int:
        up = math.ceil(side + 1e-4)  # so that a whole number that was meant is not missed by a hair
        return up if up % 2 == 0 else math.floor(side + 1e-4)

    height = even(math.sqrt(pixels * ratio))
    return height, even(height / ratio)


def _floor_size(ratio: float, pixels: int) -> tuple[int, int]:
    height = int(math.sqrt(pixels * ratio) + 1e-4)
    return height, int(height / ratio + 1e-4)


def _lines(name: str, pixels: int, size: Callable[[float, int], tuple[int, int]] = even_size) -> Resolution:
    """A table of the resolutions that are called after their lines: 17 ratios."""
    table = {}
    for ratio, key in RATIO_NAMES_12.items():
        height, width = ratio.split(":")
        made = size(_MADE_WITH.get(key, int(height) / int(width)), pixels)
        table[key] = _UNEVEN.get((name, key), made)
    return pixels, table


# PixArt's sizes of pictures that are higher than wide, turned: (height, width) in sixteenths of the side.
_SIXTEENTHS = [(8, 32), (8, 31), (8, 30), (8, 29), (9, 28), (9, 27), (9, 26), (10, 25), (10, 24), (11, 23), (11, 22)]
_SIXTEENTHS += [(11, 21), (12, 21), (12, 20), (13, 19), (13, 18), (14, 18), (14, 17), (15, 17), (15, 16), (16, 16)]
# For its largest, in squares of 64 pixels, with the names that are not what the sides give.
_SQUARES = [
    (22, 90),
    (22, 87),
    (22, 84),
    (22, 81),
    (25, 78),
    (25, 75),
    (25, 73),
    (28, 70),
    (28, 67),
    (30, 64),
    (30, 61),
]
_SQUARES += [(30, 59), (33, 60), (33, 56), (36, 53), (36, 50), (39, 50), (39, 47), (42, 47), (42, 45), (45, 45)]
_SQUARE_NAMES = {(22, 90): 0.25, (22, 87): 0.26, (22, 84): 0.27, (22, 81): 0.28, (90, 22): 4.0}


def _sides(side: int, unit: int, sides: list[tuple[int, int]], names: Mapping[tuple[int, int], float]) -> Resolution:
    """A table of PixArt: 40 sizes, those of `sides` and the same on their side."""
    turned = [(width, height) for height, width in reversed(sides) if height != width]
    without = [(21, 11), (59, 30)]  # the two that have no counterpart
    every = [size for size in sides + turned if size not in without]
    names = {size: names.get(size, round(size[0] / size[1], 2)) for size in every}
    return side * side, {str(names[height, width]): (height * unit, width * unit) for height, width in every}


OPEN_SORA_12: dict[str, Resolution] = {
    "144p": _lines("144p", 36864, _floor_size),
    "256": _sides(256, 16, _SIXTEENTHS, {}),
    "240p": _lines("240p", 102240),
    "360p": _lines("360p", 230400),
    "512": _sides(512, 32, _SIXTEENTHS, {}),
    "480p": _lines("480p", 409920),
    "720p": _lines("720p", 921600),
    "1024": _sides(1024, 64, _SIXTEENTHS, {}),
    "1080p": _lines("1080p", 2073600),
    "2k": _lines("2k", 3686400),
    "2048": _sides(2048, 128, _SIXTEENTHS, {}),
    "2880": _sides(2880, 64, _SQUARES, _SQUARE_NAMES),
    "4k": _lines("4k", 8294400),
}


def frames_12(name: str) -> int:
    """Frames of a length: "4x" is four times 51, "4s" twice, because 51 are called two seconds; else a number."""
    counts = {f"{times}x": 51 * times for times in (1, 2, 4, 8, 16)}
    counts |= {f"{2 * times}s": count for times, count in zip((1, 2, 4, 8, 16), counts.values(), strict=True)}
    try:
        return counts.get(name) or int(name)
    except ValueError:
        raise UserError(f"{name!r} is no length; expected a number of frames, or one of {', '.join(counts)}") from None
