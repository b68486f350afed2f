"""Begin a larger model as the smaller one that is already trained.

Twice the picture size need not mean starting again. A 2D VAE that takes squares of 2×2 pixels, with more channels in
its latent, can compute exactly what the small one made of the picture at half the size, and has then only to learn the
detail. The same goes for the temporal VAE and the denoiser on top of it. What is new counts nothing at first: old
outputs do not listen to new inputs, and new outputs are as they were drawn. (Karras et al. 2018 grew GANs like this,
and Open-Sora its video model out of an image model.)
"""

from collections.abc import Mapping

import torch
from einops import repeat
from torch import Tensor, nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.temporal import TemporalVAE
from minivdm.weights import load_weights

# Layers whose outputs or inputs may become more, and of how many equal blocks they consist: mean, log-variance are two.
_VAE2D = {"encoder.conv_out": (2, 1), "decoder.conv_in": (1, 1)}
_TEMPORAL = {
    "encoder.conv_in.conv": (1, 1),
    "encoder.conv2.conv": (2, 1),
    "quant_conv.conv": (2, 2),
    "post_quant_conv.conv": (1, 1),
    "decoder.conv1.conv": (1, 1),
    "decoder.conv_out.conv": (1, 1),
    "shortcut_in": (1, 1),
    "shortcut_out": (1, 1),
}


def load_or_grow(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a model of the same size or of a smaller one into `model`.

    What may have been smaller: z_channels and patch (1 then) of an `AutoEncoder2D`, the channels at both ends of a
    `TemporalVAE` and of its latent, in_channels of an `STDiT3`. UserError names the first weight that fits otherwise;
    `source` says there where it came from.
    """
    wanted, given = model.state_dict(), dict(weights)
    if isinstance(model, AutoEncoder2D) and model.config.patch > 1:
        given = _into_squares(given, wanted, model.config.patch)
    for layer, blocks in _blocks(model).items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in given and _smaller(given[name], wanted[name]):
                given[name] = _enlarged(given[name], wanted[name], blocks)
    load_weights(model, given, source)


def _blocks(model: nn.Module) -> dict[str, tuple[int, int]]:
    if isinstance(model, STDiT3):
        frames, rows, columns = model.config.patch_size
        per_channel = frames * rows * columns * (2 if model.config.pred_sigma else 1)
        return {"x_embedder.proj": (1, 1), "final_layer.linear": (per_channel, 1)}
    return {AutoEncoder2D: _VAE2D, TemporalVAE: _TEMPORAL}[type(model)]


def _smaller(small: Tensor, large: Tensor) -> bool:
    sides = list(zip(small.shape, large.shape, strict=False))
    return small.ndim == large.ndim and small.shape != large.shape and all(old <= new for old, new in sides)


def _enlarged(small: Tensor, large: Tensor, blocks: tuple[int, int]) -> Tensor:
    """`small` (O, I, ...) or (O,) as the first entries of every block of `large`."""
    places = [
        torch.cat([torch.arange(old // count) + block * (new // count) for block in range(count)])
        for old, new, count in zip(small.shape[:2], large.shape[:2], blocks, strict=False)
    ]
    grown = large.clone()
    grown[places[0]] = 0
    grown[torch.meshgrid(*places, indexing="ij")] = small.to(grown.dtype)
    return grown


def _into_squares(weights: dict[str, Tensor], wanted: Mapping[str, Tensor], patch: int) -> dict[str, Tensor]:
    """A 2D VAE of pixels as one of squares: their mean goes in where the pixel went in; all get what it got."""
    pixels = wanted["encoder.conv_in.weight"].shape[1] // patch**2
    first, last = weights.get("encoder.conv_in.weight"), weights.get("decoder.conv_out.weight")
    if first is None or last is None or first.shape[1] != pixels:
        return weights
    spread = {"encoder.conv_in.weight": repeat(first / patch**2, "o c h w -> o (c square) h w", square=patch**2)}
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        spread[name] = repeat(weights[name], "c ... -> (c square) ...", square=patch**2)
    return weights | spread
