"""Exercises of notebook 02: the closed-form jump, its inverse, the posterior, and the two classic ways to sample."""

import torch
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n02_jump_mistakes as jump_mistakes
from minivdm.course.exercises import n02_posterior_mistakes as posterior_mistakes
from minivdm.course.exercises import n02_sampling_mistakes as sampling_mistakes
from minivdm.course.inputs import alphas_cumprod as some_alphas_cumprod
from minivdm.course.inputs import betas as some_betas
from minivdm.course.inputs import randn, timesteps

CLIP, PICTURES, POINTS = (3, 2, 5, 4, 6), (2, 3, 5), (4, 2)  # a video batch, something of rank 3, points in the plane


def extract(a: Tensor, t: Tensor, x_shape: torch.Size) -> Tensor:
    return a[t].reshape(-1, *[1] * (len(x_shape) - 1))


def q_sample(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    kept = extract(alphas_cumprod, t, x0.shape)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


def predict_x0(x_t: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    kept = extract(alphas_cumprod, t, x_t.shape)
    return (x_t - (1 - kept).sqrt() * noise) / kept.sqrt()


def predict_v(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    kept = extract(alphas_cumprod, t, x0.shape)
    return kept.sqrt() * noise - (1 - kept).sqrt() * x0


def optimal_denoiser(x_t: Tensor, t: Tensor, points: Tensor, alphas_cumprod: Tensor) -> Tensor:
    kept = extract(alphas_cumprod, t, x_t.shape)
    distances = ((x_t[:, None] - kept[:, None].sqrt() * points) ** 2).sum(dim=2)
    return torch.softmax(-distances / (2 * (1 - kept)), dim=1) @ points


def q_posterior(x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    before = torch.cat([torch.ones_like(betas[:1]), alphas_cumprod[:-1]])  # ahead of the first step nothing is lost
    beta = extract(betas, t, x_t.shape)
    kept, kept_before = extract(alphas_cumprod, t, x_t.shape), extract(before, t, x_t.shape)
    to_x0 = kept_before.sqrt() * beta / (1 - kept)
    to_x_t = (1 - beta).sqrt() * (1 - kept_before) / (1 - kept)
    var = beta * (1 - kept_before) / (1 - kept)
    return to_x0 * x0 + to_x_t * x_t, var, torch.log(var.clamp(min=1e-20))


def p_sample(x_t: Tensor, t: Tensor, noise_pred: Tensor, z: Tensor, betas: Tensor, clip: bool = True) -> Tensor:
    x0 = predict_x0(x_t, t, noise_pred, torch.cumprod(1 - betas, dim=0))
    if clip:
        x0 = x0.clamp(-1, 1)
    mean, var, _ = q_posterior(x0, x_t, t, betas)
    return mean + var.sqrt() * z  # at t = 0 the variance is 0: no noise


def ddim_step(
    x_t: Tensor, t: Tensor, t_prev: Tensor, noise_pred: Tensor, z: Tensor, alphas_cumprod: Tensor, eta: float
) -> Tensor:
    with_clean = torch.cat([torch.ones_like(alphas_cumprod[:1]), alphas_cumprod])
    kept, kept_prev = extract(alphas_cumprod, t, x_t.shape), extract(with_clean, t_prev + 1, x_t.shape)
    sigma = eta * ((1 - kept_prev) / (1 - kept) * (1 - kept / kept_prev)).sqrt()
    x0 = predict_x0(x_t, t, noise_pred, alphas_cumprod)
    return kept_prev.sqrt() * x0 + (1 - kept_prev - sigma**2).sqrt() * noise_pred + sigma * z


def _extract_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], num_steps: int, dtype: torch.dtype, note: str) -> Case:
        a = some_alphas_cumprod(g, num_steps, dtype)
        return Case({"a": a, "t": timesteps(g, shape[0], num_steps), "x_shape": torch.Size(shape)}, note)

    return [
        case(CLIP, 11, torch.float32, "a batch of videos"),
        case(POINTS, 9, torch.float32, "points in the plane"),
        case((1, 3, 2), 7, torch.float64, "a single sample in float64"),
    ]


def _jump_cases(first: str, second: str):
    """Cases for functions of (first, t, second, alphas_cumprod)."""

    def cases(g: torch.Generator) -> list[Case]:
        def case(shape: tuple[int, ...], num_steps: int, dtype: torch.dtype, note: str) -> Case:
            one, other = randn(g, *shape, dtype=dtype), randn(g, *shape, dtype=dtype)
            t, schedule = timesteps(g, shape[0], num_steps), some_alphas_cumprod(g, num_steps, dtype)
            return Case({first: one, "t": t, second: other, "alphas_cumprod": schedule}, note)

        return [
            case(CLIP, 11, torch.float32, "a batch of videos"),
            case(POINTS, 9, torch.float32, "points in the plane"),
            case((1, 3, 2), 7, torch.float64, "a single sample in float64"),
        ]

    return cases


def _denoiser_cases(g: torch.Generator) -> list[Case]:
    def case(batch: int, dim: int, num_points: int, dtype: torch.dtype, note: str) -> Case:
        x_t, points = randn(g, batch, dim, dtype=dtype), randn(g, num_points, dim, dtype=dtype)
        t, schedule = timesteps(g, batch, 12), some_alphas_cumprod(g, 12, dtype)
        return Case({"x_t": x_t, "t": t, "points": points, "alphas_cumprod": schedule}, note)

    return [
        case(4, 2, 7, torch.float32, "7 points in the plane"),
        case(5, 3, 2, torch.float32, "2 points in space"),
        case(1, 2, 6, torch.float64, "a single sample in float64"),
    ]


def _posterior_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], t: Tensor, dtype: torch.dtype, note: str) -> Case:
        x0, x_t = randn(g, *shape, dtype=dtype), randn(g, *shape, dtype=dtype)
        return Case({"x0": x0, "x_t": x_t, "t": t, "betas": some_betas(g, 11, dtype)}, note)

    return [
        case(CLIP, timesteps(g, 3, 11), torch.float32, "a batch of videos"),
        case(POINTS, timesteps(g, 4, 11), torch.float64, "points in the plane in float64"),
        case((1, 3, 2), torch.tensor([5]), torch.float32, "a single sample"),
    ]


