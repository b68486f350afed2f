"""Functions on films for the check of `is_causal`: some never look ahead, the others do in ways that one misses.

Every one is pure and differentiable, takes any width of float and any number of frames, and keeps it; some change the
other sizes. Nothing is multiplied by zero, so that a NaN spreads exactly as far as information does.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Film = Callable[[Tensor], Tensor]


def frame_by_frame(x: Tensor) -> Tensor:
    """Each frame by itself: its own norm, then a curve."""
    centred = x - x.mean(dim=(1, 3, 4), keepdim=True)
    return torch.tanh(centred / (centred.square().mean(dim=(1, 3, 4), keepdim=True) + 1e-3).sqrt())


def running_sum(x: Tensor) -> Tensor:
    """Every frame remembers all that were before it."""
    return x.cumsum(dim=2)


def delayed(x: Tensor) -> Tensor:
    """Three frames late, behind three frames that are always the same."""
    return torch.cat([torch.ones_like(x[:, :, :3]), x[:, :, :-3]], dim=2)


def convolution(generator: torch.Generator, channels: int, ahead: int) -> Film:
    """Three frames of time, of which `ahead` lie in the future; half the height, and five channels."""
    weight = torch.randn(5, channels, 3, 3, 1, generator=generator) / (9 * channels) ** 0.5

    def convolve(x: Tensor) -> Tensor:
        return F.conv3d(F.pad(x, (0, 0, 1, 1, 2 - ahead, ahead)), weight.to(x), stride=(1, 2, 1)).sigmoid()

    return convolve


def norm_over_time(x: Tensor) -> Tensor:
    """What GroupNorm does to a film: one mean and one deviation for all frames."""
    return F.group_norm(x, 1)


def all_frames(x: Tensor) -> Tensor:
    """The average of the film in each frame."""
    return x + x.mean(dim=2, keepdim=True)


def backwards(x: Tensor) -> Tensor:
    return x.flip(2)


def _leak(source: slice, target: int) -> Film:
    """Adds a share of the source frames to the frames from `target` on."""

    def leak(x: Tensor) -> Tensor:
        added = 0.7 * x[:, :, source]
        return x + F.pad(added, (0, 0, 0, 0, target, x.shape[2] - target - added.shape[2]))

    return leak


second_into_first = _leak(slice(1, 2), 0)
third_into_second = _leak(slice(2, 3), 1)
last_into_first = _leak(slice(-1, None), 0)
all_but_the_first = _leak(slice(2, None), 1)


def late(x: Tensor) -> Tensor:
    """The last frame but one leaks into the one before it."""
    return _leak(slice(-2, -1), x.shape[2] - 3)(x) if x.shape[2] > 2 else x


def faint(x: Tensor) -> Tensor:
    """The next frame leaks by 0.001 at most."""
    return x + 1e-3 * F.pad(x[:, :, 1:].sigmoid(), (0, 0, 0, 0, 0, 1))


def within_halves(x: Tensor) -> Tensor:
    """Each half of the film has its own average taken off: nothing crosses the middle."""
    halves = x.split([x.shape[2] // 2, x.shape[2] - x.shape[2] // 2], dim=2)
    return torch.cat([half - half.mean(dim=2, keepdim=True) for half in halves], dim=2)


def gated(x: Tensor) -> Tensor:
    """The next frame decides how much of this one is let through: of a black frame nothing, either way."""
    following = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    return x * following.sigmoid()


def one_corner(x: Tensor) -> Tensor:
    """The last frame leaks into the one before it, in a single pixel of one channel of one sample."""
    samples, channels, frames, height, width = x.shape
    if frames < 2:
        return x
    corner = x[-1:, -1:, -1:, -1:, -1:]
    return x + F.pad(corner, (width - 1, 0, height - 1, 0, frames - 2, 1, channels - 1, 0, samples - 1, 0))
