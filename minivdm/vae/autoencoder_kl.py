"""Names of an autoencoder's weights elsewhere, and ours.

Open-Sora 2, Flux and the original Stable Diffusion name the layers as we do. diffusers' `AutoencoderKL` names the same
layers by another tree, counts the decoder's levels from the other end, and stores the attention's 1×1 convolutions as
matrices. All of that is renaming and reshaping, so both directions are exact inverses.
"""

import re
from collections.abc import Iterator, Mapping

from einops import rearrange
from torch import Tensor

from minivdm.errors import UserError

# Where other programs put the autoencoder inside larger checkpoints.
PREFIXES = ("first_stage_model.", "spatial_vae.module.", "module.", "vae.")

RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.14


def autoencoder_from_upstream(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of Open-Sora 2, Stable Diffusion, Flux or diffusers -> one for `AutoEncoder2D`. Also takes ours."""
    weights = {key: value for key, value in state_dict.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if inside := {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}:
            weights = inside
    if any(".down_blocks." in key for key in weights):
        return autoencoder_from_diffusers(weights)
    return weights


def autoencoder_from_diffusers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of diffusers' `AutoencoderKL`, of any version -> one for `AutoEncoder2D`."""
    names = dict(_modules(_count(state_dict, r"encoder\.down_blocks\.(\d+)"), _blocks(state_dict, "resnets")))
    ours = {}
    for key, tensor in state_dict.items():
        module, _, parameter = key.rpartition(".")
        attention, _, last = module.rpartition(".")
        if last in OLD_ATTENTION:
            module = f"{attention}.{OLD_ATTENTION[last]}"
        if module not in names:
            raise UserError(f"{key}: no such tensor in diffusers' AutoencoderKL; check what the file holds")
        if ".attentions." in module and parameter == "weight" and tensor.ndim == 2:
            tensor = rearrange(tensor, "o i -> o i 1 1")
        ours[f"{names[module]}.{parameter}"] = tensor
    return ours


def autoencoder_to_diffusers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `AutoEncoder2D` -> one for diffusers' `AutoencoderKL`: the exact inverse."""
    pairs = _modules(_count(state_dict, r"encoder\.down\.(\d+)"), _blocks(state_dict, "block"))
    names = {ours: theirs for theirs, ours in pairs}
    theirs = {}
    for key, tensor in state_dict.items():
        module, _, parameter = key.rpartition(".")
        if module not in names:
            raise UserError(f"{key}: no such tensor in AutoEncoder2D; check what the file holds")
        if ".attentions." in names[module] and tensor.ndim == 4:
            tensor = rearrange(tensor, "o i 1 1 -> o i")
        theirs[f"{names[module]}.{parameter}"] = tensor
    return theirs


def arguments_from_diffusers(config: Mapping) -> dict:
    """`config.json` of diffusers' `AutoencoderKL` -> the arguments of `AutoEncoder2D`, with its own scale_factor."""
    widths = config.get("block_out_channels", (64,))
    quant = {config.get(name, True) for name in ("use_quant_conv", "use_post_quant_conv")}
    fixed = {"act_fn": "silu", "mid_block_add_attention": True, "latents_mean": None, "latents_std": None}
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise UserError(f"AutoencoderKL with {name}={config[name]!r} cannot be loaded: expected {value!r}")
    kinds = {*config.get("down_block_types", ()), *config.get("up_block_types", ())}
    if unknown := sorted(kinds - {"DownEncoderBlock2D", "UpDecoderBlock2D"}):
        raise UserError(f"AutoencoderKL with {unknown[0]} cannot be loaded: expected DownEncoderBlock2D and the like")
    if any(width % widths[0] for width in widths) or len(quant) > 1:
        raise UserError(f"AutoencoderKL of widths {list(widths)} cannot be loaded: expected multiples of the first")
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    return {
        "resolution": config.get("sample_size", 32),
        "in_channels": config.get("in_channels", 3),
        "out_ch": config.get("out_channels", 3),
        "ch": widths[0],
        "ch_mult": tuple(width // widths[0] for width in widths),
        "num_res_blocks": config.get("layers_per_block", 1),
        "z_channels": config.get("latent_channels", 4),
        "scale_factor": 0.18215 if scale is None else scale,
        "shift_factor": 0.0 if shift is None else shift,
        "norm_groups": config.get("norm_num_groups", 32),
        "quant_conv": quant.pop(),
    }


def _modules(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Every layer with parameters: (its name in diffusers, our name). The decoder has one block more a level."""
    for side, down, up in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        yield f"{side}.conv_in", f"{side}.conv_in"
        yield f"{side}.conv_norm_out", f"{side}.norm_out"
        yield f"{side}.conv_out", f"{side}.conv_out"
        for j in (0, 1):
            yield from _inside(f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}", RESNET)
        yield from _inside(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", ATTENTION)
        for i in range(levels):
            # theirs counts levels in the order they run, ours from the level of the picture's own size
            theirs = f"{side}.{down}_blocks.{i if side == 'encoder' else levels - 1 - i}"
            for j in range(blocks + (side == "decoder")):
                yield from _inside(f"{theirs}.resnets.{j}", f"{side}.{down}.{i}.block.{j}", RESNET)
            yield f"{theirs}.{up}rs.0.conv", f"{side}.{down}.{i}.{up}.conv"
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"


def _inside(theirs: str, ours: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, our_name in names.items():
        yield f"{theirs}.{name}", f"{ours}.{our_name}"


def _blocks(state_dict: Mapping[str, Tensor], name: str) -> int:
    """Residual blocks per level of the encoder."""
    return _count(state_dict, rf"encoder\.down[^.]*\.0\.{name}\.(\d+)")


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    indices = {int(found[1]) for key in state_dict if (found := re.match(rf"{pattern}\.", key))}
    if not indices:
        raise UserError("not the weights of an autoencoder of pictures: no key names a level of its encoder")
    return max(indices) + 1
