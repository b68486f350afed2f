"""Noise schedules: how much noise each of the N steps of the forward process adds.

A schedule is a tensor `betas (N,)`, float64, each in (0, 1]. Step t turns x_{t-1} into
x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) noise, so that the signal left after step t is
abar_t = (1 - beta_0) … (1 - beta_t). Timesteps are 0-based: t = 0 has had one noising step.

Everything is computed in float64: near both ends 1 - abar or abar is so small that float32 keeps few of its digits.
"""

import math
from numbers import Integral

import torch
from torch import Tensor

from minivdm.errors import UserError


def linear_betas(num_steps: int, start: float = 1e-4, end: float = 0.02, dtype: torch.dtype = torch.float64) -> Tensor:
    """Evenly spaced betas (N,), as in DDPM (Ho et al. 2020, section 4).

    The defaults were chosen for N = 1000, where 4e-5 of the signal's variance is left at the end. They do not scale
    themselves: with N = 100 more than a third is left, and a sampler that starts from pure noise starts wrong.
    `dtype` float32 gives the numbers of libraries that keep their schedules in it.
    """
    _check_num_steps(num_steps)
    return torch.linspace(start, end, num_steps, dtype=dtype)


def scaled_linear_betas(
    num_steps: int, start: float = 0.00085, end: float = 0.012, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Squares of evenly spaced square roots (N,): the schedule of latent diffusion and Stable Diffusion."""
    _check_num_steps(num_steps)
    return torch.linspace(start**0.5, end**0.5, num_steps, dtype=dtype) ** 2


def cosine_betas(num_steps: int, s: float = 0.008, max_beta: float = 0.9999) -> Tensor:
    """Betas (N,) whose abar follows cos²((u + s) / (1 + s) · pi/2), u from 0 to 1 (Improved DDPM, equation 17).

    `s` keeps the first steps from being too small to learn. The curve reaches 0 at u = 1, so the last beta would be 1;
    `max_beta` stops just short of that (the paper's clip is 0.999).
    """
    _check_num_steps(num_steps)
    u = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    curve = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - curve[1:] / curve[:-1]).clamp(0, max_beta)


SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas, "scaled_linear": scaled_linear_betas}


def make_betas(name: str, num_steps: int) -> Tensor:
    """The betas (N,) of the schedule called `name` ("linear", "cosine", "scaled_linear"), with its defaults."""
    if name not in SCHEDULES:
        raise UserError(f"unknown schedule {name!r}: use one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name](num_steps)


def alphas_cumprod(betas: Tensor) -> Tensor:
    """abar (N,): the share of the signal's variance that is left after each step (DDPM, above equation 4)."""
    return torch.cumprod(1 - betas, dim=0)


def betas_from_alphas_cumprod(alphas_cumprod: Tensor) -> Tensor:
    """The inverse of `alphas_cumprod`: the betas (N,) that leave a given share of the signal after each step."""
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    return 1 - alphas_cumprod / before


def snr(alphas_cumprod: Tensor) -> Tensor:
    """Signal-to-noise ratio (N,) of each step, abar / (1 - abar); a plain ratio of variances, not decibels."""
    return alphas_cumprod / (1 - alphas_cumprod)


def rescale_zero_terminal_snr(betas: Tensor) -> Tensor:
    """Shift and stretch sqrt(abar) so that it ends at 0 and begins where it did (Lin et al. 2023, algorithm 1).

    The last step then holds no signal at all, as sampling from pure noise assumes. A noise prediction says nothing
    about x0 there, so such a schedule needs v or x0 prediction.
    """
    root = alphas_cumprod(betas).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return betas_from_alphas_cumprod(root**2)


def _check_num_steps(num_steps: int) -> None:
    if not isinstance(num_steps, Integral) or num_steps < 1:
        raise UserError(f"num_steps is {num_steps!r}: a schedule needs a whole number of steps, at least 1")
