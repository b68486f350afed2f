"""Golden files of video-diffusion-pytorch's building blocks: one module per case."""

from collections.abc import Iterator

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.convert import ATTENTION, CONVOLUTION, GAIN, LINEAR_ATTENTION, NORM, RESNET_BLOCK, SAME, Names, rename
from minivdm.denoisers.attention import LinearAttention, TemporalAttention
from minivdm.denoisers.blocks import Block, ResnetBlock, RMSNorm, downsample, upsample
from minivdm.denoisers.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding
from minivdm.parity import state_dict

NORM_GAIN = {"gamma": ("weight", NORM)}
RMS_GAIN = {"gamma": ("gain", GAIN)}
POSITIONS = {"relative_attention_bias.weight": ("table", SAME)}


def _inner(names: Names, their_prefix: str, our_prefix: str = "") -> Names:
    """The part of a module that a file holds alone, such as an attention without its norm and residual."""
    return {
        key.removeprefix(their_prefix): (ours.removeprefix(our_prefix), layout)
        for key, (ours, layout) in names.items()
        if key.startswith(their_prefix)
    }


@torch.no_grad()
def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """A case is named after its module, with an optional ending: `attn_bias` runs the weights under `sd/attn.`."""
    modules = {key.removeprefix("sd/").split(".")[0] for key in tensors if key.startswith("sd/")}
    for case in cases:
        inputs = state_dict(tensors, f"{case}/in/")
        outputs = state_dict(tensors, f"{case}/out/")
        if case.startswith("sinusoidal"):
            for name, expected in outputs.items():
                yield f"{case}/out/{name}", SinusoidalEmbedding(expected.shape[1])(inputs["t"]), expected, "table"
            continue
        module = max((name for name in modules if case.startswith(name)), key=len, default=case)
        weights = state_dict(tensors, f"sd/{module}.")
        if case.startswith("relpos"):
            heads, buckets, max_distance, frames = config["relpos"][int(case.removeprefix("relpos"))]
            positions = _load(RelativePositionBias(heads, buckets, max_distance), weights, POSITIONS)
            yield f"{case}/out/bucket", positions.buckets(frames), outputs["bucket"], "exact"
            yield f"{case}/out/bias", positions(frames), outputs["bias"], "table"
        elif module == "attn":
            yield f"{case}/out/y", _temporal_attention(config, weights, inputs), outputs["y"], "layer"
        else:
            frames = rearrange(inputs["x"], "b c t h w -> (b t) c h w")
            y = _per_frame(module, config, weights, frames, inputs)
            yield f"{case}/out/y", rearrange(y, "(b t) c h w -> b c t h w", b=len(inputs["x"])), outputs["y"], "layer"


def _load(module: nn.Module, weights: dict[str, Tensor], names: Names) -> nn.Module:
    """Our module with their weights; parts that the file has not (the norm before an attention) stay as built."""
    module.load_state_dict(module.state_dict() | rename(weights, names))
    return module.eval()


def _temporal_attention(config: dict, weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
    x = inputs["x"]  # (B, pixels, T, C)
    heads, dim_head, frames = config["heads"], config["dim_head"], x.shape[2]
    attention = _load(TemporalAttention(x.shape[-1], heads, dim_head), weights, _inner(ATTENTION, "fn.fn.fn."))
    rotation = RotaryEmbedding(dim_head, config["rot"])(frames)
    bias = inputs.get("pos_bias", torch.zeros(heads, frames, frames))
    return attention.attend(x, rotation, bias, inputs.get("focus_present_mask"))


def _per_frame(module: str, config: dict, weights: dict[str, Tensor], x: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Run a module that sees single frames: x (B·T, C, H, W) -> the same with the module's width and size."""
    dim, frames = x.shape[1], len(x) // len(inputs["x"])
    match module:
        case "layernorm":
            norm = _load(nn.LayerNorm(dim, bias=False), weights, NORM_GAIN)
            return rearrange(norm(rearrange(x, "n c h w -> n h w c")), "n h w c -> n c h w")
        case "rmsnorm":
            return _load(RMSNorm(dim), weights, RMS_GAIN)(x)
        case "block":
            block = _load(Block(dim, config["dim_out"]), weights, _inner(RESNET_BLOCK, "block1.", "block1."))
            modulation = [
                repeat(inputs[name], "b c 1 1 1 -> (b t) c", t=frames) if name in inputs else None
                for name in ("scale", "shift")
            ]
            return block(x, *modulation)
        case "resnet" | "resnet_same":
            dim_out = len(weights["block1.norm.gamma"])
            embedding_dim = config["tdim"] if "time_emb" in inputs else None
            block = _load(ResnetBlock(dim, dim_out, embedding_dim), weights, RESNET_BLOCK)
            return block(x, inputs.get("time_emb"))
        case "linattn":
            attention = LinearAttention(dim, config["heads"], config["dim_head"])
            attention = _load(attention, weights, _inner(LINEAR_ATTENTION, "fn.fn."))
            tokens = attention.attend(rearrange(x, "n c h w -> n (h w) c"))
            return rearrange(tokens, "n (h w) c -> n c h w", h=x.shape[2])
        case "down":
            return _load(downsample(dim), weights, CONVOLUTION)(x)
        case "up":
            return _load(upsample(dim), weights, CONVOLUTION)(x)
    raise ValueError(f"unknown building block {module!r}")
