"""Flow matching by Euler steps: straight paths between data and noise, and which noise levels to visit.

sigma is the share of noise: x = (1 - sigma) x0 + sigma noise, from 1 (pure noise) down to 0 (data). The velocity is
dx/dsigma = noise - x0, the direction of growing noise.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.errors import UserError


def flow_mix(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """The point on the straight path with share `sigma` of noise (rectified flow, Liu et al. 2022, equation 1)."""
    return sigma * noise + (1 - sigma) * x0


def shift_sigma(sigma: float | np.ndarray, shift: float) -> float | np.ndarray:
    """Move noise levels towards 1 (shift > 1) or 0 (shift < 1), keeping both ends (Esser et al. 2024, equation 23).

    Larger pictures need more noise to hide the same structure: the paper's shift is the square root of the ratio of
    pixel counts. A resolution-dependent mu, as some libraries ask for, is shift = exp(mu).
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_sigmas(steps: int, shift: float = 1.0, smallest: float = 1e-3) -> list[float]:
    """`steps` + 1 noise levels from 1 to 0: evenly spaced down to `smallest`, then shifted, then 0."""
    if not isinstance(steps, Integral) or steps < 1 or not shift > 0:
        raise UserError(f"{steps!r} steps, shift {shift}: expected a whole number of steps and a shift above 0")
    return [*shift_sigma(np.linspace(1.0, smallest, steps), shift).tolist(), 0.0]


@torch.no_grad()
def euler_flow(
    velocity: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float],
    progress: bool = False,
    callback: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """Follow dx/dsigma = velocity(x, sigma) from sigmas[0] to sigmas[-1]; callback(k, sigma, x) after each step."""
    pairs = list(zip(sigmas[:-1], sigmas[1:], strict=True))
    for k, (now, target) in enumerate(tqdm(pairs, desc="euler", disable=not progress)):
        x = x + (target - now) * velocity(x, now)
        if callback is not None:
            callback(k, target, x)
    return x
