"""Exercises of notebook 08 about rectified flow: straight paths, their velocity, the way back, and shifted time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minivdm.course.compare import Problem
from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n08_flow_mistakes as flow_mistakes
from minivdm.course.exercises import n08_sampling_mistakes as sampling_mistakes
from minivdm.course.inputs import randn
from minivdm.course.runner import call

Velocity = Callable[[Tensor, Tensor], Tensor]


def flow_interpolate(x0: Tensor, noise: Tensor, t: Tensor, num_timesteps: int = 1000) -> Tensor:
    share = (t / num_timesteps).reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - share) * x0 + share * noise


def flow_loss(velocity: Tensor, x0: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
    error = (velocity - (x0 - noise)) ** 2
    if mask is None:
        return error.flatten(1).mean(dim=1)
    per_frame = error.mean(dim=(1, 3, 4))
    return (per_frame * mask).sum(dim=1) / mask.sum(dim=1)


def euler_sample(velocity_fn: Velocity, noise: Tensor, num_steps: int) -> Tensor:
    z = noise
    for i in range(num_steps):
        t = z.new_full((len(z),), 1000 * (1 - i / num_steps))
        z = z + velocity_fn(z, t) / num_steps
    return z


def shift_timestep(t: Tensor, height: float, width: float, latent_frames: float) -> Tensor:
    ratio = math.sqrt(height * width) / 512 * math.sqrt(latent_frames)
    u = t / 1000
    return 1000 * ratio * u / (1 + (ratio - 1) * u)


class CurvedField:
    """A velocity that depends on place and time: every step matters, and every t.

    It takes t in whatever form it comes, so that `asks_on_the_grid` can say what is wrong with that form.
    """

    def __init__(self, g: torch.Generator, shape: tuple[int, ...]):
        self.phase = 3 * randn(g, *shape, dtype=torch.float64)

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=z.dtype).flatten()
        t = t if len(t) == len(z) else t[:1]
        u = (t / 1000).reshape(-1, *[1] * (z.ndim - 1))
        return 2 * torch.cos(2 * z + 4 * u + self.phase.to(z)) - (1 - u) * z


def asks_on_the_grid(answer: Callable[..., Tensor], case: Case) -> Problem | None:
    """Every call hands over one t per sample, and every sample is asked about once at each of the n times."""
    noise, steps = case.args["noise"], case.args["num_steps"]
    asked: list[tuple[int, Tensor]] = []

    def watched(z: Tensor, t: Tensor) -> Tensor:
        asked.append((len(z), t.detach().clone() if isinstance(t, Tensor) else t))
        return case.args["velocity_fn"](z, t)

    outcome = call(answer, {**case.args, "velocity_fn": watched})
    if outcome.error is not None:
        text = f"The value is right, but a second call raised `{type(outcome.error).__name__}: {outcome.error}`."
        return Problem("second call", f"{text}\nThink: what does your function remember from one call to the next?")
    for samples, t in asked:
        if not isinstance(t, Tensor) or t.shape != (samples,):
            number = isinstance(t, (int, float)) or (isinstance(t, Tensor) and t.ndim == 0)
            found = f"a tensor of shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"a {type(t).__name__}"
            text = f"The value is right, but you handed over t as {found}. A denoiser embeds one t per sample: a "
            text += f"tensor of shape ({samples},)."
            question = "what is the batch size of `z`, and what that of your t?"
            return Problem("t number" if number else "t shape", f"{text}\nThink: {question}")
    times = torch.cat([t.double() for _, t in asked] or [torch.empty(0)]).sort().values
    expected = torch.tensor([1000 * (1 - i / steps) for i in range(steps)], dtype=torch.float64)
    expected = expected.repeat_interleave(len(noise)).sort().values
    if len(times) != len(expected):
        text = f"The value is right, but your function asks for {len(times)} velocities (of {len(noise)} samples), "
        text += f"where {steps} steps need {len(expected)}. Each one is a run of the network."
        kind = "asked at zero" if bool((times < 1e-2).any()) else "number of calls"
        return Problem(kind, f"{text}\nThink: which call's answer do you not need?")
    if not torch.allclose(times, expected, rtol=0, atol=1e-2):
        worst = int((times - expected).abs().argmax())
        text = f"The value is nearly right, but you asked at t = {times[worst]:.2f} instead of {expected[worst]:.2f}."
        return Problem("times", f"{text}\nThink: what are the {steps} times t_i = 1000·(1 − i/n)?")
    return None


def _interpolate_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], t: list[float], note: str, dtype=torch.float32, **num_timesteps: int) -> Case:
        x0, noise = (randn(g, *shape, dtype=dtype) for _ in range(2))
        return Case({"x0": x0, "noise": noise, "t": torch.tensor(t, dtype=dtype), **num_timesteps}, note)

    return [
        case((3, 2, 5, 4, 6), [731.25, 0.0, 1000.0], "a batch of videos"),
        case((4, 2), [999.5, 17.75, 250.0, 500.0], "points in the plane"),
        case((1, 3, 2, 5, 4), [37.125], "time up to 50", num_timesteps=50),
        case((2, 3, 1, 5, 4), [812.6, 333.3], "pictures in float64", dtype=torch.float64),
    ]


def _loss_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], mask: list[list[bool]] | None, note: str, **dtype: torch.dtype) -> Case:
        tensors = {name: randn(g, *shape, **dtype) for name in ("velocity", "x0", "noise")}
        return Case({**tensors, **({} if mask is None else {"mask": torch.tensor(mask)})}, note)

    first, all_of_them = [False, True, True, True, True], [True] * 5
    return [
        case((2, 3, 5, 4, 6), None, "no mask"),
        case((3, 2, 5, 6, 4), [first, [False, False, False, True, False], all_of_them], "a mask"),
        case((1, 4, 3, 5, 2), [[True, False, True]], "a mask in float64", dtype=torch.float64),
        case((2, 4, 3, 6, 5), [[True] * 3] * 2, "a mask that is True everywhere"),
    ]


def _euler_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], num_steps: int, note: str, **dtype: torch.dtype) -> Case:
        noise = randn(g, *shape, **dtype)
        return Case({"velocity_fn": CurvedField(g, shape[1:]), "noise": noise, "num_steps": num_steps}, note)

    return [
        case((2, 3, 5, 4, 6), 4, "4 steps for videos"),
        case((5, 2), 7, "7 steps for points in the plane"),
        case((1, 4, 3, 2), 3, "3 steps for a single sample in float64", dtype=torch.float64),
        case((3, 4), 1, "a single step"),
    ]


def _shift_cases(g: torch.Generator) -> list[Case]:
    def case(t: list[float], height: float, width: float, latent_frames: float, note: str, **dtype) -> Case:
        sizes = {"height": height, "width": width, "latent_frames": latent_frames}
        return Case({"t": torch.tensor(t, **dtype), **sizes}, note)

    return [
        case([0.0, 250.5, 1000.0, 731.0], 720, 1280, 15, "a film of 720p"),
        case([999.0, 3.25, 500.0], 144, 256, 5, "a short film of 144p"),
        case([125.0, 875.0], 512, 512, 1, "an image of 512×512: nothing moves"),
        case([640.0, 10.0, 990.0], 32, 48, 12, "a small film in float64", dtype=torch.float64),
        case([42.0], 1024, 768, 1, "one large image"),
    ]


FLOW_EXERCISES = (
    Exercise(
        "08.flow_interpolate",
        flow_interpolate,
        _interpolate_cases,
        flow_mistakes.INTERPOLATE,
        (
            "Walk from the film to the noise in a straight line, at constant speed. t says how far.",
            "u = t / num_timesteps; x_t = (1 − u) · x0 + u · noise, with a u per sample",
            "`u = (t / num_timesteps).reshape(-1, *[1] * (x0.ndim - 1))`, then `(1 - u) * x0 + u * noise`",
        ),
    ),
    Exercise(
        "08.flow_loss",
        flow_loss,
        _loss_cases,
        flow_mistakes.LOSS,
        (
            "The network should say which way the film lies: the arrow from noise to data, the same all along the "
            "line. One number per clip says how far off it is. Frames that were given are not counted, neither in "
            "the sum nor in what it is divided by.",
            "mean over c, t, h, w of (velocity − (x0 − noise))²; with a mask Σ over its frames / (their number · "
            "C · H · W)",
            "`error = ((velocity - (x0 - noise)) ** 2).mean(dim=(1, 3, 4))`, then "
            "`(error * mask).sum(1) / mask.sum(1)`, or `error.mean(1)` without a mask",
        ),
        gradients=("velocity",),
    ),
    Exercise(
        "08.euler_sample",
        euler_sample,
        _euler_cases,
        sampling_mistakes.EULER,
        (
            "Stand in the noise, ask which way the film lies, walk a short way, ask again. The first question is "
            "asked at t = 1000; at t = 0 one has arrived and asks no more.",
            "t_i = 1000 · (1 − i/n) for i = 0 … n − 1; z ← z + velocity(z, t_i) / n",
            "`t = z.new_full((len(z),), 1000 * (1 - i / num_steps))`, then `z = z + velocity_fn(z, t) / num_steps`",
        ),
        rule=asks_on_the_grid,
    ),
    Exercise(
        "08.shift_timestep",
        shift_timestep,
        _shift_cases,
        sampling_mistakes.SHIFT,
        (
            "In a large or long film neighbours repeat each other, so the same noise hides less. To hide as much, "
            "move every time towards noise; the two ends stay where they are.",
            "r = √(height · width) / 512 · √latent_frames; u = t/1000; t′ = 1000 · r·u / (1 + (r − 1)·u)",
            "`r = (height * width * latent_frames) ** 0.5 / 512`, `u = t / 1000`, then "
            "`1000 * r * u / (1 + (r - 1) * u)`",
        ),
    ),
)
