"""Golden files of diffusers' schedulers: schedules, and whole trajectories of an analytic network.

Settings that a trajectory leaves out have that library's defaults; they are spelt out here, not in our samplers.
"""

from collections.abc import Iterator
from math import exp

import numpy as np
import torch
from torch import Tensor

from minivdm.diffusion import dpm_solver
from minivdm.diffusion.flow_euler import euler_flow, flow_mix, flow_sigmas, shift_sigma
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.diffusion.samplers import ddim_sample, ddim_timesteps
from minivdm.diffusion.schedules import (
    alphas_cumprod,
    betas_from_alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from minivdm.errors import UserError
from minivdm.parity_kinds.analytic import analytic_network
from minivdm.parity_kinds.rounding import of_a_zero_terminal_snr, per_rounding

Comparisons = Iterator[tuple[str, Tensor, Tensor, str]]


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Comparisons:
    for case, settings in cases.items():
        if case == "betas":
            yield from _schedules(tensors)
            continue
        kind, kw = settings["kind"], dict(settings["kw"])
        if kind not in _TRAJECTORIES:
            raise UserError(f"case {case!r} is of the unknown kind {kind!r}: known are {', '.join(_TRAJECTORIES)}")
        if unknown := sorted(set(kw) - _ARGUMENTS[kind]):
            raise UserError(f"case {case!r} sets {', '.join(unknown)}, which this comparison does not know")
        ours = _TRAJECTORIES[kind](case, settings["steps"], settings, kw, tensors)
        for name, value in ours.items():
            yield f"{case}/out/{name}", value, tensors[f"{case}/out/{name}"], "table"


def _velocity(x: Tensor, sigma: float) -> Tensor:
    return 0.7 * torch.cos(x + 2 * sigma) - 0.3 * x * sigma


def _schedules(tensors: dict[str, Tensor]) -> Comparisons:
    """Tables are called <schedule>_T<N>, plus _zerosnr when rescaled, plus _alphas_cumprod for the product."""
    for key in [key for key in tensors if key.startswith("betas/out/")]:
        schedule, _, rest = key.removeprefix("betas/out/").partition("_T")
        num_steps, *changes = rest.split("_", 1)
        kw = {
            "beta_schedule": schedule,
            "num_train_timesteps": int(num_steps),
            "rescale_betas_zero_snr": "zerosnr" in key,
        }
        betas, product = _betas(kw), "alphas_cumprod" in rest
        ours, expected = alphas_cumprod(betas) if product else betas, tensors[key]
        if kw.pop("rescale_betas_zero_snr"):
            ours, expected = per_rounding(ours, expected, of_a_zero_terminal_snr(alphas_cumprod(_betas(kw)), product))
        yield key, ours, expected, "table"


def _betas(kw: dict) -> Tensor:
    """The reference keeps its schedules in float32, and its 1 - abar and sigmas show it: so do these."""
    num_steps = kw.get("num_train_timesteps", 1000)
    ends = (kw.get("beta_start", 1e-4), kw.get("beta_end", 0.02))
    match kw.get("beta_schedule", "linear"):
        case "linear":
            betas = linear_betas(num_steps, *ends, dtype=torch.float32)
        case "scaled_linear":
            betas = scaled_linear_betas(num_steps, *ends, dtype=torch.float32)
        case "squaredcos_cap_v2":
            betas = cosine_betas(num_steps, max_beta=0.999).float()
        case unknown:
            raise UserError(f"unknown beta_schedule {unknown!r}: known are linear, scaled_linear, squaredcos_cap_v2")
    return rescale_zero_terminal_snr(betas) if kw.get("rescale_betas_zero_snr", False) else betas


def _diffusion(kw: dict, clip: bool) -> GaussianDiffusion:
    meaning = kw.get("prediction_type", "epsilon")
    if meaning not in _PREDICTIONS:
        raise UserError(f"unknown prediction_type {meaning!r}: known are {', '.join(_PREDICTIONS)}")
    return GaussianDiffusion(
        # Its abar, a product of float32 numbers, is taken over as it is; everything after that is ours.
        betas_from_alphas_cumprod(alphas_cumprod(_betas(kw)).double()),
        _PREDICTIONS[meaning],
        threshold="static" if clip else None,
        clip_range=kw.get("clip_sample_range", 1.0),
    )


def _noised(diffusion: GaussianDiffusion, case: str, tensors: dict[str, Tensor], step: int) -> Tensor:
    x0, noise = tensors[f"{case}/in/x0"], tensors[f"{case}/in/noise"]
    return diffusion.q_sample(x0, torch.full((len(x0),), step), noise)


def _results(timesteps: list, states: list[Tensor], **others: Tensor) -> dict[str, Tensor]:
    return {
        "timesteps": torch.tensor(timesteps, dtype=torch.float64),
        "trajectory": torch.stack(states),
        "final": states[-1],
        **others,
    }


def _ddim(case: str, steps: int, settings: dict, kw: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    diffusion = _diffusion(kw, clip=kw.get("clip_sample", True))
    num_steps = diffusion.num_steps
    timesteps = ddim_timesteps(num_steps, steps, kw.get("timestep_spacing", "leading"), kw.get("steps_offset", 0))
    states = []
    ddim_sample(
        diffusion,
        analytic_network,
        tensors[f"{case}/in/x"],
        timesteps,
        # The reference lands one even stride below, also where the next timestep is elsewhere.
        previous=[t - num_steps // steps for t in timesteps],
        eta=settings.get("eta", 0.0),
        final_alpha_bar=1.0 if kw.get("set_alpha_to_one", True) else diffusion.alpha_bar(0),
        keep_predicted_noise=True,
        noises=tensors[f"{case}/in/noises"] if settings.get("eta", 0.0) > 0 else None,
        callback=lambda k, t, x, x0: states.append(x),
    )
    return _results(timesteps, states, add_noise=_noised(diffusion, case, tensors, timesteps[0]))


def _ddpm(case: str, steps: int, settings: dict, kw: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    diffusion = _diffusion(kw, clip=kw.get("clip_sample", True))
    num_steps = diffusion.num_steps
    x, noises = tensors[f"{case}/in/x"], tensors[f"{case}/in/noises"]
    timesteps = ddim_timesteps(num_steps, steps, kw.get("timestep_spacing", "leading"), kw.get("steps_offset", 0))
    if steps == num_steps:
        states = list(diffusion.p_sample_loop(analytic_network, x, noises=noises, return_all=True)[1:])
    else:
        states = []
        previous = [t - num_steps // steps for t in timesteps]
        keep = lambda k, t, x, x0: states.append(x)  # noqa: E731
        ddim_sample(diffusion, analytic_network, x, timesteps, previous=previous, eta=1.0, noises=noises, callback=keep)
    return _results(timesteps, states, add_noise=_noised(diffusion, case, tensors, timesteps[0]))


def _dpm(case: str, steps: int, settings: dict, kw: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    diffusion = _diffusion(kw, clip=False)
    training = dpm_solver.noise_ratios(alphas_cumprod(_betas(kw)))
    if kw.get("use_karras_sigmas", False):
        ratios = dpm_solver.karras_ratios(training, steps)
        timesteps = dpm_solver.nearest_timesteps(ratios, training)
    else:
        timesteps = ddim_timesteps(diffusion.num_steps, steps + 1)[:-1]
        ratios = training[timesteps]
    states = []
    dpm_solver.dpmpp_sample(
        diffusion,
        analytic_network,
        tensors[f"{case}/in/x"],
        timesteps,
        levels=[_float32_level(ratio) for ratio in ratios.float()],
        order=kw.get("solver_order", 2),
        solver=kw.get("solver_type", "midpoint"),
        curvature_weight=0.5,  # the reference has first differences where its third order needs twice that
        callback=lambda k, t, x, x0: states.append(x),
    )
    sigmas = torch.cat([ratios, ratios.new_zeros(1)])
    return _results(timesteps, states, sigmas=sigmas, add_noise=_noised(diffusion, case, tensors, timesteps[0]))


def _float32_level(ratio: Tensor) -> dpm_solver.Level:
    """`dpm_solver.level` with the reference's rounding, which near pure noise is as large as the tolerance."""
    alpha = 1 / (ratio**2 + 1) ** 0.5
    sigma = ratio * alpha
    return dpm_solver.Level(alpha, sigma, alpha.log() - sigma.log())


def _flow(case: str, steps: int, settings: dict, kw: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    num_steps, shift = kw.get("num_train_timesteps", 1000), kw.get("shift", 1.0)
    # With a fixed shift the reference shifts the low end twice: as the end of the even spacing, then with the rest.
    smallest = shift_sigma(1 / num_steps, shift)
    if kw.get("use_dynamic_shifting", False):
        shift, smallest = exp(settings["mu"]), 1 / num_steps
    sigmas = flow_sigmas(steps, shift, smallest)
    states = []
    euler_flow(_velocity, tensors[f"{case}/in/x"], sigmas, callback=lambda k, sigma, x: states.append(x))
    scaled = flow_mix(tensors[f"{case}/in/x0"], tensors[f"{case}/in/noise"], sigmas[1])
    timesteps = (np.array(sigmas[:-1]) * num_steps).tolist()
    return _results(timesteps, states, sigmas=torch.tensor(sigmas, dtype=torch.float64), scale_noise=scaled)


_PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "x0"}
_TRAJECTORIES = {"DDIM": _ddim, "DDPM": _ddpm, "DPM": _dpm, "FME": _flow}
_SCHEDULE = {
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "rescale_betas_zero_snr",
}
_CLIP = {"clip_sample", "clip_sample_range"}
_ARGUMENTS = {
    "DDIM": _SCHEDULE | _CLIP | {"timestep_spacing", "steps_offset", "set_alpha_to_one"},
    "DDPM": _SCHEDULE | _CLIP | {"timestep_spacing", "steps_offset"},
    "DPM": _SCHEDULE - {"rescale_betas_zero_snr"} | {"solver_order", "solver_type", "use_karras_sigmas"},
    "FME": {"num_train_timesteps", "shift", "use_dynamic_shifting"},
}
