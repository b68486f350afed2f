"""Two processes (gloo, over loopback) do what one does: training, resuming in both directions, denoising one clip.

All of it happens in one pair of processes, because starting them takes longer than what they do.
"""

import json
import shutil

import pytest
import torch
from process_checks import STEPS, TASKS, everything, first_gradients, interrupt, trainer_of
from run_weights import run_weights
from stdit3_models import awake
from tiny_runs import write_parts

from minivdm.denoisers.sequence_parallel import sequence_parallel
from minivdm.errors import UserError
from minivdm.training.checkpoint import list_checkpoints
from minivdm.vae import run_processes

ROUNDING = 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of each task: `alone` from beginning to end; `one` and `two` begun by as many and ended by the other."""
    folder = tmp_path_factory.mktemp("runs")
    parts = write_parts(folder / "parts")
    gradients = {}
    for task in TASKS:
        trainer = trainer_of(task, parts, folder / f"{task}-alone")
        gradients[task] = first_gradients(trainer)
        trainer.run()
        interrupt(trainer_of(task, parts, folder / f"{task}-one"))
    results = run_processes(everything, 2, folder, parts, timeout_s=900)  # a busy machine is slow
    for task in TASKS:
        shutil.copytree(folder / f"{task}-two", folder / f"{task}-two-begun")
        trainer_of(task, parts, folder / f"{task}-two", resume=True).run()
    return folder, gradients, results


def log(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def furthest(some, others):
    assert some.keys() == others.keys() and some
    return max((some[name].float() - others[name].float()).abs().max().item() for name in some)


def key_biases(tensors):
    """Of cross-attention. They add the same to all logits of a query, which softmax does not notice."""
    return {name: tensor.chunk(2)[0] for name, tensor in tensors.items() if name.endswith("kv_linear.bias")}


def without_key_biases(tensors):
    """All that is learned. Of what is not, gradients are rounding only, and Adam divides rounding by its size."""
    return {name: tensor.chunk(2)[1] if name.endswith("kv_linear.bias") else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("task", TASKS)
def test_gradients_of_a_shared_batch(runs, task):
    _, alone, results = runs
    for result in results:
        assert furthest(result["training"][task]["gradients"], alone[task]) < ROUNDING
    assert max(gradient.abs().max() for gradient in alone[task].values()) > 0.1
    assert all(gradient.abs().max() < 1e-7 for gradient in key_biases(alone[task]).values())


@pytest.mark.parametrize("begun_by", ["one", "two"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_on_with_another_number_of_processes(runs, task, begun_by):
    """Weights, averages and moments of the run of one process; half a batch twice is summed in another order."""
    folder, _, _ = runs
    alone, other = folder / f"{task}-alone", folder / f"{task}-{begun_by}"
    assert furthest(*(without_key_biases(run_weights(run)) for run in (other, alone))) < ROUNDING
    states = [
        torch.load(list_checkpoints(run)[-1] / "optimizer.pt", weights_only=True)["optimizer"] for run in (alone, other)
    ]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for number, entry in states[0]["state"].items():
        assert furthest(entry, states[1]["state"][number]) < ROUNDING


@pytest.mark.parametrize("begun_by", ["one", "two"])
@pytest.mark.parametrize("task", TASKS)
def test_the_log_is_written_once_and_tells_of_the_whole_batch(runs, task, begun_by):
    """Equal losses in every step: the same clips in the same order, with the same noise."""
    folder, _, _ = runs
    alone, other = log(folder / f"{task}-alone"), log(folder / f"{task}-{begun_by}")
    assert [row["step"] for row in other] == [row["step"] for row in alone] == list(range(1, STEPS + 1))
    for name in ("loss", "gradient_norm"):
        assert [row[name] for row in other] == pytest.approx([row[name] for row in alone], rel=1e-4)
    assert len({row["loss"] for row in alone}) == STEPS


@pytest.mark.parametrize("task", TASKS)
def test_one_process_writes_and_metrics_are_those_of_both(runs, task):
    folder, _, _ = runs
    begun = folder / f"{task}-two-begun"
    assert [row["process"] for row in log(begun)] == [0.5, 0.5]
    assert not (folder / "nobody").exists()
    assert [path.name for path in list_checkpoints(begun)] == ["step-00000002"]
    shown = "step-00000004.txt" if task == "toy_t5" else "step-00000004.gif"
    assert {path.name for path in (folder / f"{task}-one" / "samples").iterdir()} == {shown}


def test_sharded_training_keeps_half_of_everything_in_each_process(runs):
    _, _, results = runs
    for result in results:
        assert set(result["training"]["unet3d"]["held"].values()) == {1.0}
        assert all(0.3 < share < 0.7 for share in result["training"]["stdit3"]["held"].values())
    for name in ("weights", "average", "moments"):
        assert sum(result["training"]["stdit3"]["held"][name] for result in results) == pytest.approx(1)


def test_two_processes_denoise_a_clip_as_one_does(runs):
    _, _, results = runs
    for result in results:
        assert all(error < ROUNDING for error in result["denoising"].values()), result["denoising"]


def test_without_processes_sharing_a_clip_is_one_line():
    with pytest.raises(UserError, match="torchrun --nproc_per_node") as caught, sequence_parallel(awake()):
        pass
    assert "\n" not in str(caught.value)
