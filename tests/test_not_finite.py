"""A loss or gradient that is no number: who is to blame is named, and nothing of the step remains."""

import json
import re

import pytest
import torch
from any_task import SIZES, assert_same, write_all_parts
from run_weights import run_weights
from tiny_runs import train
from torch import nn

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.not_finite import first_broken
from minivdm.training.start import make_task
from minivdm.training.trainer import MOST_LEFT_OUT, Interrupted, Trainer

CRITIC = {"vae_loss.critic": "hinge", "vae_loss.plateau_steps": 1}


class Spoilt(torch.utils.data.Dataset):
    """A data set in which some clips are not numbers."""

    def __init__(self, dataset, bad):
        self.dataset, self.bad = dataset, bad

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, which):
        item = self.dataset[which]
        return item | {"video": item["video"] * float("nan")} if which[0] in self.bad else item

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def spoilt_trainer(config, run, bad, resume=False):
    task = make_task(config)
    task.dataset = Spoilt(task.dataset, bad)
    return Trainer(task, config, run, resume=resume, progress=False)


def clips_of_step(trainer, step):
    """Indices of the clips in the batches of a step."""
    accumulate = trainer.config.training.accumulate
    return [
        int(name.split()[1])
        for number in range(step * accumulate, (step + 1) * accumulate)
        for name in trainer._batches.again(number)[1]
    ]


def run_until(trainer, stop):
    """As after Ctrl-C in step `stop`."""
    take_step = trainer._optimiser_step

    def interrupted(batches):
        trainer._stop = trainer.step + 1 == stop
        return take_step(batches)

    trainer._optimiser_step = interrupted
    with pytest.raises(Interrupted):
        trainer.run()


def test_the_module_and_the_clip_are_named(tmp_path):
    config = load_preset("toy", SIZES)
    bad = clips_of_step(spoilt_trainer(config, tmp_path, set()), 1)[0]  # the last one of the first epoch
    trainer = spoilt_trainer(config, tmp_path, {bad})
    with pytest.raises(UserError) as error:
        trainer.run()
    line = str(error.value)
    assert "\n" not in line and re.match(rf"step 1: the output of \S*init_conv is not finite at clip {bad} ", line)
    name, caption = f"fireworks-single-train-0-{bad:05d}", trainer.task.dataset.caption(bad, 0)
    assert f'{name} "{caption}" (loss nan)' in line and line.count("fireworks-single") == 1
    assert f"saved in {tmp_path}" in line and line.endswith("then --resume")
    assert list_checkpoints(tmp_path)[-1].name == "step-00000001"


def test_the_state_before_the_step_is_saved_also_what_the_critic_remembers(tmp_path):
    """The batch went through the running averages of the critic's switch before anybody saw that it was bad."""
    config = load_preset("toy", SIZES | CRITIC | {"training.accumulate": 1}, task="vae2d")
    bad = clips_of_step(spoilt_trainer(config, tmp_path / "none", set()), 2)[0]
    with pytest.raises(UserError, match="step 2: the output of vae.encoder.conv_in"):
        spoilt_trainer(config, tmp_path / "broken", {bad}).run()
    train(config, tmp_path / "healthy", stop=2)
    one, other = run_weights(tmp_path / "broken"), run_weights(tmp_path / "healthy")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert one["adversary.switch.steps"] == 2
    train(config, tmp_path / "broken", resume=True)  # with the clip repaired, the run goes on
    train(config, tmp_path / "healthy", resume=True)
    assert_same(tmp_path / "broken", tmp_path / "healthy")


