"""A run that stops and resumes is the run that never stopped, and what goes wrong is said in one line."""

import json
import os
import signal

import pytest
import torch
from run_weights import run_weights

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.pipelines import UnetPipeline
from minivdm.training import trainer as trainer_module
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.tasks import NoisePredictionTask, collate, tile
from minivdm.training.trainer import Interrupted, Trainer

TINY = {
    "data.clips": 7,
    "data.size": 8,
    "data.frames": 5,
    "unet3d.dim": 8,
    "unet3d.dim_mults": [1, 2],
    "unet3d.patch": 1,
    "unet3d.attn_dim_head": 8,
    "unet3d.init_kernel_size": 3,
    "training.batch_size": 3,
    "training.warmup": 2,
    "training.log_every": 2,
    "training.milestone_every": 4,
    "sampling.steps": 2,
    "sampling.clips": 3,
    "diffusion.num_steps": 20,
}


def _run(folder, steps, resume=False, **overrides):
    # the learning rate depends on the number of steps planned, so both runs plan 10 and the first is cut short
    config = load_preset("toy", TINY | {"training.steps": 10} | {k.replace("__", "."): v for k, v in overrides.items()})
    trainer = Trainer(NoisePredictionTask(config), config, folder, resume=resume, progress=False)
    if steps < 10:
        whole = trainer._milestone

        def stop_there(writer):
            whole(writer)
            if trainer.step == steps:
                raise InterruptedError

        trainer._milestone = stop_there
        with pytest.raises(InterruptedError):
            trainer.run()
    else:
        trainer.run()
    return trainer


def _numbers(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "clips_per_second"} for row in rows]


@pytest.mark.parametrize(("accumulate", "precision", "focus"), [(1, "fp32", 0.0), (2, "bf16", 0.3)])
def test_resuming_equals_never_stopping(tmp_path, accumulate, precision, focus):
    overrides = {
        "training__accumulate": accumulate,
        "training__precision": precision,
        "training__prob_focus_present": focus,
        "data__flip": True,
    }
    trainer_module.Accelerator().state._reset_state(reset_partial_state=True)
    _run(tmp_path / "whole", 10, **overrides)
    _run(tmp_path / "parts", 4, **overrides)
    _run(tmp_path / "parts", 10, resume=True, **overrides)
    trainer_module.Accelerator().state._reset_state(reset_partial_state=True)
    whole, parts = run_weights(tmp_path / "whole"), run_weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert _numbers(tmp_path / "whole") == _numbers(tmp_path / "parts")
    assert [row["step"] for row in _numbers(tmp_path / "parts")] == [2, 4, 6, 8, 10]
    optimizers = [
        torch.load(list_checkpoints(tmp_path / name)[-1] / "optimizer.pt", weights_only=True)["optimizer"]["state"]
        for name in ("whole", "parts")
    ]
    assert all(
        torch.equal(optimizers[0][i][key], optimizers[1][i][key]) for i in optimizers[0] for key in optimizers[0][i]
    )


def test_a_run_leaves_what_a_person_wants_to_see(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _run(tmp_path / "run", 10)
    assert torch.equal(before, torch.get_rng_state()), "training touched the global random state"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "config.yaml",
        "vocabulary.json",
        "metrics.jsonl",
        "loss.png",
        "samples",
        "checkpoints",
        "tensorboard",
    } <= names
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        "step-00000004.gif",
        "step-00000008.gif",
        "step-00000010.gif",
    ]
    pipeline = UnetPipeline.from_pretrained(tmp_path / "run")
    videos = pipeline(["a red ring", ""], seed=5)
    assert videos.shape == (2, 3, 5, 8, 8) and videos.abs().max() <= 1
    assert torch.equal(
        videos, UnetPipeline.from_pretrained(list_checkpoints(tmp_path / "run")[-1])(["a red ring", ""], seed=5)
    )


def test_the_loss_falls(tmp_path):
    trainer = _run(tmp_path / "run", 10)
    seeds = list(range(40, 46))
    batch = collate([trainer.task.dataset[i] for i in range(6)])
    fresh = NoisePredictionTask(trainer.config)
    with torch.no_grad():
        trained, untrained = (task.loss(task.model.eval(), batch, seeds).mean() for task in (trainer.task, fresh))
    assert trained < 0.9 * untrained


def test_each_clip_has_its_own_noise_whatever_its_neighbours(tmp_path):
    config = load_preset("toy", TINY)
    task = NoisePredictionTask(config)
    batch = collate([task.dataset[i] for i in range(5)])
    with torch.no_grad():
        together = task.loss(task.model.eval(), batch, [11, 12, 13, 14, 15])
        part = {"video": batch["video"][2:4], "caption": batch["caption"][2:4]}
        alone = task.loss(task.model, part, [13, 14])
    torch.testing.assert_close(together[2:4], alone, atol=1e-5, rtol=1e-5)
    assert together.unique().numel() == 5


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_therun_weights(tmp_path):
    config = load_preset("toy", TINY | {"training.steps": 10})
    task = NoisePredictionTask(config)
    trainer = Trainer(task, config, tmp_path / "run", progress=False)
    good = task.loss

    def broken(model, batch, seeds):
        return good(model, batch, seeds) * (float("nan") if trainer.step == 5 else 1.0)

    task.loss = broken
    with pytest.raises(UserError, match="step 5: .*nan") as error:
        trainer.run()
    assert "\n" not in str(error.value)
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000005"
    assert all(tensor.isfinite().all() for tensor in run_weights(tmp_path / "run").values())


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path):
    config = load_preset("toy", TINY | {"training.steps": 10})
    task = NoisePredictionTask(config)
    trainer = Trainer(task, config, tmp_path / "run", progress=False)
    good = task.loss

    def interrupted(model, batch, seeds):
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return good(model, batch, seeds)

    task.loss = interrupted
    with pytest.raises(Interrupted, match="--resume"):
        trainer.run()
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000003"
    _run(tmp_path / "run", 10, resume=True)
    _run(tmp_path / "whole", 10)
    assert all(
        torch.equal(a, b)
        for a, b in zip(run_weights(tmp_path / "run").values(), run_weights(tmp_path / "whole").values(), strict=True)
    )


def test_a_run_folder_is_not_overwritten_and_nothing_is_resumed_from_nothing(tmp_path):
    _run(tmp_path / "run", 10)
    with pytest.raises(UserError, match="already holds step-00000010; add --resume"):
        _run(tmp_path / "run", 10)
    with pytest.raises(UserError, match="nothing to resume"):
        _run(tmp_path / "empty", 10, resume=True)


def test_learning_rate_rises_stays_and_falls(tmp_path):
    config = load_preset(
        "toy",
        TINY
        | {"training.steps": 100, "training.warmup": 9, "training.decay_from": 0.5, "training.learning_rate": 0.01},
    )
    rate = Trainer(NoisePredictionTask(config), config, tmp_path, progress=False).learning_rate
    assert [round(rate(step), 6) for step in (0, 4, 9, 49, 75, 100)] == [0.001, 0.005, 0.01, 0.01, 0.005, 0.0]


def test_tile_lays_clips_out_row_by_row():
    videos = torch.arange(5.0)[:, None, None, None, None].expand(5, 3, 2, 4, 6)
    tiled = tile(videos, columns=3)
    assert tiled.shape == (3, 2, 8, 18)
    assert tiled[0, 0, ::4, ::6].tolist() == [[0, 1, 2], [3, 4, -1]]
