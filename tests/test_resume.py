"""Every task can be stopped after any step, and goes on as if it had not been: bit for bit."""

import json

import pytest
import torch
from any_task import CASES, SIZES, STEPS, assert_same, write_all_parts
from tiny_runs import train

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.start import make_task
from minivdm.training.trainer import Trainer


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_all_parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("case", CASES)
def test_stopping_after_every_step_equals_never_stopping(tmp_path, parts, case):
    config = load_preset("toy", SIZES | parts | CASES[case], task=case.split()[0])
    whole = Trainer(make_task(config), config, tmp_path / "whole", progress=False)
    before = torch.get_rng_state()
    whole.run()
    assert torch.equal(before, torch.get_rng_state()), "training drew from the global generator, which nobody saves"
    for step in range(1, STEPS):
        train(config, tmp_path / "parts", stop=step, resume=step > 1)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    if "critic" in case:
        assert whole.task.model.adversary.switch.is_on, "the critic never came"


def test_a_run_that_is_made_longer_equals_one_that_was_long_from_the_start(tmp_path, capsys):
    settings = SIZES | {"training.decay_from": 1.0, "training.accumulate": 1, "training.milestone_every": 100}
    longer = load_preset("toy", settings)
    train(longer, tmp_path / "long")
    train(load_preset("toy", settings | {"training.steps": 3}), tmp_path / "short")
    assert [row["step"] for row in map(json.loads, (tmp_path / "short" / "metrics.jsonl").open())] == [2, 3]
    train(longer, tmp_path / "short", resume=True)
    (tmp_path / "short" / "samples" / "step-00000003.gif").unlink()
    assert_same(tmp_path / "short", tmp_path / "long")
    assert "learning rate" not in capsys.readouterr().out


def test_a_change_of_plan_is_said(tmp_path, capsys):
    settings = SIZES | {"training.decay_from": 0.0, "training.warmup": 0, "training.learning_rate": 0.01}
    settings |= {"unet3d.captions": False}  # other clips would have other words
    train(load_preset("toy", settings), tmp_path, stop=3)
    changed = load_preset("toy", settings | {"training.steps": 9, "data.clips": 8})
    Trainer(make_task(changed), changed, tmp_path, resume=True, progress=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "from step 3 the learning rate is 0.0075, not 0.005 as planned",
        "the data set has 8 clips, not 7 as before: their order changes",
    ]


def test_samples_that_a_kill_prevented_are_drawn_when_the_run_goes_on(tmp_path):
    config = load_preset("toy", SIZES)
    train(config, tmp_path, stop=4)
    film = (tmp_path / "samples" / "step-00000004.gif").read_bytes()
    (tmp_path / "samples" / "step-00000004.gif").unlink()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed in the middle of a line
    train(config, tmp_path, resume=True)
    assert (tmp_path / "samples" / "step-00000004.gif").read_bytes() == film
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [2, 4, 6]


def test_a_checkpoint_needs_nothing_that_is_outside_of_it(tmp_path):
    config = load_preset("toy", SIZES)
    train(config, tmp_path)
    names = {path.name for path in list_checkpoints(tmp_path)[-1].iterdir()}
    assert names == {
        "model.safetensors", "ema.safetensors", "optimizer.pt", "state.json", "config.yaml", "vocabulary.json",
    }  # fmt: skip


def test_a_run_keeps_its_optimizer(tmp_path, parts):
    begun = {"training.steps": 1, "training.optimizer": "adam"}
    train(load_preset("toy", SIZES | parts | begun, task="stdit3"), tmp_path)
    changed = load_preset("toy", SIZES | parts | {"training.optimizer": "muon"}, task="stdit3")
    with pytest.raises(UserError, match="was not begun with training.optimizer muon; a run keeps its optimizer"):
        Trainer(make_task(changed), changed, tmp_path, resume=True, progress=False)
