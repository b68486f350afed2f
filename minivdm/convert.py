"""Weights of other projects, in and out.

First the `Unet3D` of lucidrains' video-diffusion-pytorch 0.7.0. Its modules are nested by how they were written
(`downs.0.3.fn.fn.fn.to_qkv`: residual, pre-norm, rearrange, attention), ours by what they are
(`down_levels.0.temporal_attention.to_qkv`), and its convolutions carry a time axis of length 1 that ours leave out.
Both are pure renaming and reshaping, so the two functions are exact inverses.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from minivdm.denoisers.embeddings import rotary_frequencies
from minivdm.denoisers.unet3d import Unet3D
from minivdm.errors import UserError
from minivdm.vae.autoencoder_kl import (  # noqa: F401  autoencoders are renamed where they live; found here too
    autoencoder_from_diffusers,
    autoencoder_from_upstream,
    autoencoder_to_diffusers,
)

# How a tensor is laid out there and here, by what it is.
SAME, CONV, PIXEL = None, ("o i 1 h w", "o i h w"), ("o i 1 1", "o i")
GAIN, NORM, ROW = ("c 1 1 1", "c"), ("1 c 1 1 1", "c"), ("1 c", "c")

# The tensors of each kind of module: their name -> (our name, layout).
LINEAR = {"weight": ("weight", SAME), "bias": ("bias", SAME)}
CONVOLUTION = {"weight": ("weight", CONV), "bias": ("bias", SAME)}
RESNET_BLOCK = {
    "mlp.1.weight": ("modulation.weight", SAME),
    "mlp.1.bias": ("modulation.bias", SAME),
    "res_conv.weight": ("shortcut.weight", CONV),
    "res_conv.bias": ("shortcut.bias", SAME),
    **{f"block{i}.proj.weight": (f"block{i}.conv.weight", CONV) for i in (1, 2)},
    **{f"block{i}.proj.bias": (f"block{i}.conv.bias", SAME) for i in (1, 2)},
    **{f"block{i}.norm.gamma": (f"block{i}.norm.gain", GAIN) for i in (1, 2)},
}
ATTENTION = {
    "fn.norm.gamma": ("norm.weight", NORM),
    "fn.fn.fn.to_qkv.weight": ("to_qkv.weight", SAME),
    "fn.fn.fn.to_out.weight": ("to_out.weight", SAME),
}
LINEAR_ATTENTION = {
    "fn.norm.gamma": ("norm.weight", NORM),
    "fn.fn.to_qkv.weight": ("to_qkv.weight", PIXEL),
    "fn.fn.to_out.weight": ("to_out.weight", PIXEL),
    "fn.fn.to_out.bias": ("to_out.bias", SAME),
}
# every temporal attention there stores the rotary frequencies, which are constants
FREQUENCIES = "fn.fn.fn.rotary_emb.freqs"

Names = dict[str, tuple[str, tuple[str, str] | None]]


def unet3d_from_lucidrains(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a video-diffusion-pytorch `Unet3D` -> state dict of `minivdm.denoisers.Unet3D`.

    Takes the network alone, a whole `GaussianDiffusion` (the network below `denoise_fn.`) or a checkpoint of its
    `Trainer`, whose averaged weights (`ema`) are used. Raises UserError naming the first key that is missing, unknown
    or of another shape.
    """
    theirs = _network(state_dict)
    ours = rename(theirs, _names(theirs, side="downs"))
    _check(ours)
    return ours


