"""What is published is what was trained, says what it measured, and has latents of mean 0 and variance 1."""

import json
import math

import pytest
import torch

from minivdm.config import load_preset
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.errors import UserError
from minivdm.pipelines import load_video_autoencoder
from minivdm.training import evaluate_vae as evaluation
from minivdm.training import publish_vae as publication
from minivdm.training.latents import find_vae2d
from minivdm.training.publish_vae import publish_vae
from minivdm.training.start import make_task
from minivdm.training.trainer import Trainer
from minivdm.vae import AutoEncoder2D, VideoAutoencoder

TINY = {
    "data.clips": 6,
    "data.size": 16,
    "data.frames": 6,
    "vae2d.ch": 8,
    "vae2d.ch_mult": [1, 2],
    "temporal_vae.filters": 8,
    "temporal_vae.num_groups": 4,
    "training.batch_size": 2,
    "training.steps": 2,
}


def _published(task, root, monkeypatch, **overrides):
    monkeypatch.setattr(publication, "STATISTICS_FROM", 8)
    config = load_preset("toy", TINY | overrides, task=task)
    Trainer(make_task(config), config, root / f"run-{task}", progress=False).run()
    publish_vae(root / f"run-{task}", root / task, clips=2, machine="In no time.")
    return root / task


def test_both_vaes_are_published_and_fit_together(tmp_path, monkeypatch):
    pictures = _published("vae2d", tmp_path, monkeypatch)
    films = _published("temporal_vae", tmp_path, monkeypatch, **{"vae_loss.vae2d": str(pictures)})
    for folder in (pictures, films):
        card = (folder / "MODEL_CARD.md").read_text()
        assert "In no time." in card and "2 steps" in card and "| scene of 3 |" in card
        assert {"config.json", "config.yaml", "model.safetensors", "samples.gif", "evaluation.json"} <= {
            path.name for path in folder.iterdir()
        }
    data = FireworksDataset(8, "scene", "train", 6, 16, 0)
    clips = torch.stack([item["video"] for item in data])
    vae2d = AutoEncoder2D.from_pretrained(pictures)
    with torch.no_grad():
        z = vae2d.encode(clips, sample=False)
        assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
        vae = load_video_autoencoder(films, vae2d)
        z = vae.encode(clips, sample=False)
        means, deviations = z.transpose(0, 1).flatten(1).mean(1), z.transpose(0, 1).flatten(1).std(1)
        assert means.abs().max() < 0.01 and (deviations - 1).abs().max() < 0.01
        assert vae.decode(z, num_frames=6).shape == clips.shape


def test_the_shipped_pair_loads_and_shrinks_as_its_card_says():
    vae = load_video_autoencoder("toy")
    assert vae.get_latent_size((17, 32, 32)) == (5, 8, 8)
    assert not any(weight.requires_grad for weight in vae.vae2d.parameters())
    assert find_vae2d("toy").config == vae.vae2d.config


def test_a_saved_pair_loads_as_well(tmp_path):
    vae = VideoAutoencoder(AutoEncoder2D(ch=8, ch_mult=(1, 2), num_res_blocks=1), shift=0.5, scale=2.0)
    vae.save_pretrained(tmp_path / "pair")
    assert load_video_autoencoder(tmp_path / "pair").scale.unique().tolist() == [2.0]
    with pytest.raises(UserError):
        load_video_autoencoder(tmp_path)


def test_a_vae_that_loses_nothing_is_graded_perfect(monkeypatch):
    results = evaluation.evaluate_vae(lambda clips: clips, clips=6, frames=17, size=32)
    assert set(results) == set(evaluation.KINDS)
    for result in results.values():
        assert result["psnr"] == result["psnr_lit"] == math.inf and result["ssim"] == pytest.approx(1)
        assert result["judged"] == result["rendered"]
    assert results["single"]["judged"]["joint"] == 1
    assert json.loads(json.dumps(results))["single"]["clips"] == 6
    assert evaluation.as_table(results).count("\n") == 1 + len(results)


def test_a_vae_that_gives_back_the_sky_scores_well_only_where_nothing_is_lit():
    result = evaluation.evaluate_vae(lambda clips: torch.full_like(clips, -0.97), clips=6, frames=17, size=32)["single"]
    assert result["psnr"] > 20 and result["psnr_lit"] < 11 and result["judged"]["joint"] == 0
