"""The shipped Unet3D with one function put in: schedule, prediction, steps, guidance (lessons 01, 02 and 07).

A film on its way is kept in units of the film, [-1, 1], where the noise is smaller by the factor by which the network's
input is larger: so the exercises' functions fit as they are, clipping included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minivdm.course.exercise import get
from minivdm.pipelines import UnetPipeline

Answer = Callable[..., Any]

PROMPT, SEED, SCALE = "a large red peony high on the left", 0, 2.0
DDIM_STEPS, DDPM_STEPS = 25, 50
SHAPE = (1, 3, 9, 32, 32)


@cache
def pipeline() -> UnetPipeline:
    return UnetPipeline.from_pretrained("toy")


def schedule() -> Tensor:
    """ᾱ of the shipped network, (1000,) float64."""
    return pipeline().diffusion.alpha_bars


def betas_of(alpha_bars: Tensor) -> Tensor:
    """The betas that lead from one ᾱ to the next."""
    return 1 - alpha_bars / torch.cat([torch.ones_like(alpha_bars[:1]), alpha_bars[:-1]])


def evenly(steps: int) -> list[int]:
    """`steps` timesteps from 999 down to 0."""
    return [int(t) for t in np.linspace(0, 999, steps).round()][::-1]


def noises(seed: int = SEED):
    """Noise in film units, draw after draw."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=generator) / pipeline().diffusion.scale_factor


@dataclass(frozen=True)
class Network:
    """From x_t in film units to the noise in it: the shipped network with parts of the way there replaced.

    table: ᾱ as the sampler believes it to be. guide: an answer to 07.guided. target: an answer to 02.predict_v, which
    the network is taken to have learnt; v is linear in clip and noise, so what it would answer is known. alone: frames
    do not see each other.
    """

    table: Tensor
    guide: Answer
    target: Answer | None = None
    alone: bool = False

    @torch.no_grad()
    def noise_in(self, x_t: Tensor, t: int) -> Tensor:
        diffusion = pipeline().diffusion
        kept = self.table[t].float()
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        seen = (x_t - signal * diffusion.shift_factor) * diffusion.scale_factor
        both = pipeline().unet(
            torch.cat([seen, seen]),
            torch.tensor([t, t]),
            pipeline().words.encode([PROMPT, PROMPT]),
            null_cond=torch.tensor([False, True]),
            focus_present_mask=torch.tensor([self.alone, self.alone]),
        )
        v = self.guide(*both.chunk(2), SCALE)
        if self.target is not None:
            clip, noise = signal * seen - rest * v, signal * v + rest * seen
            v = self.target(clip, torch.tensor([t]), noise, self.table.float())
        return (signal * v + rest * seen) / diffusion.scale_factor


def ddim(step: Answer | None = None, **replaced: Any) -> Tensor:
    """A film (1, 3, T, H, W) by DDIM, with an answer to 02.ddim_step, and with parts of the `Network` replaced."""
    step = step or get("02.ddim_step").reference
    network = Network(**{"table": schedule(), "guide": get("07.guided").reference} | replaced)
    table, times, x = network.table.float(), evenly(DDIM_STEPS), next(noises())
    for t, t_prev in zip(times, [*times[1:], -1], strict=True):
        signal, rest = table[t].sqrt(), (1 - table[t]).sqrt()
        x0 = ((x - rest * network.noise_in(x, t)) / signal).clamp(-1, 1)
        noise = (x - signal * x0) / rest  # that goes with exactly this x0
        x = step(x, torch.tensor([t]), torch.tensor([t_prev]), noise, torch.zeros_like(x), table, 0.0)
    return x.clamp(-1, 1)


def ddim_step(answer: Answer) -> Tensor:
    """02.ddim_step: every step."""
    return ddim(answer)


def alphas_cumprod(answer: Answer) -> Tensor:
    """01.alphas_cumprod: the sampler's table; the network was trained with the right one."""
    return ddim(table=answer(betas_of(schedule())))


def guided(answer: Answer) -> Tensor:
    """07.guided: every guidance."""
    return ddim(guide=answer)


def predict_v(answer: Answer) -> Tensor:
    """02.predict_v: what the network was trained to say."""
    return ddim(target=answer)


def focus_present_mask(answer: Answer) -> Tensor:
    """07.focus_present_mask: for a clip that is not focused, whose frames should see each other."""
    return ddim(alone=not answer(torch.tensor([False]), SHAPE[2]).all())


def p_sample(answer: Answer) -> Tensor:
    """02.p_sample: DDPM in 50 of the 1000 steps, on the betas that lead from one to the next."""
    network = Network(schedule(), get("07.guided").reference)
    times, draws = evenly(DDPM_STEPS), noises()
    betas, x = betas_of(schedule()[times[::-1]]).float(), next(draws)
    for k, t in zip(reversed(range(DDPM_STEPS)), times, strict=True):
        x = answer(x, torch.tensor([k]), network.noise_in(x, t), next(draws), betas, True)
    return x.clamp(-1, 1)
