"""Golden files of the parts of Open-Sora 1.2's `STDiT3`: one module per case."""

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minivdm.denoisers.dit_blocks import CrossAttention, FinalLayer, HeadNorm, SelfAttention, STDiT3Block, per_frame
from minivdm.denoisers.dit_embeddings import (
    CaptionEmbedder,
    FrameRotation,
    PatchEmbed3D,
    SizeEmbedder,
    TimestepEmbedder,
    position_embedding_2d,
    rotate_pairs,
    sinusoid,
)
from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.parity_kinds.rounding import of_a_sinusoid, per_rounding
from minivdm.weights import load_weights

TINY = 0.02  # what `attn_norm_tiny` multiplies the projection with, to make the epsilon of the norm count


@torch.no_grad()
def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """A case is named after its module, with an optional ending: `cross_full` runs the weights under `sd/cross.`."""
    modules = {key.removeprefix("sd/").split(".")[0] for key in tensors if key.startswith("sd/")}
    for case in cases:
        inputs, outputs = state_dict(tensors, f"{case}/in/"), state_dict(tensors, f"{case}/out/")
        module = max((name for name in modules if case.startswith(name)), key=len, default=case)
        weights = state_dict(tensors, f"sd/{module}.")
        for name, ours, kind in _outputs(case, module, config, weights, inputs, outputs):
            expected = tensors[f"{case}/out/{name}"]
            if module == "t_embedder" and name.startswith("freq"):
                ours, expected = per_rounding(ours, expected, of_a_sinusoid(inputs["t"], ours.shape[1]))
            yield f"{case}/out/{name}", ours, expected, kind


def _load(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    load_weights(module, weights, "the file")
    return module.eval()


def _outputs(
    case: str,
    module: str,
    config: dict,
    weights: dict[str, Tensor],
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> Iterator[tuple[str, Tensor, str]]:
    """Name, our value and tolerance of each output of a case."""
    x = inputs.get("x")
    if module.startswith("pos"):
        rows, columns, scale, base = config["pos"][int(module.removeprefix("pos"))]
        yield "emb", position_embedding_2d(config["dim"], (rows, columns), torch.tensor([scale]), base), "table"
    elif module.startswith("rope"):
        rotation = FrameRotation(x.shape[-1])
        yield "y", rotate_pairs(x, rotation(x.shape[-2])), "layer"
        yield "freqs", rotation.freqs, "table"
    elif module == "t_embedder":
        embedder = _load(TimestepEmbedder(config["dim"], config["freq"]), weights)
        for name in [name for name in outputs if name.startswith("freq")]:
            yield name, sinusoid(inputs["t"], outputs[name].shape[1]), "table"
        yield "y", embedder(inputs["t"]), "layer"
    elif module == "caption":
        embedder = _load(CaptionEmbedder(config["cap_channels"], config["dim"], config["tokens"]), weights)
        drop = inputs["force_drop_ids"] == 1 if "force_drop_ids" in inputs else None
        y = rearrange(embedder(rearrange(inputs["y"], "b 1 l c -> b l c"), drop), "b l c -> b 1 l c")
        for name in outputs:  # in evaluation and in training alike
            yield name, y, "layer"
    else:
        yield "y", _forward(case, module, config, weights, inputs, outputs), "layer"


def _forward(
    case: str,
    module: str,
    config: dict,
    weights: dict[str, Tensor],
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> Tensor:
    """The only output of a module's case."""
    dim, heads, x = config["dim"], config["heads"], inputs.get("x")
    match module:
        case "rms":
            return _load(HeadNorm(dim), weights)(x)
        case "patch":
            tokens = _load(PatchEmbed3D(config["patch"], config["in_channels"], dim), weights)(x)
            return rearrange(tokens, "b d t h w -> b (t h w) d")
        case "size":
            return _load(SizeEmbedder(dim, config["freq"]), weights)(inputs["s"], len(outputs["y"]))
        case "cross":
            y, mask = _texts(inputs["cond"], _lengths(case, config), len(x))
            return _load(CrossAttention(dim, heads), weights)(x, y, mask)
        case "attn_plain" | "attn_norm" | "attn_rope" | "attn_legacy":
            return _self_attention(case, module, weights, heads, x)
        case "final":
            layer = _load(FinalLayer(dim, len(weights["linear.bias"]), double_modulate=True), weights)
            frames = rearrange(x, "b (t s) d -> b t s d", s=config["S"])
            out = layer(frames, inputs["t"], inputs.get("x_mask"), inputs.get("t0"))
            return rearrange(out, "b t s d -> b (t s) d")
        case "spatial" | "temporal":
            y, mask = _texts(inputs["y"], config["lens"], len(x))
            block = STDiT3Block(dim, heads, config["mlp_ratio"], temporal=module == "temporal")
            frames = rearrange(x, "b (t s) d -> b t s d", s=config["S"])
            modulation = per_frame(inputs["t"], inputs.get("x_mask"), inputs.get("t0"))
            rotation = FrameRotation(dim // heads)(frames.shape[1]) if module == "temporal" else None
            return rearrange(_load(block, weights)(frames, y, modulation, mask, rotation), "b t s d -> b (t s) d")
    raise UserError(f"unknown case {case!r}: expected a part of STDiT3, such as cross, spatial or final")


def _self_attention(case: str, module: str, weights: dict[str, Tensor], heads: int, x: Tensor) -> Tensor:
    norm, legacy = "q_norm.weight" in weights, module == "attn_legacy"
    attention = SelfAttention(x.shape[-1], heads, qkv_bias="qkv.bias" in weights, qk_norm=norm, rotate_first=legacy)
    _load(attention, weights)
    if case.endswith("_tiny"):
        for parameter in attention.qkv.parameters():
            parameter.mul_(TINY)
    rotated = legacy or module == "attn_rope"
    return attention(x, FrameRotation(x.shape[-1] // heads)(x.shape[1]) if rotated else None)


def _lengths(case: str, config: dict) -> Sequence[int] | None:
    if case.endswith("_nomask"):
        return None
    return [config["tokens"]] * config["batch"] if case.endswith("_full") else config["lens"]


def _texts(packed: Tensor, lengths: Sequence[int] | None, batch: int) -> tuple[Tensor, Tensor | None]:
    """Captions packed into one row (1, sum of lengths, D) -> (B, L, D) and which are there: (B, L) bool.

    Without lengths every clip of the reference sees all texts of the batch, which is one long text for each.
    """
    if lengths is None:
        return repeat(packed, "1 l d -> b l d", b=batch), None
    texts = packed[0].split(list(lengths))
    there = [torch.ones(len(text), dtype=torch.bool) for text in texts]
    return pad_sequence(list(texts), batch_first=True), pad_sequence(there, batch_first=True)
