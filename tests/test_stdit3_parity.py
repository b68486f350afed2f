import json
from dataclasses import asdict
from pathlib import Path

import pytest
import stdit3_by_hand
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from stdit3_models import SIZES, awake, inputs

from minivdm import parity
from minivdm.denoisers import STDIT3_SIZES, STDiT3, STDiT3Config

FULL_SIZES = json.loads((Path(__file__).parent / "golden" / "full_size_keys.json").read_text())


@pytest.mark.parametrize("name", STDIT3_SIZES)
def test_full_sizes_have_upstreams_weights_and_counts(name):
    with torch.device("meta"):
        model = STDiT3(STDIT3_SIZES[name])
    expected = FULL_SIZES[name]
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected["state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["parameters"]
    assert STDiT3Config.from_dict(expected["config"]) == STDIT3_SIZES[name]


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.data())
def test_parity_holds_for_other_seeds_sizes_and_masks(tmp_path_factory, data):
    """Files as the reference would write them, from formulas written a second time."""
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    heads, batch, tokens = draw(1, 3), draw(1, 3), draw(1, 5)
    fields = {
        "in_channels": draw(1, 4),
        "patch_size": [draw(1, 2), draw(1, 3), draw(1, 2)],
        "hidden_size": 8 * heads,
        "num_heads": heads,
        "depth": draw(1, 2),
        "caption_channels": draw(3, 9),
        "model_max_length": tokens,
        "qk_norm": data.draw(st.booleans()),
        "pred_sigma": data.draw(st.booleans()),
        "input_sq_size": draw(16, 80),
    }
    model = awake(seed=draw(0, 99), **fields)
    case = inputs(model, batch, (draw(1, 5), draw(1, 5), draw(1, 5)), seed=draw(0, 99))
    case["height"], case["width"] = torch.linspace(30, 90, batch), torch.linspace(70, 20, batch)
    if data.draw(st.booleans()):
        rows = data.draw(st.sampled_from([b for b in range(1, batch + 1) if batch % b == 0]))
        case["mask"] = (torch.rand(rows, tokens) < 0.5).long()
        case["mask"][:, draw(0, tokens - 1)] = 1
    if data.draw(st.booleans()):
        case["x_mask"] = torch.rand(batch, model.token_size(case["x"].shape[2:])[0]) < 0.5
    sd = {key: value.contiguous() for key, value in model.state_dict().items()}
    config = {"model": {name: value for name, value in asdict(model.config).items() if name in SIZES | fields}}
    y = stdit3_by_hand.stdit3(sd, config["model"], **case).float()
    metadata = {"config": json.dumps(config), "cases": '{"other": {}}'}
    metadata["reference"] = "hpcaitech/Open-Sora v1.2 opensora/models/stdit/stdit3.py STDiT3"
    path = tmp_path_factory.mktemp("parity") / "other.safetensors"
    stored = {f"sd/{key}": value for key, value in sd.items()} | {f"other/in/{key}": v for key, v in case.items()}
    save_file(stored | {"other/out/y": y}, path, metadata)
    assert parity.run([path]) == 0


def test_parity_of_the_blocks_holds_for_other_lengths_and_masks(tmp_path):
    dim, heads, frames, places, lens = 24, 3, 4, 5, [3, 1, 6]
    model = awake(seed=3, hidden_size=dim, num_heads=heads)
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    shared = {"x": draw(3, frames * places, dim), "y": draw(1, sum(lens), dim), "t": draw(3, 6 * dim)}
    shared |= {"t0": draw(3, 6 * dim), "x_mask": torch.rand(3, frames, generator=generator) < 0.5}
    tensors, texts = {}, shared["y"][0].double().split(lens)
    for case, name in {"spatial_xmask": "spatial_blocks.1", "temporal_xmask": "temporal_blocks.0"}.items():
        sd = parity.state_dict(model.state_dict(), f"{name}.")
        tensors |= {f"sd/{case.split('_')[0]}.{key}": value.contiguous() for key, value in sd.items()}
        tensors |= {f"{case}/in/{key}": value.clone() for key, value in shared.items()}
        sd = {f"b.{key}": value.double() for key, value in sd.items()}
        expected = []
        for b, text in enumerate(texts):
            tables = [shared["t" if moves else "t0"][b].double().reshape(6, dim) for moves in shared["x_mask"][b]]
            x = shared["x"][b].double().reshape(frames, places, dim)
            out = stdit3_by_hand.block(sd, "b", x, text, tables, heads, case == "temporal_xmask")
            expected.append(out.reshape(frames * places, dim))
        tensors[f"{case}/out/y"] = torch.stack(expected).float()
    config = {"dim": dim, "heads": heads, "batch": 3, "T": frames, "S": places, "tokens": 6, "lens": lens}
    metadata = {
        "config": json.dumps(config | {"mlp_ratio": 2.0}),
        "cases": '{"spatial_xmask": {}, "temporal_xmask": {}}',
    }
    metadata["reference"] = "hpcaitech/Open-Sora v1.2 opensora/models/layers/blocks.py + stdit3.py STDiT3Block"
    save_file(tensors, tmp_path / "blocks.safetensors", metadata)
    assert parity.run([tmp_path / "blocks.safetensors"]) == 0
