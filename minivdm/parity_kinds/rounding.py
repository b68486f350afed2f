"""Comparing what float32 cannot hold: numbers that the last digit of an intermediate result decides.

sqrt and exp of float32 tensors round differently on other processors, in the last digit. Where a formula makes such a
digit large (the sine of a large angle, the quotient of two small differences), a recording keeps the rounding of the
machine that it was made on, and no other machine can repeat it to 1e-6.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ULP = 2**-23  # of float32, relative
TABLE = 1e-6  # the tolerance that holds where nothing is amplified


def per_rounding(ours: Tensor, expected: Tensor, amplified: Tensor) -> tuple[Tensor, Tensor]:
    """Both divided such that a tolerance of 1e-6 becomes 1e-6 + amplified · 2^-23, place by place.

    amplified: the change of the result for a relative change of the intermediate one, of a shape that spreads to ours.
    """
    scale = 1 + amplified.double() * (ULP / TABLE)
    return ours / scale, expected / scale


def of_a_sinusoid(t: Tensor, width: int) -> Tensor:
    """For cosines and sines of the angles t · 10000^(-k / half), (B, width): the angle is what they amplify."""
    half = width // 2
    angles = t.double()[:, None] * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    return F.pad(torch.cat([angles, angles], dim=1), (0, width % 2))


def of_a_zero_terminal_snr(abar: Tensor, product: bool) -> Tensor:
    """For betas (N,) that were rescaled from abar (N,) so that no signal is left, or for their `product`.

    They are made of quotients of sqrt(abar_t) - sqrt(abar_N), which is small beside the roots.
    """
    root = abar.double().sqrt()
    loss = root / (root - root[-1]).clamp(min=torch.finfo(torch.float64).tiny)
    loss[-1] = 0  # exactly nothing is left there, on every machine
    if product:
        kept = ((root - root[-1]) / (root[0] - root[-1])) ** 2
        return 2 * kept * (loss + loss[0])
    return 2 * (loss + torch.cat([loss.new_zeros(1), loss[:-1]]))
