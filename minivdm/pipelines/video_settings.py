"""What a text-to-video pipeline makes when it is not told otherwise, and what it can be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal

from minivdm.errors import UserError

Size = int | str | Sequence[int]


@dataclass(frozen=True)
class VideoSettings:
    """How a film is made.

    frames, height, width, fps: the film; sizes in pixels.
    steps, guidance, eta: of the sampler; eta is how much of the noise is renewed on the way (`RectifiedFlow.sample`).
    shift: move noise levels towards noise for large and long films, as in training.
    image_fps: the rate that the denoiser is told for a single picture; None: `fps`.
    carried: latent frames that a clip takes over from the one before, in films of several clips; half of it at most.
    null_tokens: how many tokens of the null text are seen in guidance: "all", or as many as the "prompt" has.
    """

    frames: int = 17
    height: int = 32
    width: int = 32
    fps: float = 8.0
    steps: int = 30
    guidance: float = 4.0
    eta: float = 0.0
    shift: bool = False
    image_fps: float | None = None
    carried: int = 1
    null_tokens: Literal["all", "prompt"] = "all"

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "steps", "carried"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise UserError(f"{name} is {value!r}: expected a whole number from 1 on, such as {_nearest(value)}")
        if self.null_tokens not in ("all", "prompt"):
            raise UserError(f"null_tokens is {self.null_tokens!r}: expected all or prompt")
        for name in ("fps", "image_fps"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and value > 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value!r}: expected frames per second, above 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VideoSettings":
        """Raises UserError for names that are no settings."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise UserError(f"unknown pipeline settings {', '.join(unknown)}: known are {', '.join(known)}")
        return cls(**values)

    @property
    def told_fps(self) -> float:
        """The rate that the denoiser is told."""
        return self.image_fps or self.fps if self.frames == 1 else self.fps


def picture_size(size: Size | None, height: int, width: int, factor: int) -> tuple[int, int]:
    """(height, width) in pixels, from a side, a pair, or text: "64", "48x64", or "width:height".

    A ratio keeps height x width pixels in all. The VAE needs multiples of `factor`: a ratio is rounded to them, other
    sizes raise UserError, naming the nearest.
    """
    if isinstance(size, str) and ":" in size:
        return _from_ratio(size, height * width, factor)
    sides = _sides((height, width) if size is None else size)
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise UserError(f"size {size!r}: expected a side in pixels, height and width, or a ratio such as '16:9'")
    if any(side < 1 or side % factor for side in sides):
        nearest = tuple(_round(side, factor) for side in sides)
        raise UserError(f"size {sides}: expected height and width divisible by {factor}; nearest are {nearest}")
    return sides


def frame_count(frames: int | str, fps: float, factor: int) -> int | float:
    """How many frames: a number, or seconds such as "5s", which are rounded to 1 + factor · k frames.

    So many the VAE shortens without padding: the first frame has a latent frame of its own.
    """
    if not isinstance(frames, str) or frames.isdecimal():
        return int(frames) if isinstance(frames, str) else frames
    try:
        seconds = float(frames.removesuffix("s")) if frames.endswith("s") else math.nan
        return 1 + factor * max(0, round((seconds * fps - 1) / factor))
    except (ValueError, OverflowError):
        raise UserError(f"frames {frames!r}: expected a whole number, or seconds such as '5s'") from None


def _sides(size: Size) -> tuple:
    """A side or a pair, also in text, as a pair."""
    if isinstance(size, str):
        size = [int(side) if side.isdecimal() else side for side in size.split("x")]
    sides = tuple(size) if isinstance(size, Sequence) else (size,)
    return sides * 2 if len(sides) == 1 else sides


def _from_ratio(ratio: str, pixels: int, factor: int) -> tuple[int, int]:
    try:
        across, down = (float(side) for side in ratio.split(":"))
        height = math.sqrt(pixels * down / across)
        return _round(height, factor), _round(pixels / height, factor)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"size {ratio!r}: expected a ratio of width to height such as '16:9' or '9:16'") from None


def _round(side: float, factor: int) -> int:
    return max(factor, round(side / factor) * factor)


def _nearest(value: Any) -> int:
    return max(1, round(value)) if isinstance(value, Real) and math.isfinite(value) else 1
