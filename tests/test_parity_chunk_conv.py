"""The comparison of chunked convolutions, on files of other seeds, sizes and limits, and on a wrong one."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from minivdm import parity
from minivdm.errors import UserError

REFERENCE = "hpcaitech/Open-Sora main (v2.0) opensora/models/vae/utils.py (ChannelChunkConv3d, pad_for_conv3d*)"


def padded(x, width, height, time):
    x = F.pad(x, (width, width, height, height))
    return F.pad(x, (0, 0, 0, 0, time, time), mode="replicate") if time else x


def recorded(path, shape, cout, kernel, stride, padding, limits, seed):
    """A golden file computed with plain operations only; counts by the published formulas."""
    g = torch.Generator().manual_seed(seed)
    randn = lambda *size: torch.randn(size, generator=g)  # noqa: E731
    cin = shape[1]
    tensors, cases = {}, {}
    weights = {name: randn(cout, cin, k, k, k) for name, k in {"conv": kernel, "pad3": 3, "pad1": 1, "cpad": 3}.items()}
    for name, weight in weights.items():
        inner = "" if name == "conv" else "conv."
        tensors |= {f"sd/{name}.{inner}weight": weight, f"sd/{name}.{inner}bias": randn(cout)}
    round_up = lambda n, channels: math.ceil(channels / (channels // n))  # noqa: E731
    for limit in limits:
        x = randn(*shape)
        weight, bias = weights["conv"], tensors["sd/conv.bias"]
        y = F.conv3d(x, weight, bias, stride, padding)
        n_in, n_out = round_up(math.ceil(x.numel() / limit), cin), round_up(math.ceil(y.numel() / limit), cout)
        counts = {"n_in_chunks": n_in, "n_out_chunks": n_out, "taken_chunk_path": x[0].numel() >= limit}
        outs = {"y": y, "plain": y} | {name: torch.tensor(int(value)) for name, value in counts.items()}
        plain = {"y": y, "y_nobias": F.conv3d(x, weight, None, stride, padding), "n_in_chunks": torch.tensor(n_in)}
        pads = {"y": padded(x, 1, 1, 1), "y_121": padded(x, 1, 2, 1)}
        pads |= {"y_t0": padded(x, 2, 0, 0), "y_t2": padded(x, 0, 0, 2)}
        for case, outputs in {f"conv_limit{limit}": outs, f"fn_limit{limit}": plain, f"pad_limit{limit}": pads}.items():
            cases[case] = {"limit": limit}
            tensors |= {f"{case}/in/x": x} | {f"{case}/out/{name}": value for name, value in outputs.items()}
    x = randn(*shape)
    cases |= {"padconv": {}, "chunked_ops": {"limit": x.numel() // 3}, "tables": {}}
    tensors["padconv/in/x"] = tensors["chunked_ops/in/x"] = x
    for name, module in {"k3": "pad3", "k1": "pad1", "chunked_k3": "cpad"}.items():
        around = x if name == "k1" else padded(x, 1, 1, 1)
        tensors[f"padconv/out/{name}"] = F.conv3d(around, weights[module], tensors[f"sd/{module}.conv.bias"])
    for ending in ("", "_plain"):
        tensors[f"chunked_ops/out/interp{ending or 2}"] = F.interpolate(x, scale_factor=2)
        tensors[f"chunked_ops/out/pool{ending}"] = F.avg_pool1d(x.flatten(2), 4)
    rows = [[n, channels, round_up(n, channels)] for channels in (5, 12) for n in range(1, channels + 1)]
    tensors["tables/out/ceil_to_divisible"] = torch.tensor(rows)
    tensors["tables/out/out_numel"] = torch.tensor(F.conv3d(x, weights["conv"], None, stride, padding).numel())
    config = {"cin": cin, "cout": cout, "x": shape, "kernel": kernel, "stride": stride, "padding": padding}
    metadata = {"config": json.dumps(config), "cases": json.dumps(cases), "reference": REFERENCE}
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, metadata)


@pytest.mark.parametrize(
    ("shape", "cout", "kernel", "stride", "padding", "limits"),
    [
        ((1, 5, 3, 7, 8), 9, 3, 1, 1, (10**6, 500, 300)),
        ((3, 8, 5, 6, 4), 4, 2, 2, 0, (4000, 1500, 700)),
        ((2, 4, 4, 9, 5), 12, 5, 1, 2, (900,)),
    ],
)
def test_other_seeds_sizes_and_limits(shape, cout, kernel, stride, padding, limits, tmp_path, capsys):
    recorded(tmp_path / "other.safetensors", shape, cout, kernel, stride, padding, limits, seed=sum(shape))
    assert parity.run([tmp_path / "other.safetensors"]) == 0, capsys.readouterr().out


def test_an_unknown_case_is_one_line(tmp_path):
    tensors = {"attention/in/x": torch.zeros(2), "attention/out/y": torch.zeros(2)}
    metadata = {"config": "{}", "cases": '{"attention": {}}', "reference": REFERENCE}
    save_file(tensors, tmp_path / "new.safetensors", metadata)
    with pytest.raises(UserError, match="unknown case 'attention'"):
        parity.run([tmp_path / "new.safetensors"])
