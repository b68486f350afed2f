"""Exercises of notebook 01, DDPM math: schedules, one noising step, signal against noise, and a distance of "
"Gaussians."""

import math

import torch
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n01_noise_mistakes as noise_mistakes
from minivdm.course.exercises import n01_schedule_mistakes as schedule_mistakes
from minivdm.course.inputs import alphas_cumprod as some_alphas_cumprod
from minivdm.course.inputs import betas as some_betas
from minivdm.course.inputs import randn, uniform


def linear_betas(num_steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    return torch.linspace(start, end, num_steps, dtype=torch.float64)


def cosine_betas(num_steps: int, s: float = 0.008) -> Tensor:
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    kept = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.9999)


def alphas_cumprod(betas: Tensor) -> Tensor:
    return torch.cumprod(1 - betas, dim=0)


def noise_one_step(x_prev: Tensor, beta: float | Tensor, noise: Tensor) -> Tensor:
    return (1 - beta) ** 0.5 * x_prev + beta**0.5 * noise


def noise_chain(x0: Tensor, betas: Tensor, noises: Tensor) -> Tensor:
    x = x0
    for beta, noise in zip(betas, noises, strict=True):
        x = noise_one_step(x, beta, noise)
    return x


def snr(alphas_cumprod: Tensor) -> Tensor:
    return alphas_cumprod / (1 - alphas_cumprod)


def first_noisy_step(alphas_cumprod: Tensor) -> int:
    return int((snr(alphas_cumprod) >= 1).sum())  # the ratio only falls, so the louder steps come first


def gaussian_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    spread = torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2)
    return 0.5 * (spread + logvar2 - logvar1 - 1)


def _linear_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"num_steps": 11}, "11 steps and the default ends"),
        Case({"num_steps": 1000}, "1000 steps and the default ends"),
        Case({"num_steps": 7, "start": 0.003, "end": 0.4}, "7 steps from 0.003 to 0.4"),
    ]


def _cosine_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"num_steps": 1000}, "1000 steps and the default s"),
        Case({"num_steps": 9}, "9 steps and the default s"),
        Case({"num_steps": 40, "s": 0.1}, "40 steps and s = 0.1"),
    ]


def _schedule_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"betas": some_betas(g, 13)}, "13 steps"),
        Case({"betas": some_betas(g, 6, torch.float64)}, "float64"),
        Case({"betas": torch.linspace(1e-4, 0.02, 400)}, "a real schedule of 400 steps"),
    ]


def _one_step_cases(g: torch.Generator) -> list[Case]:
    clip, points, image = (2, 3, 5, 8, 6), (7, 2), (1, 3, 4, 6)
    return [
        Case({"x_prev": randn(g, *clip), "beta": 0.3, "noise": randn(g, *clip)}, "a number as beta"),
        Case(
            {"x_prev": randn(g, *points), "beta": torch.tensor(0.07), "noise": randn(g, *points)},
            "a 0-d tensor as beta",
        ),
        Case(
            {"x_prev": randn(g, *image).double(), "beta": 0.6, "noise": randn(g, *image).double()},
            "float64",
        ),
    ]


def _chain_cases(g: torch.Generator) -> list[Case]:
    def case(num_steps: int, shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        x0, noises = randn(g, *shape, dtype=dtype), randn(g, num_steps, *shape, dtype=dtype)
        return Case({"x0": x0, "betas": some_betas(g, num_steps, dtype), "noises": noises}, note)

    return [
        case(6, (2, 3, 5, 4), torch.float32, "6 steps"),
        case(1, (4, 2), torch.float32, "a single step"),
        case(9, (3, 2), torch.float64, "float64"),
    ]


def _ratio_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"alphas_cumprod": some_alphas_cumprod(g, 17)}, "17 steps"),
        Case({"alphas_cumprod": some_alphas_cumprod(g, 5, torch.float64)}, "float64"),
    ]


def _first_noisy_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"alphas_cumprod": some_alphas_cumprod(g, 23)}, "23 steps"),
        Case({"alphas_cumprod": 0.9 * some_alphas_cumprod(g, 40, torch.float64)}, "40 steps in float64"),
        Case({"alphas_cumprod": torch.tensor([0.9, 0.8, 0.7])}, "a schedule so short that the signal stays louder"),
        Case({"alphas_cumprod": torch.tensor([0.75, 0.5, 0.25])}, "a step at which both are exactly as loud"),
        Case({"alphas_cumprod": torch.tensor([0.4, 0.3, 0.2, 0.1])}, "a schedule that drowns the signal at once"),
    ]


