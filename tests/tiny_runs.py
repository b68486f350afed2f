"""Tiny trainings of the parts of text to video, and what two runs have to share to be the same run."""

import json

import pytest
import torch
from run_weights import run_weights
from video_pipelines import tiny_vae, write_t5

from minivdm.config import load_preset
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.start import make_task
from minivdm.training.trainer import Interrupted, Trainer

TINY = {
    "data.clips": 7,  # and batches of 3: every stop is in the middle of an epoch
    "data.size": 16,
    "data.frames": 5,
    "stdit3.hidden_size": 16,
    "stdit3.depth": 1,
    "stdit3.num_heads": 2,
    "stdit3.mlp_ratio": 2.0,
    "stdit3.input_sq_size": 16,
    "toy_t5.d_model": 16,
    "toy_t5.d_kv": 4,
    "toy_t5.d_ff": 24,
    "toy_t5.num_layers": 1,
    "toy_t5.num_heads": 2,
    "training.batch_size": 3,
    "training.warmup": 2,
    "training.log_every": 2,
    "training.milestone_every": 4,
    "training.steps": 10,
    "sampling.steps": 1,
    "sampling.clips": 2,
}


def write_parts(folder):
    """Settings that name a text encoder and a VAE with random weights, written to `folder`."""
    tiny_vae().save_pretrained(folder / "vae")
    return {"flow.text": str(write_t5(folder / "t5")), "flow.vae": str(folder / "vae"), "flow.cache": None}


def tiny_config(task, parts=None, **overrides):
    """The toy preset made tiny; overrides with `__` for the dot."""
    overrides = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_preset("toy", TINY | (parts or {}) | overrides, task=task)


def train(config, run, stop=None, resume=False):
    """The Trainer after its run; with `stop`, after Ctrl-C in that step."""
    trainer = Trainer(make_task(config), config, run, resume=resume, progress=False)
    if stop is None:
        trainer.run()
        return trainer
    take_step = trainer._optimiser_step

    def interrupted(batches):
        trainer._stop = trainer.step + 1 == stop
        return take_step(batches)

    trainer._optimiser_step = interrupted
    with pytest.raises(Interrupted, match=f"minivdm train {config.task}"):
        trainer.run()
    return trainer


def assert_same_runs(one, other):
    """Weights, averages, state of the optimiser and log, bit for bit."""
    weights = [run_weights(run) for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []
    states = [
        torch.load(list_checkpoints(run)[-1] / "optimizer.pt", weights_only=True)["optimizer"]["state"]
        for run in (one, other)
    ]
    assert states[0].keys() == states[1].keys() and states[0]
    assert all(torch.equal(states[0][i][key], states[1][i][key]) for i in states[0] for key in states[0][i])
    assert _log(one) == _log(other)
    assert [row["step"] for row in _log(one)] == [2, 4, 6, 8, 10]


def _log(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "clips_per_second"} for row in rows]
