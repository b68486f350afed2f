"""Golden files of Open-Sora 2.0's convolutions, paddings and resizings in chunks of channels."""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.vae.chunked_conv import ChannelChunkConv3D, Geometry, ceil_to_divisible, conv3d_in_chunks
from minivdm.vae.chunked_ops import (
    PadConv3D,
    chunked_avg_pool1d,
    chunked_interpolate,
    pad_for_conv3d,
    pad_for_conv3d_kernel_3x3x3,
)

Outputs = Iterator[tuple[str, Tensor, str]]  # name, our value, tolerance


@torch.no_grad()
def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """A case is named after its family, with the limit at the end: `conv_limit480`."""
    for case, settings in cases.items():
        family = next((name for name in _FAMILIES if case.startswith(name)), None)
        if family is None:
            raise UserError(f"unknown case {case!r}: known are {', '.join(_FAMILIES)}, with a limit")
        inputs, outputs = state_dict(tensors, f"{case}/in/"), state_dict(tensors, f"{case}/out/")
        for name, ours, kind in _FAMILIES[family](config, settings, tensors, inputs, outputs):
            yield f"{case}/out/{name}", ours, tensors[f"{case}/out/{name}"], kind


def _conv(config: dict, tensors: dict[str, Tensor], limit: int, gate: str = "both") -> ChannelChunkConv3D:
    """The file's convolution as ours, with a limit and a gate."""
    weights = state_dict(tensors, "sd/conv.")
    sizes = (config["kernel"], config["stride"], config["padding"])
    sizes = [tuple(size) if isinstance(size, list) else size for size in sizes]
    options = {"bias": "bias" in weights, "numel_limit": limit, "gate": gate}
    conv = ChannelChunkConv3D(config["cin"], config["cout"], *sizes, **options)
    conv.load_state_dict(weights)
    return conv


def _class(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    x, limit = inputs["x"], settings["limit"]
    theirs = _conv(config, tensors, limit, "upstream")
    n_in, n_out = theirs.upstream_counts(x.shape)
    yield "n_in_chunks", torch.tensor(n_in), "exact"
    yield "n_out_chunks", torch.tensor(n_out), "exact"
    yield "taken_chunk_path", torch.tensor(int(theirs.passes_gate(x.shape))), "exact"
    yield "plain", _conv(config, tensors, 2**31)(x), "layer"
    # Their chunks and ours: `y` has to come out of both.
    yield "y", theirs(x), "layer"
    yield "y", _conv(config, tensors, limit)(x), "layer"


def _function(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    x, theirs = inputs["x"], _conv(config, tensors, settings["limit"], "upstream")
    counts = theirs.upstream_counts(x.shape)
    yield "n_in_chunks", torch.tensor(counts[0]), "exact"
    for name, bias in (("y", theirs.bias), ("y_nobias", None)):
        geometry = Geometry(theirs.kernel_size, theirs.stride, theirs.padding)
        yield name, conv3d_in_chunks(x, theirs.weight, bias, *counts, geometry), "layer"


def _padding(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    x, limit = inputs["x"], settings["limit"]
    yield "y", pad_for_conv3d_kernel_3x3x3(x, numel_limit=limit), "table"
    for name, amounts in {"y_121": (1, 2, 1), "y_t0": (2, 0, 0), "y_t2": (0, 0, 2)}.items():
        yield name, pad_for_conv3d(x, *amounts, numel_limit=limit), "table"


def _padded_conv(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    x = inputs["x"]
    for name, module in {"k3": "pad3", "k1": "pad1", "chunked_k3": "cpad"}.items():
        weights = state_dict(tensors, f"sd/{module}.")
        limit = x.numel() // 2 if name.startswith("chunked") else 2**31
        conv = PadConv3D(config["cin"], config["cout"], weights["conv.weight"].shape[-1], numel_limit=limit)
        conv.load_state_dict(weights)
        yield name, conv(x), "layer"


def _operations(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    x, limit = inputs["x"], settings["limit"]
    flat = rearrange(x, "b c t h w -> b c (t h w)")
    for ending, numel_limit in {"": limit, "_plain": 2**31}.items():
        yield f"interp{ending or 2}", chunked_interpolate(x, 2.0, numel_limit=numel_limit), "table"
        yield f"pool{ending}", chunked_avg_pool1d(flat, 4, 4, numel_limit=numel_limit), "table"


def _tables(config: dict, settings: dict, tensors: dict, inputs: dict, outputs: dict) -> Outputs:
    rows = outputs["ceil_to_divisible"][:, :2].tolist()
    ours = [[n, channels, ceil_to_divisible(n, channels, divide=False)] for n, channels in rows]
    yield "ceil_to_divisible", torch.tensor(ours), "exact"
    if "out_numel" in outputs:
        shape = config["x"]
        conv = _conv(config, tensors, 2**31)
        yield "out_numel", torch.tensor(conv.geometry.numel(shape, config["cout"])[1]), "exact"


_FAMILIES = {
    "conv_limit": _class,
    "fn_limit": _function,
    "pad_limit": _padding,
    "padconv": _padded_conv,
    "chunked_ops": _operations,
    "tables": _tables,
}
