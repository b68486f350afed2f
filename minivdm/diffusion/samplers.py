"""Samplers: ways from pure noise to data that need fewer than N model calls.

`sample` is the one to use. DDPM and DDIM are the same walk with more or less fresh noise (DDIM, Song et al. 2021,
section 4.1) and live here; DPM-Solver++ is in `dpm_solver.py`. All of them share the trained model: which sampler, how
many steps and how much noise is chosen after training.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.diffusion.dpm_solver import dpmpp_sample
from minivdm.diffusion.gaussian import GaussianDiffusion, Model, draw_noise
from minivdm.errors import UserError

METHODS = ("ddpm", "ddim", "dpmpp")
SPACINGS = ("linspace", "leading", "trailing")

# callback(k, t, x, x0): after step k, which called the model at timestep t and estimated x0; x is the new state.
Callback = Callable[[int, int, Tensor, Tensor], None]


def sample(
    diffusion: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    method: str = "ddpm",
    steps: int | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Turn noise x_T (B, …) into data x_0 with `steps` model calls, any number from 1 to N (by default N).

    method "ddpm"   ancestral sampling: fresh noise in every step; best with many steps
           "ddim"   `eta` times that noise; at 0 the result depends on x_T alone
           "dpmpp"  DPM-Solver++(2M): no noise, second order, good from 10 to 20 steps on
    """
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    if eta != 0.0 and method != "ddim":
        raise UserError(f"eta is {eta}, but only 'ddim' has that choice: leave it at 0 with {method!r}")
    steps = diffusion.num_steps if steps is None else steps
    if method == "dpmpp":
        # Its last step jumps to clean data from wherever it is, so a step at t = 0, next to the data, would be wasted.
        timesteps = ddim_timesteps(diffusion.num_steps, steps, "trailing")
        return dpmpp_sample(diffusion, model, x_T, timesteps, progress=progress, callback=callback)
    timesteps = ddim_timesteps(diffusion.num_steps, steps)
    eta = 1.0 if method == "ddpm" else eta
    return ddim_sample(
        diffusion, model, x_T, timesteps, eta=eta, generator=generator, progress=progress, callback=callback
    )


def ddim_timesteps(num_steps: int, steps: int, spacing: str = "linspace", offset: int = 0) -> list[int]:
    """`steps` of the timesteps 0 … num_steps - 1, strictly descending.

    "linspace" holds both ends. "trailing" holds the last and counts down evenly to a whole stride above -1; "leading"
    counts up from `offset`, and so never begins at pure noise (Lin et al. 2023, table 2): it is here for models whose
    published settings use it.
    """
    if not isinstance(steps, Integral) or not 1 <= steps <= num_steps:
        raise UserError(
            f"{steps!r} sampling steps: expected a whole number from 1 to {num_steps}, the steps of training"
        )
    if spacing not in SPACINGS:
        raise UserError(f"unknown spacing {spacing!r}: use one of {', '.join(SPACINGS)}")
    if spacing == "leading":
        ascending = np.arange(steps) * (num_steps // steps) + offset
    elif spacing == "trailing":
        ascending = np.round(num_steps - np.arange(steps) * (num_steps / steps))[::-1] - 1
    else:
        ascending = np.linspace(0, num_steps - 1, steps).round() if steps > 1 else np.array([num_steps - 1])
    if not 0 <= ascending[0] <= ascending[-1] < num_steps:
        raise UserError(f"offset {offset} leads to timestep {int(ascending[-1])}: expected 0 to {num_steps - 1}")
    return [int(t) for t in ascending[::-1]]


def ddim_step(
    x0: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float, eta: float = 0.0, z: Tensor | None = None
) -> Tensor:
    """From the estimates of x0 and of the noise in x_t to the less noisy x_prev (DDIM, equations 12 and 16).

    `alpha_bar` belongs to x_t, `alpha_bar_prev` to x_prev (1 for clean data); the two may lie any distance apart. Part
    of the noise, `eta` of what ancestral sampling would take, is replaced by fresh noise `z`, needed only if eta > 0.
    """
    variance = eta**2 * (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    kept = max(1 - alpha_bar_prev - variance, 0.0)  # rounding can take it below 0 when eta is 1
    x = alpha_bar_prev**0.5 * x0 + kept**0.5 * noise
    return x if z is None else x + variance**0.5 * z


@torch.no_grad()
def ddim_sample(
    diffusion: GaussianDiffusion,
    model: Model,
    x_T: Tensor,
    timesteps: Sequence[int],
    *,
    previous: Sequence[int] | None = None,
    eta: float = 0.0,
    final_alpha_bar: float = 1.0,
    keep_predicted_noise: bool = False,
    generator: torch.Generator | None = None,
    noises: Sequence[Tensor] | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Walk through descending `timesteps` with one `ddim_step` each, and return x_0.

    previous              where each step lands; by default at the next timestep, and at clean data (-1) in the end
    eta                   0: deterministic; 1: ancestral sampling (DDPM) on these timesteps
    final_alpha_bar       abar of what counts as clean data, for models trained to stop at the noise of t = 0
    keep_predicted_noise  when the threshold changes x0, keep the noise of the raw prediction instead of the noise that
                          goes with the new x0; some libraries sample like this
    noises                one tensor per step, in place of draws from `generator`
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta is {eta}, expected 0 (deterministic) to 1 (ancestral sampling)")
    previous = [*timesteps[1:], -1] if previous is None else previous
    x = x_T
    for k, step in enumerate(tqdm(timesteps, desc="ddim", disable=not progress)):
        t = torch.full((len(x),), step, device=x.device)
        prediction = diffusion.predict(model, x, t)
        x0, noise = diffusion.to_x0_and_noise(prediction, x, t)
        if keep_predicted_noise:
            noise = diffusion.to_noise(prediction, x, t)
        z = None
        if eta > 0:
            z = draw_noise(x, generator) if noises is None else noises[k]
        target = diffusion.alpha_bar(previous[k]) if previous[k] >= 0 else final_alpha_bar
        x = ddim_step(x0, noise, diffusion.alpha_bar(step), target, eta, z)
        if callback is not None:
            callback(k, step, x, x0)
    return x