def _p_sample_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], t: Tensor, dtype: torch.dtype, note: str, **options: bool) -> Case:
        x_t, noise_pred, z = (randn(g, *shape, dtype=dtype) for _ in range(3))
        schedule = some_betas(g, 11, dtype)
        return Case({"x_t": x_t, "t": t, "noise_pred": noise_pred, "z": z, "betas": schedule, **options}, note)

    return [
        case(CLIP, timesteps(g, 3, 11), torch.float32, "a batch of videos, clipping by default"),
        case(POINTS, timesteps(g, 4, 11), torch.float64, "points in the plane without clipping", clip=False),
        case((1, 3, 2), torch.tensor([0]), torch.float32, "a single sample at t = 0", clip=True),
    ]


def _ddim_cases(g: torch.Generator) -> list[Case]:
    def case(
        shape: tuple[int, ...], t: list[int], t_prev: list[int], eta: float, note: str, **dtype: torch.dtype
    ) -> Case:
        x_t, noise_pred, z = (randn(g, *shape, **dtype) for _ in range(3))
        args = {"x_t": x_t, "t": torch.tensor(t), "t_prev": torch.tensor(t_prev), "noise_pred": noise_pred, "z": z}
        return Case({**args, "alphas_cumprod": some_alphas_cumprod(g, 13, **dtype), "eta": eta}, note)

    return [
        case(CLIP, [12, 3, 6], [8, -1, 5], 0.0, "eta = 0"),
        case(POINTS, [9, 0, 12, 5], [4, -1, 3, 4], 0.6, "eta = 0.6"),
        case((1, 3, 2), [10], [9], 1.0, "eta = 1, a single sample in float64", dtype=torch.float64),
    ]


