"""The plan of a training: what it counts is compared with what runs, and what it promises with itself."""

import dataclasses
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import TINY
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.planner_accuracy import configuration
from minivdm import cli
from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.planner import memory as planner_memory
from minivdm.planner import report
from minivdm.planner.advice import changes, with_settings
from minivdm.planner.kernels import Kernels, backward
from minivdm.planner.ledger import FUSED, Ledger, prime_for, without_contents
from minivdm.planner.machine import parse_memory
from minivdm.planner.memory import Extrapolated, Measured, largest_batch, measure
from minivdm.planner.sampling import plan_films
from minivdm.planner.workloads import workload

MIB = 2**20
TASKS = ("unet3d", "vae2d", "temporal_vae", "toy_t5", "stdit3")
SMALL = TINY | {"unet3d.dim": 8, "unet3d.dim_mults": (1, 2), "unet3d.attn_dim_head": 8, "vae_loss.perceptual": 0.1}


@cache
def tiny(task, **changed):
    """The toy preset made tiny; settings with `__` for the dot."""
    return load_preset("toy", SMALL | {name.replace("__", "."): value for name, value in changed.items()}, task=task)


@cache
def measured(task, device="cpu", **changed):
    return measure(tiny(task, **changed), device)


@pytest.mark.parametrize("task", TASKS)
def test_one_run_serves_all_batches(task, monkeypatch):
    """What was found with one number of clips is what a run with another one finds."""
    one = measured(task)
    monkeypatch.setattr(planner_memory, "prime_for", lambda sizes: 23)
    other = measure(tiny(task), "cpu")
    for batch in (1, 6, 23):
        a, b = one.plan(batch), other.plan(batch)
        assert a.peak.total == pytest.approx(b.peak.total, rel=1e-3)
        assert a.flops == b.flops


@pytest.mark.parametrize("task", TASKS)
def test_flops_are_those_of_a_real_step(task):
    config, clips = tiny(task), 3
    with torch.device("cpu"):
        work = workload(config)
        with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
            work.step(clips).backward()
    assert measured(task).plan(clips).flops == pytest.approx(counter.get_total_flops(), rel=1e-6)


@settings(max_examples=30, deadline=None)  # the first example of a task goes through a step
@given(batch=st.integers(1, 500), more=st.integers(1, 500), task=st.sampled_from(TASKS))
def test_more_clips_never_take_less(batch, more, task):
    few, many = measured(task).plan(batch), measured(task).plan(batch + more)
    assert many.peak.total >= few.peak.total
    assert many.flops > few.flops
    assert all(size >= 0 for moment in few.moments for size in moment.parts.values())


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 500))
def test_checkpointing_never_takes_more_memory_and_always_more_computing(batch):
    for task, name in (("unet3d", "unet3d__gradient_checkpointing"), ("stdit3", "flow__gradient_checkpointing")):
        without, with_it = measured(task, "gpu").plan(batch), measured(task, "gpu", **{name: True}).plan(batch)
        assert with_it.peak.total <= without.peak.total
        assert 1 < with_it.flops / without.flops < 1.5


def test_half_precision_keeps_less():
    full, half = (measured("stdit3", "gpu", training__precision=precision).plan(64) for precision in ("fp32", "bf16"))
    step, half_step = (next(m.parts for m in plan.moments if m.name == "step") for plan in (full, half))
    assert half_step["activations"] < 0.8 * step["activations"]
    assert half_step["weights"] == step["weights"], "weights stay in single precision"


def test_many_blocks_from_few():
    config = tiny("stdit3", stdit3__depth=5)
    from_few, whole = Extrapolated(config, "cpu").plan(7), Measured(config, "cpu").plan(7)
    assert from_few.peak.total == pytest.approx(whole.peak.total, rel=0.01)
    assert from_few.flops == whole.flops
    assert sum(from_few.parameters.values()) == sum(whole.parameters.values())


def test_attention_scores_are_not_written_down():
    """As on the real devices: attention over 4096 tokens keeps nothing of 4096 x 4096."""
    ledger = Ledger()
    with without_contents(ledger, Kernels("cpu", "fp32")):
        query = torch.rand(1, 2, 4096, 8, requires_grad=True)
        backward(torch.nn.functional.scaled_dot_product_attention(query, query, query).sum())
    assert max(ledger.sizes) < 4096 * 4096


def test_ledger_counts_what_comes_and_goes():
    ledger = Ledger()
    with without_contents(ledger, Kernels("cpu", "fp32")):
        kept = torch.ones(10)
        passing = kept * 2 + 1  # two results, the first of which goes
        view = passing[2:4]
    assert ledger.course().fixed.tolist() == [40, 80, 120, 80]
    del kept, passing
    assert ledger.in_use() == 40, "a view keeps its storage"
    del view
    assert ledger.in_use() == 0


@given(st.sets(st.integers(0, 10_000)))
def test_prime_divides_no_size(sizes):
    prime = prime_for(sizes)
    assert prime >= 11 and all(prime % k for k in range(2, prime)) and all(size % prime for size in sizes if size)


@pytest.mark.parametrize("task", TASKS)
def test_largest_batch_is_the_last_that_fits(task):
    plan = measured(task).plan
    for wanted in (1, 5, 77):
        memory = max(plan(wanted).peak.total, plan(1).peak.total)
        batch = largest_batch(measured(task), memory)
        assert batch >= wanted
        assert plan(batch).peak.total <= memory < plan(batch + 1).peak.total
    assert largest_batch(measured(task), 1000) == 0


