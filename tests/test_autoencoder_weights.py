import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minivdm.convert import autoencoder_from_diffusers, autoencoder_from_upstream, autoencoder_to_diffusers
from minivdm.errors import UserError
from minivdm.vae import AutoEncoder2D
from minivdm.vae.autoencoder_kl import arguments_from_diffusers

FULL_SIZES = json.loads((Path(__file__).parent / "golden" / "full_size_keys.json").read_text())
TOY = {"ch": 4, "ch_mult": (1, 1, 2, 2), "num_res_blocks": 1, "norm_groups": 2, "quant_conv": True}
DIFFUSERS = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.42.1",
    "act_fn": "silu",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 16,
    "scaling_factor": 0.13025,
}


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return AutoEncoder2D(**TOY, scale_factor=0.13025, resolution=16).eval()


def picture():
    return torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def same(one, other):
    x = picture()
    return torch.equal(one(x, sample=False)[0], other(x, sample=False)[0])


def shapes(weights):
    return {key: list(value.shape) for key, value in weights.items()}


@pytest.mark.parametrize("name", ["AutoEncoder2D z4 (SD sizes)", "high_res", "lightweight"])
def test_every_tensor_of_the_published_sizes_has_the_name_and_shape_upstream_gives_it(name):
    recorded = FULL_SIZES[name]
    with torch.device("meta"):
        vae = AutoEncoder2D(**recorded["config"])
    assert shapes(vae.state_dict()) == recorded["state_dict"]
    assert sum(p.numel() for p in vae.parameters()) == recorded["parameters"]


def test_diffusers_names_map_onto_ours_and_back_at_full_size():
    recorded = FULL_SIZES["AutoencoderKL (SDXL VAE layout)"]
    theirs = {key: torch.empty(shape, device="meta") for key, shape in recorded["state_dict"].items()}
    with torch.device("meta"):
        vae = AutoEncoder2D(**arguments_from_diffusers(recorded["config"]))
    ours = autoencoder_from_diffusers(theirs)
    assert shapes(ours) == shapes(vae.state_dict())
    assert sum(p.numel() for p in vae.parameters()) == recorded["parameters"]
    assert shapes(autoencoder_to_diffusers(vae.state_dict())) == recorded["state_dict"]


def test_there_and_back_is_exact(vae):
    theirs = autoencoder_to_diffusers(vae.state_dict())
    back = autoencoder_from_upstream(theirs)
    assert back.keys() == vae.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in vae.state_dict().items())


def test_a_diffusers_folder_is_the_same_model(vae, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(DIFFUSERS))
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(autoencoder_to_diffusers(vae.state_dict()), file)
    loaded = AutoEncoder2D.from_diffusers(tmp_path, subfolder="vae")
    assert loaded.config.scale_factor == 0.13025 and loaded.config == vae.config and not loaded.training
    assert same(loaded, vae)
    assert same(AutoEncoder2D.from_diffusers(load_file(file), DIFFUSERS), vae)
    with pytest.raises(UserError, match="from_diffusers"):
        AutoEncoder2D.from_pretrained(tmp_path / "vae")


def test_old_diffusers_names_of_the_attention_are_known(vae):
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    theirs = {}
    for key, value in autoencoder_to_diffusers(vae.state_dict()).items():
        for new, name in old.items():
            key = key.replace(new, name)
        theirs[key] = value
    assert shapes(autoencoder_from_diffusers(theirs)) == shapes(vae.state_dict())


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "module.", "spatial_vae.module."])
def test_the_place_inside_larger_checkpoints_is_found(vae, prefix):
    others = {"model.diffusion_model.out.weight": torch.zeros(2), "epoch": 3} if prefix else {}
    weights = {prefix + key: value for key, value in vae.state_dict().items()} | others
    assert shapes(autoencoder_from_upstream(weights)) == shapes(vae.state_dict())


def test_save_and_load(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".md") == ["config.json", "model.safetensors"]
    loaded = AutoEncoder2D.from_pretrained(tmp_path)
    assert loaded.config == vae.config and loaded.norm_groups == 2 and loaded.quantised and not loaded.training
    assert same(loaded, vae)
    changed = AutoEncoder2D.from_pretrained(tmp_path, scale_factor=2.0)
    assert changed.config.scale_factor == 2.0


def test_weights_can_be_named_in_the_config(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        loaded = AutoEncoder2D(vae.config, norm_groups=2, quant_conv=True, from_pretrained=str(source)).eval()
        assert same(loaded, vae)
    loaded.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert "from_pretrained" not in saved and "cache_dir" not in saved
    assert same(AutoEncoder2D.from_pretrained(tmp_path / "again"), vae)


def _edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    "change, says",
    [
        (
            lambda weights: weights.pop("decoder.conv_in.bias"),
            r"lacks 1 of 180 tensors of AutoEncoder2D, first decoder.conv_in",
        ),
        (
            lambda weights: weights.update(extra=torch.zeros(2)),
            r"has 1 tensors too many for AutoEncoder2D, first extra",
        ),
        (
            lambda weights: weights.update({"decoder.conv_in.bias": torch.zeros(3)}),
            r"decoder.conv_in.bias in .* has shape \(3,\), AutoEncoder2D expects \(8,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_one_line(vae, tmp_path, change, says):
    vae.save_pretrained(tmp_path)
    _edit(tmp_path, change)
    with pytest.raises(UserError, match=says) as caught:
        AutoEncoder2D.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_foreign_files_and_folders_are_one_line(vae, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for source, says in {
        tmp_path / "text.safetensors": "not a readable",
        tmp_path / "empty": "holds no model.safetensors",
        tmp_path / "gone": "no such file or folder",
    }.items():
        with pytest.raises(UserError, match=says) as caught:
            AutoEncoder2D(from_pretrained=str(source), ch=4)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such tensor in diffusers"):
        autoencoder_from_diffusers(autoencoder_to_diffusers(vae.state_dict()) | {"encoder.foo.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="not the weights of an autoencoder"):
        autoencoder_to_diffusers({"a": torch.zeros(1)})
    with pytest.raises(UserError, match="norm_num_groups"):
        AutoEncoder2D.from_diffusers({})


@pytest.mark.parametrize(
    "change, says",
    [
        ({"act_fn": "gelu"}, "act_fn='gelu'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "AttnDownEncoderBlock2D"),
        ({"block_out_channels": [4, 6]}, "multiples of the first"),
        ({"latents_mean": [0.1]}, "latents_mean"),
    ],
)
def test_other_kinds_of_diffusers_autoencoders_are_refused(change, says):
    with pytest.raises(UserError, match=says):
        arguments_from_diffusers(DIFFUSERS | change)
