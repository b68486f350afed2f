"""The shipped video autoencoder with one function put in (lessons 03, 04, 05, and the folding of 07).

What is decoded are latents of rendered clips, so that nothing but the decoder can be to blame.
"""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from minivdm.course.atlas.flow_stages import pipeline
from minivdm.course.exercise import get
from minivdm.data.fireworks import render, sample_scenes
from minivdm.vae import temporal, temporal_blocks
from minivdm.vae.causal_conv import CausalConv3d, Tails
from minivdm.vae.video import VideoAutoencoder

Answer = Callable[..., Any]

FRAMES, SIZE, SEED = 17, 64, 3


@cache
def clips() -> Tensor:
    """Two rendered clips (2, 3, T, H, W)."""
    scenes = sample_scenes(2, "scene", generator=torch.Generator().manual_seed(SEED))
    return render(scenes, FRAMES, SIZE, generator=torch.Generator().manual_seed(SEED + 1))


def vae() -> VideoAutoencoder:
    return pipeline().vae


@cache
def latents() -> Tensor:
    """Their latents (2, C, T', h, w), in units of one standard deviation."""
    with torch.no_grad():
        return vae().encode(clips(), sample=False)


@torch.no_grad()
def decoded(z: Tensor, by: VideoAutoencoder | None = None) -> Tensor:
    """The first of the films (1, 3, T, H, W)."""
    return (by or vae()).decode(z[:1], num_frames=FRAMES).clamp(-1, 1)


def latent_scale(answer: Answer) -> Tensor:
    """03.latent_scale: latents were multiplied by the right scale; they are divided by the answer's again.

    They are taken for those of an encoder that come out small: with our own, near 1, little would be seen.
    """
    raw = 0.4 * latents()
    return decoded(latents() * get("03.latent_scale").reference(raw) / answer(raw))


@torch.no_grad()
def reparameterize(answer: Answer) -> Tensor:
    """03.reparameterize: what the 2D encoder draws of each frame, decoded again."""
    pictures = rearrange(clips()[:1], "b c t h w -> (b t) c h w")
    _, posterior = vae().vae2d.encode(pictures, sample=False, return_posterior=True)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(SEED))
    rec = vae().vae2d.decode(answer(posterior.mean, posterior.logvar, noise))
    return rearrange(rec, "(b t) c h w -> b c t h w", b=1).clamp(-1, 1)


@torch.no_grad()
def frames_to_batch(answer: Answer) -> Tensor:
    """07.frames_to_batch: frames of two clips on their way into the 2D decoder."""
    z = latents() * vae().scale + vae().shift
    frames = vae().temporal.decode(z, num_frames=FRAMES)
    pictures = vae().vae2d.decode(answer(frames))
    return rearrange(pictures, "(b t) c h w -> b c t h w", b=2)[:1].clamp(-1, 1)


def depth_to_time(answer: Answer) -> Tensor:
    """04.depth_to_time: channels that become frames, in the temporal decoder."""
    own = temporal_blocks.depth_to_time
    temporal_blocks.depth_to_time = temporal.depth_to_time = answer
    try:
        return decoded(latents())
    finally:
        temporal_blocks.depth_to_time = temporal.depth_to_time = own


def causal_conv3d(answer: Answer) -> Tensor:
    """04.causal_conv3d: every convolution of the temporal decoder."""

    def forward(layer: CausalConv3d, x: Tensor, tails: Tails | None = None) -> Tensor:
        return answer(x, layer.conv.weight, layer.conv.bias, layer.stride)

    return decoded(latents(), _with_convolutions(forward))


def chunked_conv3d(answer: Answer, limit: int = 10_000) -> Tensor:
    """05.chunked_conv3d: the same, in parts of at most `limit` numbers."""

    def forward(layer: CausalConv3d, x: Tensor, tails: Tails | None = None) -> Tensor:
        padded = torch.cat([x.new_zeros(*x.shape[:2], layer.time_pad, *x.shape[3:]), x], dim=2)
        return answer(padded, layer.conv.weight, layer.conv.bias, limit, layer.conv.padding)

    return decoded(latents(), _with_convolutions(forward))


@torch.no_grad()
def stream_conv3d(answer: Answer) -> Tensor:
    """04.stream_conv3d: the decoder, handed one latent frame after the other of the film with more light in it."""

    def forward(layer: CausalConv3d, x: Tensor, tails: Tails) -> Tensor:
        carried = tails.get(layer, x.new_zeros(*x.shape[:2], layer.time_pad, *x.shape[3:]))
        out, tails[layer] = answer(x, carried, layer.conv.weight, layer.conv.bias)
        return out

    changed = _with_convolutions(forward)
    return torch.cat(list(changed.decode_stream(latents()[1:].split(1, dim=2), num_frames=FRAMES)), 2).clamp(-1, 1)


def _with_convolutions(forward: Callable[..., Tensor]) -> VideoAutoencoder:
    changed = copy.deepcopy(vae())
    for layer in changed.temporal.decoder.modules():
        if isinstance(layer, CausalConv3d):
            layer.forward = partial(forward, layer)
    return changed