def _kl_cases(g: torch.Generator) -> list[Case]:
    def case(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, note: str) -> Case:
        names = ("mean1", "logvar1", "mean2", "logvar2")
        return Case({name: randn(g, *shape, dtype=dtype) for name, shape in zip(names, shapes, strict=True)}, note)

    return [
        case(((3, 5),) * 4, torch.float32, "four tensors of one shape"),
        case(((2, 3, 4), (1, 3, 1), (), (2, 1, 1)), torch.float32, "shapes that broadcast"),
        case(((4, 2), (), (4, 1), (1, 2)), torch.float64, "float64"),
        Case({name: uniform(g, -4, 4, 6) for name in ("mean1", "logvar1", "mean2", "logvar2")}, "far apart Gaussians"),
    ]


EXERCISES = (
    Exercise(
        "01.linear_betas",
        linear_betas,
        _linear_cases,
        schedule_mistakes.LINEAR_BETAS,
        (
            "Every step adds a little noise, and each step a little more than the one before: equal increments "
            "from `start` "
            "to `end`, both included.",
            "β_t = start + (end − start) · t / (N − 1) for t = 0 … N − 1",
            "`torch.linspace(start, end, num_steps)`",
        ),
        rtol=1e-5,
        atol=1e-7,
    ),
    Exercise(
        "01.cosine_betas",
        cosine_betas,
        _cosine_cases,
        schedule_mistakes.COSINE_BETAS,
        (
            "Draw the curve of what is kept first (a squared cosine from 1 down to 0), then ask which β at each "
            "step makes ᾱ follow it: "
            "one step keeps the ratio of two neighbours on the curve.",
            "f(t) = cos²((t/N + s)/(1 + s) · π/2) for t = 0 … N, and β_t = 1 − f(t + 1)/f(t), at most 0.9999",
            "`kept = torch.cos((torch.arange(num_steps + 1, dtype=torch.float64) / num_steps + s) / (1 + s) * "
            "math.pi / 2) ** 2`, "
            "then `(1 - kept[1:] / kept[:-1]).clamp(0, 0.9999)`",
        ),
        rtol=1e-5,
        atol=0.0,
    ),
    Exercise(
        "01.alphas_cumprod",
        alphas_cumprod,
        _schedule_cases,
        schedule_mistakes.ALPHAS_CUMPROD,
        (
            "Each step keeps the share 1 − β of the variance that is left. After several steps the shares multiply.",
            "ᾱ_t = (1 − β_0)(1 − β_1) … (1 − β_t)",
            "`torch.cumprod(1 - betas, dim=0)`",
        ),
    ),
    Exercise(
        "01.noise_one_step",
        noise_one_step,
        _one_step_cases,
        noise_mistakes.NOISE_ONE_STEP,
        (
            "Shrink the clip a little and add a little noise, so that the variance stays 1. Variances add; what "
            "you multiply by is "
            "the root of a variance.",
            "x_t = √(1 − β) · x_{t−1} + √β · noise",
            "`(1 - beta) ** 0.5 * x_prev + beta ** 0.5 * noise` works for a float and for a tensor",
        ),
    ),
    Exercise(
        "01.noise_chain",
        noise_chain,
        _chain_cases,
        noise_mistakes.NOISE_CHAIN,
        (
            "Take the steps one after another: each starts where the last one ended, with its own β and its own noise.",
            "x ← √(1 − β_t) · x + √β_t · noises[t] for t = 0 … N − 1",
            "`for beta, noise in zip(betas, noises): x = noise_one_step(x, beta, noise)`",
        ),
    ),
    Exercise(
        "01.snr",
        snr,
        _ratio_cases,
        noise_mistakes.SNR,
        (
            "The clip arrives at step t with variance ᾱ, the noise with the rest. How many times louder is the clip?",
            "SNR(t) = ᾱ_t / (1 − ᾱ_t)",
            "`alphas_cumprod / (1 - alphas_cumprod)`",
        ),
        atol=0.0,
    ),
    Exercise(
        "01.first_noisy_step",
        first_noisy_step,
        _first_noisy_cases,
        noise_mistakes.FIRST_NOISY_STEP,
        (
            "The signal-to-noise ratio falls through 1 somewhere. Count the steps at which the signal is still at "
            "least as loud.",
            "the smallest t with SNR(t) < 1, and N when there is none; SNR < 1 means ᾱ_t < 1/2",
            "`int((snr(alphas_cumprod) >= 1).sum())`",
        ),
    ),
    Exercise(
        "01.gaussian_kl",
        gaussian_kl,
        _kl_cases,
        noise_mistakes.GAUSSIAN_KL,
        (
            "How surprised is someone who believes the second Gaussian by samples of the first? Three parts: the "
            "widths, the distance "
            "of the means measured in widths of the second, and a constant that makes equal Gaussians cost nothing.",
            "KL = ½ · (log σ₂² − log σ₁² − 1 + σ₁²/σ₂² + (μ₁ − μ₂)²/σ₂²), with σ² = e^logvar",
            "`0.5 * (logvar2 - logvar1 - 1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * "
            "torch.exp(-logvar2))`",
        ),
    ),
)