@pytest.mark.parametrize("share", [0.6, 0.2])
@pytest.mark.parametrize("task", ["unet3d", "vae2d", "stdit3"])
def test_advice_ends_with_what_fits(task, share):
    config = with_settings(tiny(task), {"training.batch_size": 96})
    plan = measured(task, "gpu").plan(96)
    one, memory = plan.peak.total, plan.standing + share * (plan.peak.total - plan.standing)
    proposed = list(changes(config, "gpu", memory, measured(task, "gpu")))
    assert proposed and all(change.plan.peak.total < one for change in proposed)
    assert [change.plan.peak.total <= memory for change in proposed] == [False] * (len(proposed) - 1) + [True]
    changed = with_settings(config, proposed[-1].settings)
    assert changed.training.batch_size * changed.training.accumulate == 96, "as many clips in a step as before"
    again = measure(changed, "gpu").plan(changed.training.batch_size)
    assert again.peak.total == pytest.approx(proposed[-1].plan.peak.total, rel=1e-6)


def test_refused_only_where_it_cannot_fit(monkeypatch):
    config = tiny("vae2d")
    needed = measured("vae2d").plan(config.training.batch_size).peak.total
    monkeypatch.setattr(report, "place", lambda memory: (int(0.9 * needed), "cpu"))
    assert report.check_training(config).startswith("plan: ")  # within what a plan may be off
    monkeypatch.setattr(report, "place", lambda memory: (int(0.7 * needed), "cpu"))
    with pytest.raises(UserError, match=r"takes about .* MB, and .* MB are free here; .*"):
        report.check_training(config)


def test_what_cannot_be_planned_is_not_refused():
    config = tiny("stdit3", flow__text="somebody/some-text-encoder")
    assert report.check_training(config).startswith("no plan of its memory: text encoder 'somebody")


def test_training_that_cannot_fit_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "memory_at_hand", lambda device: 2 * MIB)
    small = ["--data.size", "8", "--data.frames", "5", "--data.clips", "20"]
    assert cli.main(["train", "vae2d", "--run", str(tmp_path / "run"), *small]) == cli.EXIT_USER_ERROR
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "are free here" in line
    assert not (tmp_path / "run").exists()


def test_plan_command(capsys):
    assert cli.main(["plan", "--preset", "full", "--task", "stdit3", "--gpu", "24GB"]) == 0
    said = capsys.readouterr().out
    for part in (
        "6.36B",
        "text encoder (frozen) 4.76B",
        "VAE (frozen) 393.34M",
        "1.1B (Open-Sora",
        "not one clip fits",
    ):
        assert part in said
    assert cli.main(["plan", "--sample", "--task", "stdit3"]) == 0
    said = capsys.readouterr().out
    assert "decoding, streaming" in said and "it fits" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "much"], "24GB"),
        (["--gpu", "0"], "above 0"),
        (["--preset", "ful"], "did you mean 'full'"),
        (["--probe", "--gpu", "24GB"], "leave --gpu"),
    ],
)
def test_mistakes_are_answered_in_a_line(arguments, said, capsys):
    assert cli.main(["plan", *arguments]) == cli.EXIT_USER_ERROR
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@given(st.integers(1, 10**6))
def test_memory_is_read_as_it_is_written(number):
    assert parse_memory(f"{number}GB") == parse_memory(f" {number} gib") == parse_memory(str(number)) == number * 2**30
    assert parse_memory(f"{number}MB") == number * 2**20


def test_decoding_a_film_in_pieces_takes_less():
    config = dataclasses.replace(tiny("stdit3"), data=dataclasses.replace(tiny("stdit3").data, frames=65))
    moments = {moment.name: moment.total for moment in plan_films(config, "cpu").moments}
    assert moments["decoding, streaming"] < 0.5 * moments["decoding whole"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark")
def test_plan_is_within_15_percent_of_a_training(tmp_path):
    """Of a real training with an allocator that keeps nothing; with ours see benchmarks/PLANNER.md."""
    script = Path(__file__).parents[1] / "benchmarks" / "planner_accuracy.py"
    command = [sys.executable, script, "measure", "toy:vae2d:6", "returning"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    planned = max(row["said"]["step"], row["said"]["optimizer"]) - row["kept_free"]
    assert planned == pytest.approx(row["step"], rel=0.15)


MEASURED = re.findall(
    r"^\| (\w+):(\w+):(\d+) \| ([\d,.]+) \| ([\d,.]+) \|",
    (Path(__file__).parents[1] / "benchmarks" / "PLANNER.md").read_text(encoding="utf-8"),
    flags=re.M,
)


def test_every_task_was_measured():
    found = {(preset, task) for preset, task, *_ in MEASURED}
    assert found == {(preset, task) for preset in ("toy", "toy_64", "small") for task in TASKS}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems' allocators keep no freed memory")
@pytest.mark.parametrize("preset, task, batch, taken, planned", MEASURED, ids=lambda value: value)
def test_the_plan_is_still_the_one_that_was_compared(preset, task, batch, taken, planned, tmp_path):
    """And within 15 percent of what the training took."""
    said = measure(configuration(f"{preset}:{task}:{batch}", tmp_path), "cpu").plan(int(batch))
    now = max(moment.total for moment in said.moments if moment.name in ("step", "optimizer")) / MIB
    assert now == pytest.approx(float(planned.replace(",", "")), rel=0.02)
    assert now == pytest.approx(float(taken.replace(",", "")), rel=0.15)
