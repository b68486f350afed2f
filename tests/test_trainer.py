"""What a run leaves, and that every setting of a training does what it says. (For resuming see `test_resume.py`.)"""

import json

import pytest
import torch

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.pipelines import UnetPipeline
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.tasks import NoisePredictionTask, collate, tile
from minivdm.training.trainer import Trainer

TINY = {
    "data.clips": 7,
    "data.size": 8,
    "data.frames": 5,
    "unet3d.dim": 8,
    "unet3d.dim_mults": [1, 2],
    "unet3d.patch": 1,
    "unet3d.attn_dim_head": 8,
    "unet3d.init_kernel_size": 3,
    "training.steps": 10,
    "training.batch_size": 3,
    "training.warmup": 2,
    "training.log_every": 2,
    "training.milestone_every": 4,
    "sampling.steps": 2,
    "sampling.clips": 3,
    "diffusion.num_steps": 20,
}


def _run(folder, resume=False, **overrides):
    config = load_preset("toy", TINY | {name.replace("__", "."): value for name, value in overrides.items()})
    trainer = Trainer(NoisePredictionTask(config), config, folder, resume=resume, progress=False)
    trainer.run()
    return trainer


def test_a_run_leaves_what_a_person_wants_to_see(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _run(tmp_path / "run")
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
    trainer = _run(tmp_path / "run")
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


def test_a_run_folder_is_not_overwritten_and_nothing_is_resumed_from_nothing(tmp_path):
    _run(tmp_path / "run")
    with pytest.raises(UserError, match="already holds step-00000010; add --resume"):
        _run(tmp_path / "run")
    with pytest.raises(UserError, match="nothing to resume"):
        _run(tmp_path / "empty", resume=True)


def test_learning_rate_rises_stays_and_falls(tmp_path):
    config = load_preset(
        "toy",
        TINY
        | {"training.steps": 100, "training.warmup": 9, "training.decay_from": 0.5, "training.learning_rate": 0.01},
    )
    rate = Trainer(NoisePredictionTask(config), config, tmp_path, progress=False).learning_rate
    assert [round(rate(step), 6) for step in (0, 4, 9, 49, 75, 100)] == [0.001, 0.005, 0.01, 0.01, 0.005, 0.0]


def test_batches_that_are_accumulated_equal_one_large_batch(tmp_path):
    rows = []
    for size, accumulate in ((2, 2), (4, 1), (2, 1)):
        run = tmp_path / f"{size}x{accumulate}"
        options = {"batch_size": size, "accumulate": accumulate, "steps": 1, "log_every": 1}
        _run(run, **{f"training__{name}": value for name, value in options.items()})
        row = json.loads((run / "metrics.jsonl").read_text())
        rows.append([row["loss"], row["gradient_norm"]])
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)
    assert rows[2] != pytest.approx(rows[1], rel=1e-2)


@pytest.mark.parametrize("decay", [0.0, 0.15])
def test_the_average_is_that_of_the_weights_after_each_step(tmp_path, decay):
    config = load_preset("toy", TINY | {"training.ema_decay": decay, "training.steps": 3})
    trainer = Trainer(NoisePredictionTask(config), config, tmp_path, progress=False)
    take_step, average = trainer._optimiser_step, trainer.task.model.final_conv.weight.detach().clone()

    def watched(batches):
        nonlocal average
        taken = take_step(batches)
        now = min(decay, (1 + trainer.step) / (10 + trainer.step))
        average = now * average + (1 - now) * trainer.task.model.final_conv.weight.detach()
        return taken

    trainer._optimiser_step = watched
    trainer.run()
    torch.testing.assert_close(trainer.ema.module.final_conv.weight, average)
    assert torch.equal(trainer.ema.module.final_conv.weight, trainer.task.model.final_conv.weight) == (decay == 0)


def test_gradients_are_clipped_and_what_they_were_is_logged(tmp_path):
    """Adam does not care for the length of gradients that are all clipped, so one step of gradients is looked at."""
    norms = {}
    for limit in (1e-3, 1e3):
        config = load_preset("toy", TINY | {"training.clip_grad": limit, "training.steps": 1, "training.log_every": 1})
        trainer = Trainer(NoisePredictionTask(config), config, tmp_path / str(limit), progress=False)
        step = trainer.optimizer.step

        def look(limit=limit, trainer=trainer, step=step):
            grads = [weight.grad for weight in trainer.task.model.parameters() if weight.grad is not None]
            norms[limit] = torch.nn.utils.get_total_norm(grads).item()
            step()

        trainer.optimizer.step = look
        trainer.run()
        logged = json.loads((tmp_path / str(limit) / "metrics.jsonl").read_text())["gradient_norm"]
        assert norms[limit] == pytest.approx(min(limit, logged), rel=1e-3)
    assert 1e-3 < logged < 1e3


def test_lines_and_checkpoints_come_when_told(tmp_path):
    settings = {"log_every": 3, "milestone_every": 2, "keep_checkpoints": 3, "steps": 7}
    _run(tmp_path, **{f"training__{name}": value for name, value in settings.items()})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 7]
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["4", "6", "7"]


def test_tile_lays_clips_out_row_by_row():
    videos = torch.arange(5.0)[:, None, None, None, None].expand(5, 3, 2, 4, 6)
    tiled = tile(videos, columns=3)
    assert tiled.shape == (3, 2, 8, 18)
    assert tiled[0, 0, ::4, ::6].tolist() == [[0, 1, 2], [3, 4, -1]]
