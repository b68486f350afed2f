"""All trainings of text to video, one after another, each on the one before; and parts that are something else."""

import pytest
import torch
from run_weights import run_weights

from minivdm.errors import UserError
from minivdm.pipelines import TextToVideoPipeline
from minivdm.training import chain
from minivdm.training import publish_vae as publication
from minivdm.training.checkpoint import list_checkpoints
from minivdm.training.interrupts import Interrupted
from minivdm.training.parts import find_denoiser_weights, find_text_encoder, find_video_vae
from minivdm.training.toy_t5_task import trained_t5
from minivdm.training.trainer import Trainer

TINY = {
    "data.clips": 5,
    "data.size": 16,
    "data.frames": 5,
    "vae2d.ch": 8,
    "vae2d.ch_mult": [1, 2],
    "temporal_vae.filters": 8,
    "temporal_vae.num_groups": 4,
    "toy_t5.d_model": 16,
    "toy_t5.num_layers": 1,
    "toy_t5.num_heads": 2,
    "stdit3.hidden_size": 16,
    "stdit3.depth": 1,
    "stdit3.num_heads": 2,
    "training.batch_size": 2,
    "training.steps": 2,
    "training.milestone_every": 2,
    "sampling.steps": 1,
    "sampling.clips": 1,
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder of a finished chain, what it said, and its shares."""
    run, lines = tmp_path_factory.mktemp("chain") / "mine", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "PROMPTS", 3)
        patch.setattr(chain, "SHOWN", 2)
        patch.setattr(publication, "STATISTICS_FROM", 4)
        shares = chain.train_all("toy", run, TINY, say=lines.append)
        yield run, lines, shares


def test_from_nothing_to_films(everything):
    run, lines, shares = everything
    names = {"vae2d", "temporal_vae", "toy_t5", "stdit3", "latents", "pipeline", "films.gif"}
    assert {path.name for path in run.iterdir()} == names
    assert [line for line in lines if line[0] != " "][:4] == ["1. vae2d", "2. temporal_vae", "3. toy_t5", "4. stdit3"]
    assert all("step 0 of 2" in line for line in lines if line.startswith("   "))
    assert lines[-1].startswith(f"{shares['joint']:.0%} of 3 films are all that an unseen caption asked for")
    pipe, taught = TextToVideoPipeline.from_pretrained(run / "pipeline"), trained_t5(run / "toy_t5")[0]
    assert pipe("a red ring", seed=0).shape == (1, 3, 5, 16, 16)
    weight = pipe.text.model.encoder.block[0].layer[0].SelfAttention.q.weight
    assert torch.equal(weight, taught.encoder.block[0].layer[0].SelfAttention.q.weight.half().float())
    vae = run_weights(run / "temporal_vae")
    assert all(torch.equal(vae[f"ema.vae.{name}"], weight) for name, weight in pipe.vae.temporal.state_dict().items())
    pictures = run_weights(run / "vae2d")
    assert torch.equal(pipe.vae.vae2d.encoder.conv_in.weight, pictures["ema.vae.encoder.conv_in.weight"])


def test_what_is_finished_is_passed_over_and_the_rest_goes_on(everything):
    run = everything[0]
    before = run_weights(run / "stdit3")
    times = {path: path.stat().st_mtime_ns for path in run.glob("*/checkpoints/*/*")}
    lines = []
    chain.train_all("toy", run, {}, resume=True, say=lines.append)
    assert [line for line in lines if "is finished in" in line] == [
        f"   is finished in {run / stage}" for stage in chain.STAGES
    ]
    assert times == {path: path.stat().st_mtime_ns for path in run.glob("*/checkpoints/*/*")}
    lines.clear()
    chain.train_all("toy", run, {"training.steps": 3}, resume=True, say=lines.append)
    assert sum("step 2 of 3" in line for line in lines) == 4
    assert [list_checkpoints(run / stage)[-1].name for stage in chain.STAGES] == ["step-00000003"] * 4
    after = run_weights(run / "stdit3")
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_a_folder_that_holds_something_is_not_touched(everything, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, everything[0]):
        with pytest.raises(UserError, match="add --resume .* or choose another --run") as error:
            chain.train_all("toy", folder, TINY)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_ctrl_c_names_the_command_that_goes_on_with_everything(tmp_path, monkeypatch):
    steps, take_step = [], Trainer._optimiser_step

    def interrupted(trainer, batches):
        steps.append(trainer.task.name)
        trainer._stop = steps.count("temporal_vae") == 1
        return take_step(trainer, batches)

    monkeypatch.setattr(Trainer, "_optimiser_step", interrupted)
    monkeypatch.setattr(publication, "STATISTICS_FROM", 4)
    run = tmp_path / "mine"
    with pytest.raises(Interrupted) as stop:
        chain.train_all("toy", run, TINY, say=lambda line: None)
    command = f"minivdm train all --preset toy --run {run} --resume"
    assert str(stop.value) == f"stopped in temporal_vae after step 1, saved in {run}; go on with: {command}"


def test_several_processes_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="train all runs on one process"):
        chain.train_all("toy", tmp_path / "mine", TINY)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("find", "found", "wanted"), [
    (lambda run: find_text_encoder(str(run), 48), "stdit3", "toy_t5"),
    (lambda run: find_text_encoder(str(run), 48), "vae2d", "toy_t5"),
    (lambda run: find_video_vae(str(run)), "toy_t5", "temporal_vae"),
    (lambda run: find_video_vae(str(run)), "vae2d", "temporal_vae"),
    (lambda run: find_denoiser_weights(str(run)), "temporal_vae", "stdit3"),
])  # fmt: skip
def test_a_run_of_something_else_is_one_line(everything, find, found, wanted):
    message = f"{found} is a run of {found}; expected one of `minivdm train {wanted}`"
    with pytest.raises(UserError, match=message) as error:
        find(everything[0] / found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("find", [find_video_vae, find_denoiser_weights, lambda source: find_text_encoder(source, 48)])
def test_a_part_that_is_not_there_is_one_line(find, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        find(str(tmp_path / "empty"))
    assert "\n" not in str(error.value)


def test_the_shipped_parts_are_found_by_name():
    vae, text = find_video_vae("toy"), find_text_encoder("toy", 48)
    assert vae.get_latent_size((17, 32, 32)) == (5, 8, 8) and text.max_length == 48 and text.dim == 96
    assert not any(weight.requires_grad for part in (vae, text) for weight in part.parameters())
    assert not vae.training and not text.training
