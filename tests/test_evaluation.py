"""What a model card says is computed from films, and the sums are right."""

import pytest
import torch

from minivdm.config import load_preset
from minivdm.data.fireworks import Scene, Shell
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.pipelines import UnetPipeline
from minivdm.text.words import BagOfWords
from minivdm.training import evaluation
from minivdm.training.evaluation import distance, evaluate, shares


def test_shares_count_shells_and_not_scenes():
    red, blue = (Shell(colour, "ring", "left", "high", "small", 4.0) for colour in ("red", "blue"))
    assert shares([Scene((red, blue)), Scene((red,))])["colour"] == {"blue": 0.333, "red": 0.667}


def test_distance_is_the_share_that_would_have_to_change():
    assert distance({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}) == 0
    assert distance({"a": 1.0}, {"b": 1.0}) == 1
    assert distance({"a": 0.7, "b": 0.3}, {"a": 0.5, "b": 0.25, "c": 0.25}) == pytest.approx(0.25)


def test_a_model_that_draws_what_is_asked_gets_full_marks_and_a_black_one_none(monkeypatch):
    config = load_preset("toy", {"unet3d.dim": 8, "unet3d.dim_mults": [1, 2], "data.frames": 17, "sampling.steps": 1})
    pipeline = UnetPipeline.from_config(config, BagOfWords(["red"]))
    tests = FireworksDataset(12, split="test", frames=17, seed=1)
    films = torch.stack([item["video"] for item in tests])

    def perfect(pipeline, prompts, seed):
        return films

    monkeypatch.setattr(evaluation, "draw", perfect)
    results = evaluate(pipeline, 12)
    assert results["prompted"]["joint"] == results["rendered"]["joint"] >= 0.9
    assert results["prompted"]["legal"] >= 0.9
    assert 0 <= results["joint_seen"] <= 1 and 0 <= results["joint_held_out"] <= 1

    dark = torch.full_like(films, -1.0)
    dark[0] = films[0]
    monkeypatch.setattr(evaluation, "draw", lambda pipeline, prompts, seed: dark)
    assert evaluate(pipeline, 12)["prompted"]["joint"] <= 1 / 12
