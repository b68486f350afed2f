"""[-1, 1], where the package computes, and [0, 1], where viewers and some other projects keep their videos."""

from torch import Tensor


def from_unit(video: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return 2 * video - 1


def to_unit(video: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return (video + 1) / 2
