"""Per-timestep tables of a noise schedule, and the lookup that spreads their entries over a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.diffusion.schedules import alphas_cumprod
from minivdm.errors import UserError


def diffusion_tables(betas: Tensor) -> dict[str, Tensor]:
    """Everything that depends on the timestep alone, (N,) each, in the precision of `betas`.

    Make them from float64 betas: 1 - abar at the first steps and abar at the last lose most of their digits in float32.
    """
    abar = alphas_cumprod(betas)
    abar_prev = torch.cat([abar.new_ones(1), abar[:-1]])
    posterior_variance = betas * (1 - abar_prev) / (1 - abar)
    return {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": abar_prev,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        # DDPM, equation 7. At t = 0 the variance is 0, since x0 is then known; the floor keeps its logarithm finite.
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": posterior_variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * abar_prev.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - abar_prev) * (1 - betas).sqrt() / (1 - abar),
    }


def per_sample(values: Tensor, ndim: int) -> Tensor:
    """(B,) reshaped to (B, 1, …) with `ndim` dimensions, to broadcast one value over each sample."""
    return values.reshape(-1, *[1] * (ndim - 1))


def extract(a: Tensor, t: Tensor, x_shape: Sequence[int]) -> Tensor:
    """The entries a[t], (B, 1, …), so that they broadcast over a tensor of shape `x_shape` (B, …)."""
    if t.dtype != torch.int64:
        raise UserError(f"t is {t.dtype}, expected whole timesteps: use t.long()")
    if t.shape != (x_shape[0],):
        raise UserError(f"t has shape {tuple(t.shape)}, expected ({x_shape[0]},): one timestep per sample of the batch")
    # On an accelerator, looking at the values would wait for everything in flight; gather checks them there.
    if t.device.type == "cpu" and not ((t >= 0) & (t < len(a))).all():
        raise UserError(f"t is {t.tolist()}, expected values from 0 to {len(a) - 1}")
    return per_sample(a.gather(0, t), len(x_shape))
