"""Mistakes of training, shown without a training: what a perfect network would make of them.

* `q_sample`: the best network there can be for a handful of clips is known in closed form (`02.optimal_denoiser`), and
  so is the best one for clips that were noised in another way, whatever it is, as long as it mixes clip and noise.
* the averages of the weights: take a training that has learnt everything in its first step. Then the weights stand
  still at those of the shipped Unet3D, and all that happens is the average.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from einops import reduce
from torch import Tensor, nn

from minivdm.course.atlas import unet_stages
from minivdm.course.atlas.unet_stages import pipeline
from minivdm.course.exercise import get
from minivdm.data.fireworks import render, sample_scenes
from minivdm.pipelines import UnetPipeline

Answer = Callable[..., Any]

CLIPS, FRAMES, SIZE, SEED = 24, 9, 32, 1
STEPS = 25
DECAY, AVERAGED = 0.999, 300  # of the average, and for how many steps it has run


@cache
def _known() -> Tensor:
    """The clips that the perfect network knows (K, 3, T, H, W), normalised as for the shipped one."""
    scenes = sample_scenes(CLIPS, generator=torch.Generator().manual_seed(SEED))
    return pipeline().diffusion.normalize(render(scenes, FRAMES, SIZE, generator=torch.Generator().manual_seed(SEED)))


def q_sample(answer: Answer) -> Tensor:
    """02.q_sample: what a network learns that was trained on these x_t to predict the noise. The sampler is right."""
    clips, table = _known(), pipeline().diffusion.alpha_bars.float()
    one, nothing = torch.ones(1, 1), torch.zeros(1, 1)
    times = [int(t) for t in np.linspace(0, 999, STEPS).round()][::-1]
    x = torch.randn(clips[:1].shape, generator=torch.Generator().manual_seed(SEED))
    for step, step_prev in zip(times, [*times[1:], -1], strict=True):
        t = torch.tensor([step])
        kept, added = answer(one, t, nothing, table).item(), answer(nothing, t, one, table).item()
        distances = reduce((x - kept * clips) ** 2, "k ... -> k", "sum")
        x0 = torch.einsum("k, k ... -> ...", torch.softmax(-distances / (2 * added**2), 0), clips)[None]
        noise = (x - kept * x0) / added
        x = get("02.ddim_step").reference(x, t, torch.tensor([step_prev]), noise, torch.zeros_like(x), table, 0.0)
    return pipeline().diffusion.denormalize(x).clamp(-1, 1)


def ema_update(answer: Answer) -> Tensor:
    """07.ema_update: the average begins as a copy of the weights."""
    share = torch.ones(1)
    for _ in range(AVERAGED):
        share = answer(share, torch.ones(1), DECAY)
    return _film(_weighed(pipeline().unet, pipeline().unet, 0.0, share.item()))


def ema_warmup(answer: Answer) -> Tensor:
    """10.ema_warmup: the average begins as a network that has learnt nothing."""
    shares, learnt = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])  # of the beginning, and of the trained weights
    for step in range(AVERAGED):
        shares = answer(shares, learnt, DECAY, step)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        beginning = UnetPipeline.from_config(pipeline().config, pipeline().words).unet
    return _film(_weighed(beginning, pipeline().unet, *shares.tolist()))


def _weighed(one: nn.Module, other: nn.Module, share: float, share_other: float) -> nn.Module:
    """A network whose weights are share · one + share_other · other."""
    mixed, weights = copy.deepcopy(other), one.state_dict()
    mixed.load_state_dict({name: share * weights[name] + share_other * w for name, w in other.state_dict().items()})
    return mixed


def _film(unet: nn.Module) -> Tensor:
    pipe = UnetPipeline(unet, pipeline().diffusion, pipeline().words, pipeline().config)
    return pipe([unet_stages.PROMPT], seed=SEED)
