import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from minivdm.convert import unet3d_config, unet3d_from_lucidrains, unet3d_of_lucidrains, unet3d_to_lucidrains
from minivdm.denoisers import Unet3D
from minivdm.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
FILES = ["ld_unet3d_nocond", "ld_unet3d_cond"]


def golden(name):
    """The reference's weights, and the arguments it was built with."""
    with safe_open(str(GOLDEN / f"{name}.safetensors"), "pt") as file:
        weights = {key.removeprefix("sd/"): file.get_tensor(key) for key in file.keys() if key.startswith("sd/")}
        return weights, json.loads(file.metadata()["config"])["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", FILES)
def test_there_and_back_is_exact(name):
    theirs, _ = golden(name)
    assert equal(unet3d_to_lucidrains(unet3d_from_lucidrains(theirs)), theirs)


@pytest.mark.parametrize(
    "changes",
    [{}, {"use_sparse_linear_attn": False, "cond_dim": 5}, {"dim_mults": (1, 2, 3), "attn_dim_head": 40}],
    ids=str,
)
def test_back_and_there_is_exact(changes):
    ours = Unet3D(**dict(dim=8, dim_mults=(1, 2), attn_heads=2, attn_dim_head=6) | changes).state_dict()
    assert equal(unet3d_from_lucidrains(unet3d_to_lucidrains(ours)), ours)


@pytest.mark.parametrize("name", FILES)
def test_arguments_are_read_off_the_shapes(name):
    theirs, built = golden(name)
    config = unet3d_config(unet3d_from_lucidrains(theirs))
    assert config.items() >= built.items()
    assert config["init_kernel_size"] == 7 and config["use_sparse_linear_attn"]
    assert not config["mask_initial_attention"] and config["spatial_dim_head"] == 32


def test_other_forms_that_the_reference_saves_are_recognised():
    theirs, _ = golden("ld_unet3d_cond")
    expected = unet3d_from_lucidrains(theirs)
    diffusion = {f"denoise_fn.{key}": value for key, value in theirs.items()} | {"betas": torch.zeros(10)}
    assert equal(unet3d_from_lucidrains(diffusion), expected)
    older = {key: torch.zeros_like(value) for key, value in diffusion.items()}
    trainer = {"step": 7, "model": older, "ema": diffusion, "scaler": {}}
    assert equal(unet3d_from_lucidrains(trainer), expected)


def test_built_model_computes_the_recorded_output():
    theirs, _ = golden("ld_unet3d_nocond")
    with safe_open(str(GOLDEN / "ld_unet3d_nocond.safetensors"), "pt") as file:
        x, time, y = (file.get_tensor(f"long/{key}") for key in ("in/x", "in/time", "out/y"))
    torch.testing.assert_close(unet3d_of_lucidrains(theirs)(x, time), y, atol=1e-5, rtol=1e-5)


def remove(key):
    return lambda weights: weights.pop(key)


def replace(key, value):
    return lambda weights: weights.update({key: value})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove("mid_block1.block1.proj.bias"), "no middle.block1.block1.conv.bias.*32"),
        (remove("init_conv.weight"), "init_conv.weight"),
        (replace("extra.weight", torch.zeros(2)), "extra.weight: no such tensor"),
        (replace("init_conv.bias", torch.zeros(17)), r"init_conv.bias.*\(17,\).*\(16,\)"),
        (replace("downs.0.4.weight", torch.zeros(16, 16, 3, 4, 4)), r"downs.0.4.weight.*\(16, 16, 3, 4, 4\)"),
        (replace("init_temporal_attn.fn.fn.fn.rotary_emb.freqs", torch.ones(16)), "frequencies"),
    ],
)
def test_damaged_weights_are_named_in_one_line(damage, says):
    theirs, _ = golden("ld_unet3d_nocond")
    damage(theirs)
    with pytest.raises(UserError, match=says) as caught:
        unet3d_from_lucidrains(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("convert", [unet3d_from_lucidrains, unet3d_to_lucidrains])
@pytest.mark.parametrize("weights", [{}, {"weight": torch.zeros(2, 3)}], ids=["empty", "another model"])
def test_weights_of_something_else_are_refused(convert, weights):
    with pytest.raises(UserError, match="not the weights of a Unet3D"):
        convert(weights)


def test_export_of_damaged_weights_is_refused():
    ours = Unet3D(dim=8, dim_mults=(1, 2), attn_heads=2).state_dict()
    ours["final_conv.bias"] = torch.zeros(5)
    with pytest.raises(UserError, match=r"final_conv.bias has shape \(5,\): expected \(3,\)"):
        unet3d_to_lucidrains(ours)
