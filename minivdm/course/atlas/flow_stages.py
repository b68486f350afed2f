"""The shipped text-to-video model with one function put in: words, guidance, steps and tokens (lessons 08 and 09).

A stage is a function of an answer to an exercise, whose name it has. It draws the same film whatever it is given, from
the same noise; given the exercise's own solution, it draws the film that the package draws.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.course.exercise import get
from minivdm.denoisers.dit_blocks import CrossAttention
from minivdm.pipelines import TextToVideoPipeline

Answer = Callable[..., Any]

PROMPT, SEED, STEPS, SCALE = "a large red peony high on the left", 3, 20, 2.0


@cache
def pipeline() -> TextToVideoPipeline:
    """The shipped pipeline; a stage that changes its network takes `_copy`."""
    return TextToVideoPipeline.from_pretrained("toy")


def generate(answer: Answer, by: TextToVideoPipeline | None = None) -> Tensor:
    """09.generate: the whole way from the prompt to the film (1, 3, T, H, W)."""
    return answer(PROMPT, (by or pipeline()).parts(), STEPS, SCALE, SEED)


def euler_sample(answer: Answer) -> Tensor:
    """08.euler_sample: the walk from noise to latents, with a guided velocity."""
    parts = pipeline().parts()
    text, none = parts.encode([PROMPT]), parts.null(1)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return get("07.guided").reference(parts.velocity(z, t, *text), parts.velocity(z, t, *none), SCALE)

    noise = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(SEED))
    return parts.decode(answer(velocity, noise, STEPS)).clamp(-1, 1)


class _Listening(nn.Module):
    """A cross-attention whose middle is the answer."""

    def __init__(self, layer: CrossAttention, answer: Answer):
        super().__init__()
        self.layer, self.answer = layer, answer

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        layer = self.layer
        query = rearrange(layer.q_linear(x), "b n (head d) -> b head n d", head=layer.heads)
        key, value = rearrange(layer.kv_linear(y), "b l (two head d) -> two b head l d", two=2, head=layer.heads)
        return layer.proj(rearrange(self.answer(query, key, value, mask), "b head n d -> b n (head d)"))


def masked_cross_attention(answer: Answer) -> Tensor:
    """09.masked_cross_attention: how every block looks at the text."""
    changed = _copy()
    for block in (*changed.denoiser.spatial_blocks, *changed.denoiser.temporal_blocks):
        block.cross_attn = _Listening(block.cross_attn, answer)
    return generate(get("09.generate").reference, changed)


def unpatchify(answer: Answer) -> Tensor:
    """08.unpatchify: how the tokens of the last layer become latents."""
    changed = _copy()
    config = changed.denoiser.config

    def laid(layer: nn.Module, inputs: tuple, out: Tensor) -> Tensor:
        frames, places = out.shape[1:3]
        side = int(places**0.5)
        z = answer(rearrange(out, "b t s p -> b (t s) p"), config.patch_size, config.out_channels, (frames, side, side))
        # cut into the right patches again, for the network lays them out by itself
        return rearrange(get("08.patchify").reference(z, config.patch_size), "b (t s) p -> b t s p", t=frames)

    changed.denoiser.final_layer.register_forward_hook(laid)
    return generate(get("09.generate").reference, changed)


def _copy() -> TextToVideoPipeline:
    pipe = pipeline()
    return TextToVideoPipeline(copy.deepcopy(pipe.denoiser), pipe.text, pipe.vae, pipe.settings)