def unet3d_to_lucidrains(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `minivdm.denoisers.Unet3D` -> one for video-diffusion-pytorch 0.7.0: the exact inverse."""
    _check(state_dict)
    names = {ours: (theirs, layout) for theirs, (ours, layout) in _names(state_dict, side="down_levels").items()}
    config = unet3d_config(state_dict)
    frequencies = rotary_frequencies(min(32, config["attn_dim_head"]))
    theirs = {}
    for key, tensor in state_dict.items():
        name, layout = names[key]
        theirs[name] = _relayout(key, tensor, layout and layout[::-1])
        if key.endswith("temporal_attention.norm.weight"):
            theirs[name.removesuffix("fn.norm.gamma") + FREQUENCIES] = frequencies.clone()
    return theirs


def unet3d_config(state_dict: Mapping[str, Tensor]) -> dict:
    """The arguments that build the `Unet3D` (ours) which a state dict (ours) fits, read off its shapes.

    `spatial_dim_head` and `mask_initial_attention` are those of the reference.
    """
    try:
        shape = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
        dim = shape["time_embedding.1.weight"][1]
        heads = shape["position_bias.table"][1]
        init_dim, channels, kernel, _ = shape["init_conv.weight"]
        levels = _count(state_dict, "down_levels")
        return {
            "dim": dim,
            "cond_dim": shape["null_cond"][0] if "null_cond" in shape else None,
            "out_dim": shape["final_conv.weight"][0],
            "dim_mults": [shape[f"down_levels.{i}.block1.block1.conv.weight"][0] // dim for i in range(levels)],
            "channels": channels,
            "attn_heads": heads,
            "attn_dim_head": shape["init_temporal_attention.to_qkv.weight"][0] // (3 * heads),
            "init_dim": init_dim,
            "init_kernel_size": kernel,
            "use_sparse_linear_attn": "down_levels.0.linear_attention.to_qkv.weight" in shape,
            "spatial_dim_head": 32,
            "mask_initial_attention": False,
        }
    except KeyError as error:
        raise UserError(f"not the weights of a Unet3D: {error} is missing") from None


def unet3d_of_lucidrains(state_dict: Mapping[str, Tensor]) -> Unet3D:
    """Build our `Unet3D` from weights that video-diffusion-pytorch 0.7.0 saved; it computes the same outputs."""
    weights = unet3d_from_lucidrains(state_dict)
    model = Unet3D(**unet3d_config(weights))
    model.load_state_dict(weights)
    return model


def rename(theirs: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Give every tensor our key and layout; constants are compared with ours and left out."""
    ours = {}
    for key, tensor in theirs.items():
        if key.endswith("rotary_emb.freqs"):
            if not torch.allclose(tensor.float(), rotary_frequencies(2 * len(tensor)), atol=1e-6):
                raise UserError(f"{key}: frequencies other than 10000^(-2j/{2 * len(tensor)}) cannot be loaded")
        elif key in names:
            name, layout = names[key]
            ours[name] = _relayout(key, tensor, layout)
        else:
            raise UserError(f"{key}: no such tensor in video-diffusion-pytorch 0.7.0; check what the file holds")
    return ours


def _network(saved: Mapping) -> dict[str, Tensor]:
    """The network's tensors alone, out of any of the three forms that upstream saves."""
    if "ema" in saved and isinstance(saved["ema"], Mapping):
        saved = saved["ema"]
    inside = {key.removeprefix("denoise_fn."): tensor for key, tensor in saved.items() if key.startswith("denoise_fn.")}
    return inside or dict(saved)


def _names(state_dict: Mapping[str, Tensor], side: str) -> Names:
    """Every tensor of a U-Net with as many levels as state_dict has: their key -> (our key, layout)."""
    levels = _count(state_dict, side)
    names: Names = {
        "null_cond_emb": ("null_cond", ROW),
        "time_rel_pos_bias.relative_attention_bias.weight": ("position_bias.table", SAME),
    }
    for theirs, ours, kind in _modules(levels):
        names |= {f"{theirs}.{name}": (f"{ours}.{our_name}", layout) for name, (our_name, layout) in kind.items()}
    return names


def _modules(levels: int) -> Iterator[tuple[str, str, dict]]:
    """Every module: its place there, its place here, and the names of its tensors."""
    yield "init_conv", "init_conv", CONVOLUTION
    yield "init_temporal_attn", "init_temporal_attention", ATTENTION
    yield "time_mlp.1", "time_embedding.1", LINEAR
    yield "time_mlp.3", "time_embedding.3", LINEAR
    for i in range(levels):
        for side in ("down", "up"):
            theirs, ours = f"{side}s.{i}", f"{side}_levels.{i}"
            yield f"{theirs}.0", f"{ours}.block1", RESNET_BLOCK
            yield f"{theirs}.1", f"{ours}.block2", RESNET_BLOCK
            yield f"{theirs}.2", f"{ours}.linear_attention", LINEAR_ATTENTION
            yield f"{theirs}.3", f"{ours}.temporal_attention", ATTENTION
            yield f"{theirs}.4", f"{side}samples.{i}", CONVOLUTION
    yield "mid_block1", "middle.block1", RESNET_BLOCK
    yield "mid_spatial_attn", "middle.spatial_attention", ATTENTION
    yield "mid_temporal_attn", "middle.temporal_attention", ATTENTION
    yield "mid_block2", "middle.block2", RESNET_BLOCK
    yield "final_conv.0", "final_block", RESNET_BLOCK
    yield "final_conv.1", "final_conv", CONVOLUTION


def _count(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """How many entries the module list `prefix` has."""
    indices = {int(found[1]) for key in state_dict if (found := re.match(rf"{prefix}\.(\d+)\.", key))}
    if not indices:
        raise UserError(f"not the weights of a Unet3D: no key starts with {prefix!r}")
    return max(indices) + 1


def _relayout(key: str, tensor: Tensor, layout: tuple[str, str] | None) -> Tensor:
    if layout is None:
        return tensor
    try:
        return rearrange(tensor, f"{layout[0]} -> {layout[1]}")
    except EinopsError:
        raise UserError(f"{key} has shape {tuple(tensor.shape)}: expected the axes ({layout[0]})") from None


def _check(ours: Mapping[str, Tensor]) -> None:
    """Compare with the shapes of the model that these weights claim to be."""
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in Unet3D(**unet3d_config(ours)).state_dict().items()}
    for key in [*expected, *ours]:
        if key not in ours:
            raise UserError(f"the weights have no {key}: expected one of shape {tuple(expected[key])}")
        if key not in expected:
            raise UserError(f"the weights have an unknown {key} of shape {tuple(ours[key].shape)}: remove it")
        if ours[key].shape != expected[key]:
            raise UserError(f"{key} has shape {tuple(ours[key].shape)}: expected {tuple(expected[key])}")
