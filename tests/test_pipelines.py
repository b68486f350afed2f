"""From prompts to films: repeatable, guided, and clear about folders that hold no model."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.pipelines import UnetPipeline, pick_device
from minivdm.text.words import BagOfWords

TINY = {
    "data.size": 8,
    "data.frames": 5,
    "unet3d.dim": 8,
    "unet3d.dim_mults": [1, 2],
    "unet3d.attn_dim_head": 8,
    "unet3d.init_kernel_size": 3,
    "diffusion.num_steps": 30,
    "sampling.steps": 4,
}


@pytest.fixture(scope="module")
def pipeline() -> UnetPipeline:
    torch.manual_seed(0)
    pipeline = UnetPipeline.from_config(load_preset("toy", TINY), BagOfWords(["blue", "red", "ring"]))
    pipeline.unet.eval()
    return pipeline


def test_same_seed_same_film_and_another_seed_another(pipeline):
    first, again, other = (pipeline(["a red ring", "blue"], seed=seed) for seed in (7, 7, 8))
    assert first.shape == (2, 3, 5, 8, 8)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.abs().max() <= 1


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpmpp"])
def test_every_sampler_runs_and_repeats(pipeline, method):
    films = [pipeline(["red"], method=method, steps=3, seed=1) for _ in range(2)]
    assert torch.equal(*films) and films[0].isfinite().all()


def test_a_film_does_not_depend_on_its_neighbours(pipeline):
    together, alone = pipeline(["red", "blue ring"], seed=3), pipeline(["red"], seed=3)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def test_guidance_1_is_the_conditional_model_and_an_empty_prompt_the_unconditional_one(pipeline):
    one, two, nearly_one = (pipeline(["red"], guidance=g, seed=2) for g in (1.0, 2.0, 1.0 + 1e-7))
    assert not torch.allclose(one, two)
    torch.testing.assert_close(one, nearly_one, atol=1e-4, rtol=1e-4)
    empty = pipeline([""], guidance=3.0, seed=2)
    torch.testing.assert_close(pipeline(["red"], guidance=0.0, seed=2), empty, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pipeline(["", "red"], guidance=3.0, seed=2)[:1], empty, atol=1e-4, rtol=1e-4)


def test_words_change_the_film(pipeline):
    assert not torch.allclose(pipeline(["red"], seed=2), pipeline(["blue"], seed=2))


def test_folders_without_a_model_are_one_line(pipeline, tmp_path):
    with pytest.raises(UserError, match="no trained model"):
        UnetPipeline.from_pretrained(tmp_path)
    pipeline.save_settings(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"hello")
    with pytest.raises(UserError, match="cannot read weights"):
        UnetPipeline.from_pretrained(tmp_path)
    safetensors.torch.save_file({"wrong": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="do not fit") as error:
        UnetPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_survive_a_folder_also_in_half_precision(pipeline, tmp_path):
    pipeline.save_settings(tmp_path)
    weights = {name: tensor.half() for name, tensor in pipeline.unet.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    back = UnetPipeline.from_pretrained(shutil.copytree(tmp_path, tmp_path.with_name("elsewhere")))
    assert back.config == pipeline.config and json.dumps(back.words.vocabulary) == '["blue", "red", "ring"]'
    assert next(back.unet.parameters()).dtype == torch.float32
    torch.testing.assert_close(back(["red"], seed=4), pipeline(["red"], seed=4), atol=0.02, rtol=0)


def test_each_of_several_processes_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device() == torch.device("cuda", 3)