EXERCISES = (
    Exercise(
        "02.extract",
        extract,
        _extract_cases,
        jump_mistakes.EXTRACT,
        (
            "Every sample of the batch has its own t. Pick one number for each, and give it the shape that lets it "
            "multiply "
            "a whole clip.",
            "out[b, 0, 0, …] = a[t[b]], with as many axes as `x_shape`",
            "`a[t].reshape(-1, *[1] * (len(x_shape) - 1))`",
        ),
    ),
    Exercise(
        "02.q_sample",
        q_sample,
        _jump_cases("x0", "noise"),
        jump_mistakes.Q_SAMPLE,
        (
            "t + 1 small noisings are one large one: what is left of the clip's variance is ᾱ_t, and all the rest "
            "is noise.",
            "x_t = √ᾱ_t · x0 + √(1 − ᾱ_t) · noise",
            "`a = extract(alphas_cumprod, t, x0.shape)`, then `a.sqrt() * x0 + (1 - a).sqrt() * noise`",
        ),
    ),
    Exercise(
        "02.predict_x0",
        predict_x0,
        _jump_cases("x_t", "noise"),
        jump_mistakes.PREDICT_X0,
        (
            "Solve the equation of `q_sample` for x0: first take the noise away, then undo the shrinking.",
            "x0 = (x_t − √(1 − ᾱ_t) · noise) / √ᾱ_t",
            "`a = extract(alphas_cumprod, t, x_t.shape)`, then `(x_t - (1 - a).sqrt() * noise) / a.sqrt()`",
        ),
    ),
    Exercise(
        "02.predict_v",
        predict_v,
        _jump_cases("x0", "noise"),
        jump_mistakes.PREDICT_V,
        (
            "Clip and noise are two perpendicular directions and x_t is a point on the circle between them. v "
            "points along "
            "the circle, towards the noise.",
            "v = √ᾱ_t · noise − √(1 − ᾱ_t) · x0",
            "`a = extract(alphas_cumprod, t, x0.shape)`, then `a.sqrt() * noise - (1 - a).sqrt() * x0`",
        ),
    ),
    Exercise(
        "02.optimal_denoiser",
        optimal_denoiser,
        _denoiser_cases,
        jump_mistakes.OPTIMAL_DENOISER,
        (
            "Any of the points may have been the clean one. Ask of each how well it explains x_t, turn the answers "
            "into "
            "probabilities, and average the points with them.",
            "w_k ∝ exp(−‖x_t − √ᾱ_t · p_k‖² / (2(1 − ᾱ_t))), Σ_k w_k = 1, and E[x0 | x_t] = Σ_k w_k p_k",
            "`torch.softmax(-distances / (2 * (1 - a)), dim=1) @ points` with squared `distances (B, K)` and `a "
            "(B, 1)`",
        ),
    ),
    Exercise(
        "02.q_posterior",
        q_posterior,
        _posterior_cases,
        posterior_mistakes.Q_POSTERIOR,
        (
            "Where was the clip one step ago, if we know where it started and where it is? Somewhere between: an "
            "average of "
            "x0 and x_t, with a little doubt left. At t = 0 there is no doubt, as the step before is x0 itself.",
            "mean = √ᾱ_{t−1} β_t/(1 − ᾱ_t) · x0 + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) · x_t, var = β_t (1 − ᾱ_{t−1})/(1 − "
            "ᾱ_t), "
            "with ᾱ_{−1} = 1",
            "`before = torch.cat([torch.ones_like(a[:1]), a[:-1]])` holds ᾱ_{t−1}; then "
            "`var = b * (1 - a_prev) / (1 - a)` and `torch.log(var.clamp(min=1e-20))`",
        ),
        outputs=("mean", "var", "log_var"),
    ),
    Exercise(
        "02.p_sample",
        p_sample,
        _p_sample_cases,
        sampling_mistakes.P_SAMPLE,
        (
            "From the predicted noise work out the clean clip, pull it back into the range of clips, ask the "
            "posterior for "
            "the step before, and draw from it.",
            "x̂0 = predict_x0(x_t, noise_pred), clamped; x_{t−1} = mean(x̂0, x_t) + √var · z, and no z at t = 0",
            "`mean, var, _ = q_posterior(x0.clamp(-1, 1) if clip else x0, x_t, t, betas)`, then `mean + var.sqrt() "
            "* z`: "
            "at t = 0 the variance is 0 by itself",
        ),
    ),
    Exercise(
        "02.ddim_step",
        ddim_step,
        _ddim_cases,
        sampling_mistakes.DDIM_STEP,
        (
            "Guess the clean clip, then noise it again, but only up to t_prev: some of that noise is the predicted "
            "one, "
            "some (eta decides how much) is new. The variances of both must add up to 1 − ᾱ_prev.",
            "x_prev = √ᾱ_prev · x̂0 + √(1 − ᾱ_prev − σ²) · noise_pred + σ · z, "
            "σ = η √((1 − ᾱ_prev)/(1 − ᾱ_t) · (1 − ᾱ_t/ᾱ_prev)), ᾱ_{−1} = 1",
            "`a_prev = extract(torch.cat([torch.ones(1), alphas_cumprod]), t_prev + 1, x_t.shape)` (in the dtype "
            "of the schedule)",
        ),
    ),
)
