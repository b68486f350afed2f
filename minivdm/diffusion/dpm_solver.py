"""DPM-Solver++: sampling as the solution of an ordinary differential equation, with a memory of the last estimates.

Write alpha = sqrt(abar) and sigma = sqrt(1 - abar), and take lambda = log(alpha / sigma), half the log signal-to-noise
ratio, as the clock. The deterministic path from time s to time t is then exactly (DPM-Solver++, Lu et al. 2022,
proposition 4.1)

    x_t = sigma_t / sigma_s · x_s + sigma_t · integral of exp(lambda) · x0(lambda) from lambda_s to lambda_t

where x0(lambda) is the model's estimate on the way. Taking it as constant is order 1, and equals DDIM; a line through
the last two estimates is order 2, which the paper calls 2M; a parabola through three is order 3.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.diffusion.gaussian import GaussianDiffusion, Model
from minivdm.errors import UserError


class Level(NamedTuple):
    """A noise level, x = alpha x0 + sigma noise, in three 0-d tensors."""

    alpha: Tensor
    sigma: Tensor
    half_log_snr: Tensor


def level(ratio: Tensor) -> Level:
    """The noise level at which sigma / alpha is `ratio` (0-d); infinity is pure noise."""
    return Level((1 + ratio**2).rsqrt(), (1 + ratio**-2).rsqrt(), -ratio.log())


def noise_ratios(alphas_cumprod: Tensor) -> Tensor:
    """sigma / alpha (N,) of every training timestep, ascending; infinity where no signal is left."""
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def karras_ratios(ratios: Tensor, steps: int, rho: float = 7.0) -> Tensor:
    """`steps` values from the largest to the smallest of `ratios`, evenly spaced in the 1/rho-th power.

    Spends more steps at low noise, where detail is decided (Karras et al. 2022, equation 5).
    """
    high, low = ratios.max().double() ** (1 / rho), ratios.min().double() ** (1 / rho)
    return (high + (low - high) * torch.linspace(0, 1, steps, dtype=torch.float64)) ** rho


def nearest_timesteps(ratios: Tensor, training: Tensor) -> list[int]:
    """The training timesteps whose sigma / alpha is nearest to each of `ratios`, on a logarithmic scale."""
    return np.interp(ratios.log(), training.log(), np.arange(len(training))).round().astype(int).tolist()


@torch.no_grad()
def dpmpp_sample(
    diffusion: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    timesteps: Sequence[int],
    *,
    levels: Sequence[Level] | None = None,
    order: int = 2,
    solver: str = "midpoint",
    curvature_weight: float = 1.0,
    progress: bool = False,
    callback: Callable[[int, int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Walk through descending `timesteps`, one model call each, and return x_0.

    levels  noise level of the state at each step, when it lies between training timesteps (see `karras_ratios`)
    order   1, 2 or 3; the first steps, which have no memory yet, and the last, which jumps to clean data, use less
    solver  "midpoint" or "heun", two weightings of the second-order term that differ in the third order
    curvature_weight  for order 3: published code halves this term, which leaves it accurate to second order only
    """
    if order not in (1, 2, 3) or solver not in ("midpoint", "heun"):
        raise UserError(f"order {order!r}, solver {solver!r}: expected order 1, 2 or 3, and 'midpoint' or 'heun'")
    if levels is None:
        ratios = noise_ratios(diffusion.alpha_bars)
        levels = [level(ratios[t]) for t in timesteps]
    memory: list[tuple[Tensor, Tensor]] = []  # (half_log_snr, estimate of x0), the newest first
    x = x_T
    for k, step in enumerate(tqdm(timesteps, desc="dpm-solver++", disable=not progress)):
        t = torch.full((len(x),), step, device=x.device)
        x0 = _to_x0(diffusion, diffusion.predict(model, x, t), x, levels[k])
        memory = [(levels[k].half_log_snr, x0), *memory[: order - 1]]
        left = len(timesteps) - 1 - k
        if left == 0:
            x = x0  # at infinite signal-to-noise ratio only the estimate itself is left of the formulas
        else:
            # With few steps the one before the last is long as well, and a parabola would overshoot.
            usable = 2 if left == 1 and len(timesteps) < 15 else order
            x = dpmpp_step(x, memory[:usable], levels[k], levels[k + 1], solver, curvature_weight)
        if callback is not None:
            callback(k, step, x, x0)
    return x


def dpmpp_step(
    x: Tensor,
    memory: Sequence[tuple[Tensor, Tensor]],
    now: Level,
    target: Level,
    solver: str = "midpoint",
    curvature_weight: float = 1.0,
) -> Tensor:
    """One multistep update from level `now` to `target`; its order is the number of remembered estimates (1 to 3).

    DPM-Solver++, algorithm 2 for the second order. Differences of remembered estimates stand for the derivatives of x0
    with respect to lambda: the first for the slope, the second, in order 3, for the curvature.
    """
    h = target.half_log_snr - now.half_log_snr
    e = torch.exp(-h) - 1
    (clock, d0), *older = memory
    x = target.sigma / now.sigma * x - target.alpha * e * d0
    if not older:
        return x
    r0 = (clock - older[0][0]) / h
    slope0 = (d0 - older[0][1]) / r0
    if len(older) == 1:
        factor = -0.5 * e if solver == "midpoint" else e / h + 1
        return x + target.alpha * factor * slope0
    r1 = (older[0][0] - older[1][0]) / h
    slope1 = (older[0][1] - older[1][1]) / r1
    first = slope0 + r0 / (r0 + r1) * (slope0 - slope1)
    second = curvature_weight * 2 * (slope0 - slope1) / (r0 + r1)
    return x + target.alpha * (e / h + 1) * first - target.alpha * ((e + h) / h**2 - 0.5) * second


def _to_x0(diffusion: GaussianDiffusion, prediction: Tensor, x: Tensor, now: Level) -> Tensor:
    """`GaussianDiffusion.to_x0` at a noise level that need not belong to a training timestep."""
    if diffusion.prediction == "noise":
        x0 = (x - now.sigma * prediction) / now.alpha
    else:
        x0 = now.alpha * x - now.sigma * prediction if diffusion.prediction == "v" else prediction
    return diffusion.keep_in_range(x0)