def test_a_batch_can_be_left_out_and_is_counted(tmp_path, capsys):
    settings = SIZES | {"training.not_finite": "skip", "training.accumulate": 1, "training.steps": 10}
    config = load_preset("toy", settings)
    whole = spoilt_trainer(config, tmp_path / "whole", {4})
    bad = [step for step in range(10) if 4 in clips_of_step(whole, step)]
    assert len(bad) > 2
    whole.run()
    line = r"step (\d+): the output of \S*init_conv is not finite at clip 4 .*; left out \((\d+) so far\)"
    said = [(int(step), int(count)) for step, count in re.findall(line, capsys.readouterr().out)]
    assert said == [(step, k + 1) for k, step in enumerate(bad)]
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["left_out"] == len(bad) and [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    assert all(weight.isfinite().all() for weight in run_weights(tmp_path / "whole").values())
    moments = torch.load(list_checkpoints(tmp_path / "whole")[-1] / "optimizer.pt", weights_only=True)
    assert next(iter(moments["optimizer"]["state"].values()))["step"] == 10 - len(bad)
    for number, step in enumerate(bad[:2]):  # stopped right after a step that was left out
        run_until(spoilt_trainer(config, tmp_path / "parts", {4}, resume=number > 0), step + 1)
    spoilt_trainer(config, tmp_path / "parts", {4}, resume=True).run()
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_after_several_in_a_row_it_is_not_the_batch(tmp_path):
    config = load_preset("toy", SIZES | {"training.not_finite": "skip", "training.milestone_every": 100})
    trainer = spoilt_trainer(config, tmp_path, set(range(7)))
    before = {name: weight.clone() for name, weight in trainer.task.model.state_dict().items()}
    with pytest.raises(UserError, match=f"step {MOST_LEFT_OUT - 1}: the output of"):
        trainer.run()
    weights = run_weights(tmp_path)
    assert list_checkpoints(tmp_path)[-1].name == f"step-{MOST_LEFT_OUT - 1:08d}"
    assert all(torch.equal(weights[name], before[name]) for name in before)
    with pytest.raises(UserError, match=f"step {MOST_LEFT_OUT - 1}: "):  # resuming does not begin to count anew
        spoilt_trainer(config, tmp_path, set(range(7)), resume=True).run()


class Root(nn.Module):
    """The square root: finite at 0, where its slope is not."""

    def forward(self, x):
        return x.clamp(min=0).sqrt()


def test_a_gradient_is_traced_to_the_first_weight_that_it_reaches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), Root(), nn.Linear(4, 2))
    model[1].weight.data.zero_(), model[1].bias.data.zero_()
    x = torch.randn(6, 3)
    found, loss = first_broken(model, lambda: model(x).square().mean(1))
    assert found in ("the gradient of 1.weight", "the gradient of 1.bias")
    assert loss.shape == (6,) and loss.isfinite().all()
    assert all(weight.grad is None for weight in model.parameters())
    model[1].bias.data.fill_(1.0)
    assert first_broken(model, lambda: model(x).square().mean(1))[0] is None
    assert not any(module._forward_hooks for module in model.modules())


def test_the_innermost_module_is_named_and_buffers_stay_as_they_were():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))
    model[1][0].weight.data[2, 1] = float("inf")
    mean = model[0].running_mean.clone()
    found, _ = first_broken(model, lambda: model(torch.randn(8, 3)).sum())
    assert found == "the output of 1.0" and torch.equal(model[0].running_mean, mean)


@pytest.mark.parametrize("task", ["vae2d", "temporal_vae", "stdit3", "toy_t5"])
def test_every_task_can_be_watched(tmp_path, task):
    """With eyes on every module a healthy batch is still healthy, and spoilt weights are found where they are."""
    config = load_preset("toy", SIZES | CRITIC | write_all_parts(tmp_path), task=task)
    trainer = Trainer(make_task(config), config, tmp_path / "run", progress=False)
    model, (batch, _) = trainer.task.model, trainer._batches.again(0)
    if "vae" in task:
        model.adversary.switch.started.fill_(0.0)
    assert first_broken(model, lambda: trainer._loss(batch))[0] is None
    kinds = nn.Linear | nn.Conv2d | nn.Conv3d
    name, module = next((name, module) for name, module in model.named_modules() if isinstance(module, kinds))
    with torch.no_grad():
        module.weight.fill_(float("nan"))
    found, _ = first_broken(model, lambda: trainer._loss(batch))
    assert name.startswith(found.removeprefix("the output of ")), f"{name} was spoilt, and {found} is blamed"
