"""The five tasks at their tiniest, and all that a run leaves, for whoever compares two runs."""

import json

import torch
from run_weights import run_weights
from tiny_runs import TINY, write_parts

from minivdm.training.checkpoint import list_checkpoints
from minivdm.vae.autoencoder2d import AutoEncoder2D

STEPS = 6
SIZES = TINY | {
    "unet3d.dim": 8,
    "unet3d.dim_mults": [1, 2],
    "unet3d.attn_dim_head": 8,
    "vae2d.ch": 8,
    "vae2d.ch_mult": [1, 2],
    "temporal_vae.filters": 8,
    "temporal_vae.num_groups": 4,
    "vae_loss.critic_width": 4,
    "vae_loss.critic_layers": 1,
    "vae_loss.critic_penalty": 1.0,
    "vae_loss.plateau_steps": 2,
    "vae_loss.plateau_gain": 1.0,  # any gain is too little: the critic comes after the second window
    "training.steps": STEPS,
    "training.accumulate": 2,
    "training.milestone_every": 4,
    "diffusion.num_steps": 20,
}
CASES = {
    "unet3d": {"training.prob_focus_present": 0.3, "data.flip": True},
    "unet3d in bf16": {"training.precision": "bf16", "training.accumulate": 1},
    "vae2d": {},
    "vae2d with a critic in bf16": {"vae_loss.critic": "hinge", "training.precision": "bf16"},
    "temporal_vae with a critic": {"vae_loss.critic": "vanilla", "data.frames": 7, "vae_loss.images": 0.0},
    "stdit3": {"flow.image_head": 0.3, "flow.image_tail": 0.2},
    "stdit3 with muon": {"training.optimizer": "muon"},
    "toy_t5": {},
    "toy_t5 listing": {"toy_t5.objective": "listing"},
    "toy_t5 of spans": {"toy_t5.objective": "spans", "training.accumulate": 1},
}


def write_all_parts(folder):
    """Settings that name finished parts with random weights, for the tasks that stand on some; written to `folder`."""
    torch.manual_seed(0)
    AutoEncoder2D(ch=8, ch_mult=(1, 2), num_res_blocks=1, scale_factor=1.0).save_pretrained(folder / "vae2d")
    return write_parts(folder) | {"vae_loss.vae2d": str(folder / "vae2d")}


def contents(run):
    """All that a finished run is: tensors and numbers, by name."""
    saved = torch.load(list_checkpoints(run)[-1] / "optimizer.pt", weights_only=True)["optimizer"]
    moments = {f"{i}.{name}": value for i, entry in saved["state"].items() for name, value in entry.items()}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    numbers = [{name: repr(value) for name, value in row.items() if name != "clips_per_second"} for row in rows]
    state = json.loads((list_checkpoints(run)[-1] / "state.json").read_text())
    return run_weights(run), moments, [group["lr"] for group in saved["param_groups"]], numbers, state["next_rate"]


def assert_same(one, other):
    for tensors, expected in zip(contents(one)[:2], contents(other)[:2], strict=True):
        assert tensors.keys() == expected.keys() and tensors
        assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []
    assert contents(one)[2:] == contents(other)[2:]
    films = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (one, other)]
    assert films[0] == films[1] and films[0]
