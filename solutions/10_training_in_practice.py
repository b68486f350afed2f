# %% [markdown]
# # 10 Training in practice: how to lose minutes instead of days
#
# You have built everything there is in a text-to-video model. What no formula tells you is what happens on a Tuesday night, four
# days into a training, when the machine restarts. This lesson is about that night, and about the plan that makes it boring:
# **plan → train → interrupt → resume → profile → mend a run that fails.** By the end you will have made
#
# * **a plan**: the bytes of a training, predicted by hand and then measured, before the first step;
# * **a run that is stopped and goes on** as if nothing had happened, equal to the last bit, and one that does not, with the
#   reason drawn as a curve;
# * **a save that survives a power cut** at any moment, proven against every moment;
# * **large batches on a small machine**, and a look at what 16 bits round away;
# * **a page of symptoms**: films that are ill in a way you will meet, each made on purpose, each with its test.
#
# **Time:** about **2 minutes** of computing on two CPU cores, most of it four short trainings. Seven exercises, three
# hints each. No network, no GPU.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import copy
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import Dataset

# %%
os.environ["ACCELERATE_USE_CPU"] = "true"  # what follows is promised to the last bit on a CPU
from minivdm import viz
from minivdm.config import Config, load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.course.exercises.n10_disk import Disk, disk_with
from minivdm.data.captions import parse_caption
from minivdm.data.fireworks import render, sample_scenes
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.judge import judge, match
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines import TextToVideoPipeline, UnetPipeline

# %%
from minivdm.planner.memory import measure
from minivdm.planner.probe import seconds_per_step
from minivdm.planner.report import check_training, training_lines
from minivdm.text.encoder import TextEmbedder
from minivdm.training import randomness
from minivdm.training.checkpoint import checkpoint_name, list_checkpoints, load_newest, read_tensors
from minivdm.training.ema import EMA
from minivdm.training.randomness import stream_seed
from minivdm.training.tasks import NoisePredictionTask, collate
from minivdm.training.trainer import Trainer
from minivdm.viz.plots import read_rows

# %% [markdown]
# One small training accompanies us: the `Unet3D` of lesson 07, narrower, on films of five frames of 16×16 pixels. Everything
# about it is a setting, so everything about it can be planned, repeated and resumed.


# %% tags=["nbval-ignore-output"]
torch.set_num_threads(1)  # small tensors: two threads would wait for each other
SMALL = {"data.size": 16, "data.frames": 5, "data.clips": 96, "sampling.steps": 10, "sampling.clips": 4}
SMALL |= {"unet3d.patch": 2, "unet3d.dim": 16, "unet3d.dim_mults": [1, 2]}
SMALL |= {"diffusion.prediction": "x0", "diffusion.schedule": "cosine"}
SMALL |= {"diffusion.shift_factor": 0.0, "diffusion.scale_factor": 1.0}
SMALL |= {"training.steps": 120, "training.batch_size": 8, "training.learning_rate": 3e-3, "training.warmup": 10}
SMALL |= {"training.decay_from": 1.0, "training.ema_decay": 0.98, "training.log_every": 1}
SMALL |= {"training.milestone_every": 40, "training.keep_checkpoints": 3}


def settings(**changes) -> Config:
    """The settings of our training, with some changed: `learning_rate=1e-3` means `training.learning_rate`."""
    return load_preset(preset, SMALL | {"seed": seed} | {f"training.{name}": value for name, value in changes.items()})


config = settings()
clips = FireworksDataset(config.data.clips, frames=config.data.frames, size=config.data.size, seed=seed)
print("films to learn from:", tuple(clips.videos.shape), "= (N, C, T, H, W)")
task = NoisePredictionTask(config, clips)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1 · Plan: does it fit, and until when?
#
# Two questions come before any training, and most people answer them by trying: does it fit into memory, and how long will
# it take? Trying costs an hour of rendering and loading before the first `CUDA out of memory`. Counting costs nothing.
#
# What is in memory while a network trains?
#
# * its **weights**;
# * a **gradient** for each;
# * what **Adam** remembers of each: the mean of its gradients, and the mean of their squares;
# * the **moving average** from which one samples;
# * **frozen** networks beside it (a VAE, a text encoder): weights only, nothing of them changes;
# * and the **activations**: whatever the forward pass keeps because the backward pass will need it. These alone are there
#   for every clip of the batch.

# %% [markdown] tags=["predict"]
# **Predict first.** Our network has about 216 thousand weights, and trains on batches of 8 tiny films. Which of these items
# will be the largest, and by what factor is it larger than the weights: 2, 10, 100?
#
# Write your guess here before you go on: …

# %% [markdown]
# ### Exercise 10.memory_plan (4 minutes)


# %%
# exercise: 10.memory_plan
def memory_plan(trained: int, frozen: int, kept: int, batch: int) -> int:
    """Bytes of a training in float32, with Adam and a moving average of the weights.

    trained, frozen: weights of each sort. kept: numbers that the forward pass keeps for the backward pass, per clip.
    Stuck? hint("10.memory_plan")
    """
    ### BEGIN SOLUTION
    copies = 5  # the weight, its gradient, Adam's two averages, the moving average
    return 4 * (copies * trained + frozen + batch * kept)
    ### END SOLUTION


# %%
# hint("10.memory_plan")
check("10.memory_plan", memory_plan)

# %% [markdown]
# The weights can be counted by anybody. What is kept per clip can be measured in one forward pass: torch tells us of every
# tensor that it puts aside. (A number per clip is a property of the network; it needs measuring once.)


# %%
def batch_of(first: int, count: int) -> tuple[dict, list[int]]:
    """Clips number `first`, `first + 1`, … of our run, and the seed of each one's noise."""
    chosen = randomness.clip_order(len(clips), seed, first, count)
    return collate([clips[which] for which in chosen]), [stream_seed(seed, "noise", first + i) for i in range(count)]


def kept_bytes(net: nn.Module, count: int) -> int:
    """Bytes that one forward pass of `count` clips keeps, weights not counted."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.loss(net, *batch_of(0, count)).mean()  # noqa: F841 as long as it lives, so do they
    own = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    return sum(size for place, size in kept.items() if place not in own)


# %%
weights = sum(weight.numel() for weight in task.model.parameters())
per_clip = kept_bytes(task.model, 8) // 8 // 4
print(f"weights: {weights:,}   kept per clip: {per_clip:,}")
print(f"by hand: {memory_plan(weights, 0, per_clip, 8) / 2**20:.1f} MB")
print(
    f"the activations are {8 * per_clip / weights:.0f} times the weights, and {8 * per_clip / (5 * weights):.0f} times all the rest"
)

# %% [markdown]
# The package plans in the same way and takes more pains: it runs the very step that will be trained, on tensors that have
# sizes and no contents, and notes when the memory of each comes and goes. Here is what `minivdm plan` would print:

# %% tags=["nbval-ignore-output"]
print("\n".join(training_lines(config, None)))

# %% [markdown]
# Compare its activations with yours. It counts a little more: beside what is *kept* there is what is *passing through* at the highest
# moment. Now the second question. Arithmetic gives the least time ("if all were matrix products"). A few real steps tell more:

# %% tags=["nbval-ignore-output"]
a_step = seconds_per_step(config, torch.device("cpu"), steps=4)
print(
    f"{a_step:.2f} s per step: {config.training.steps} steps take {a_step * config.training.steps:.0f} s, a million {a_step * 1e6 / 86400:.0f} days"
)

# %% [markdown]
# And where the plan says no, it says so *before* anything is rendered or loaded, together with what would help, if anything does:

# %% tags=["nbval-ignore-output"]
try:
    check_training(settings(batch_size=4_000_000))
except UserError as error:
    print(error)

# %% [markdown]
# That is the whole cure for `out of memory`: in this order, smaller batches with *accumulation* (the same training, section 6), *gradient
# checkpointing* (the same training, some more time, section 6), half precision on a GPU (section 7), and only then a smaller model or film.
#
# ## 2 · Train
#
# One thing first, since it goes wrong so often. In lesson 07 you wrote the moving average of the weights, from which one samples. With
# a decay of 0.98 it remembers about fifty steps; with the 0.999 of a long training, a thousand. And what does it remember in step 10? Almost
# nothing but the *random beginning*. So its memory is made to grow with the run: $d = \min\big(\text{decay}, \frac{1 + \text{step}}{10 + \text{step}}\big)$.
#
# ### Exercise 10.ema_warmup (3 minutes)


# %%
# exercise: 10.ema_warmup
def ema_warmup(ema: Tensor, value: Tensor, decay: float, step: int) -> Tensor:
    """The average after it has seen `value` in step number `step` (from 0), as a new tensor; nothing changes in place.

    In early steps the decay is smaller than `decay`: see above. Stuck? hint("10.ema_warmup")
    """
    ### BEGIN SOLUTION
    now = min(decay, (1 + step) / (10 + step))
    return now * ema + (1 - now) * value
    ### END SOLUTION


# %%
# hint("10.ema_warmup")
check("10.ema_warmup", ema_warmup)


# %% [markdown]
# In our training the package does the averaging, yours stands beside it, and a third average, for later, has a decay of 0.995 from the very first step.


# %%
class Averages(EMA):
    """The package's average; beside it `yours`, by your function, and `cold`, which has no warm-up."""

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, decay)
        self.yours, self.cold = copy.deepcopy(self.module), copy.deepcopy(self.module)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        super().update(model, step)
        for average, cold, weight in zip(*(net.parameters() for net in (self.yours, self.cold, model)), strict=True):
            average.copy_(ema_warmup(average, weight, self.decay, step))
            cold.lerp_(weight, 1 - 0.995)


# %% [markdown]
# The training itself is three lines. Every 40 steps it writes a checkpoint and sample films. (About **fifteen seconds** of one core; the machine that wrote the output below had other work as well.)

# %% tags=["nbval-ignore-output"]
whole = folder / "whole"
trainer = Trainer(task, config, whole)
trainer.ema = averages = Averages(task.model, config.training.ema_decay)
began = time.perf_counter()
trainer.run()
print(f"{trainer.step} steps in {time.perf_counter() - began:.0f} s")
pairs = zip(averages.yours.parameters(), averages.module.parameters(), strict=True)
print("your average is the package's:", all(torch.allclose(one, other, atol=1e-6) for one, other in pairs))


# %% [markdown]
# Look into the run folder. Whatever you train, in whatever project, ask for these things: the *settings*, a *log* of numbers, *samples*
# for the eye, and *checkpoints* with everything that is needed to go on.


# %% tags=["nbval-ignore-output"]
def tree(place: Path) -> None:
    """The files of a run, one line each."""
    for path in sorted(place.rglob("*")):
        if path.is_file() and "tensorboard" not in path.parts:
            print(f"{path.stat().st_size / 1024:8.1f} kB  {path.relative_to(place).as_posix()}")


tree(whole)
print("a line of the log:", read_rows(whole / "metrics.jsonl")[-1])

# %% tags=["nbval-ignore-output"] alt="the loss falls from 1 to 0.06 in 20 steps, then slowly to 0.03"
viz.loss_curve(whole / "metrics.jsonl")

# %% [markdown]
# Learn to read this curve for what it is: a fast fall, then a floor with noise, for the rest of the night. After the first minutes it tells
# you *that* something broke, hardly ever *how good* the films are. That is what the samples are for. Ours, after 120 steps:

# %% tags=["nbval-ignore-output"]
PROMPTS = ["a large gold willow high on the left", "a large red peony low in the centre"]
PROMPTS += ["a large blue ring high on the right", "a large green palm low on the left"]


def films_of(net: nn.Module, **how) -> Tensor:
    """Films of the four prompts by a network of our small training."""
    pipe = UnetPipeline(net.eval(), task.pipeline.diffusion, task.words, config)
    return pipe(PROMPTS, seed=seed, **how)


small_films = films_of(averages.yours)
viz.player(small_films, PROMPTS, columns=4, scale=7, fps=3, alt="pale blobs of light on a night sky")

# %% [markdown]
# Pale blobs of light on a night sky: no colour, no shape, no obedience yet. 120 steps are nothing, and this run has another purpose.
#
# ## 3 · Interrupt, and go on
#
# Somebody needs the machine. Ctrl-C is a *signal*; the trainer hears it, finishes the step, saves, and says how to go on. We send it from
# inside, while step 70 is computed, to a second run with the same settings:


# %%
class Impatient(NoisePredictionTask):
    """Presses Ctrl-C while its 70th batch is computed."""

    batches = 0

    def loss(self, model: nn.Module, batch: dict, seeds: Sequence[int]) -> Tensor:
        self.batches += 1
        if self.batches == 70:
            signal.raise_signal(signal.SIGINT)
        return super().loss(model, batch, seeds)


# %% tags=["nbval-ignore-output"]
stopped = folder / "stopped"
try:
    Trainer(Impatient(config, clips), config, stopped).run()
except KeyboardInterrupt as interrupt:
    print(str(interrupt).replace(str(folder), "runs"))

# %% [markdown]
# Now go on. Nothing is handed over but the folder: a new task, a new trainer, as after a restart of the machine.

# %% tags=["nbval-ignore-output"]
resumed = Trainer(NoisePredictionTask(config, clips), config, stopped, resume=True)
began_at = resumed.step
resumed.run()
print(f"went on after step {began_at}, up to {resumed.step}")


# %% [markdown]
# **The claim:** a run that was interrupted equals one that was not. Not "about as good": *equal*, in every bit of the weights, of their average, of
# Adam's memory, and in every line of the log. Let us look.


# %%
def contents(run: Path) -> dict[str, list[Tensor]]:
    """Everything in the last checkpoint of a run."""
    place = list_checkpoints(run)[-1]
    optimizer = torch.load(place / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    kept = {name: list(read_tensors(place / f"{name}.safetensors").values()) for name in ("model", "ema")}
    return kept | {"optimizer": [torch.as_tensor(part) for state in optimizer.values() for part in state.values()]}


def equal(one: Path, other: Path) -> dict[str, bool]:
    """Which parts of two runs are equal to the last bit."""
    first, second = contents(one), contents(other)
    return {name: all(map(torch.equal, first[name], second[name])) for name in first}


def losses(run: Path) -> list[float]:
    """The logged loss of every step."""
    return [row["loss"] for row in read_rows(run / "metrics.jsonl")]


# %%
print("equal to the last bit:", equal(whole, stopped))
print("the same losses in all", len(losses(whole)), "steps:", losses(whole) == losses(stopped))

# %% [markdown]
# Why does it work? A training step depends on weights and averages, which are saved, and on **chance**: which clips are next, their noise, their
# $t$. The usual way is to save the states of all random generators: of torch, of each GPU, of numpy, of Python, of every worker process that loads
# data and has already drawn ahead. One is always forgotten. Ours has *nothing to save*: all randomness is a **function of a
# counter**. The k-th clip of a run is what it is, whoever asks, and when.
#
# ### Exercise 10.clip_order (8 minutes)
#
# Each epoch is one shuffle of all clips. Its generator is seeded by `stream_seed(seed, "order", epoch)`, which mixes the three into one number.


# %%
# exercise: 10.clip_order
def clip_order(k: int, num_clips: int, seed: int) -> tuple[int, int]:
    """Which clip is number k of a run, counted from 0: (its index in the data set, the epoch).

    The shuffle of an epoch is torch.randperm(num_clips), drawn by a generator of its own. Stuck? hint("10.clip_order")
    """
    ### BEGIN SOLUTION
    epoch, position = divmod(k, num_clips)
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(num_clips, generator=generator)[position].item(), epoch
    ### END SOLUTION


# %%
# hint("10.clip_order")
check("10.clip_order", clip_order)

# %%
yours = [clip_order(k, len(clips), seed) for k in range(90, 102)]
print("clips 90 to 101 of our run, as (index, epoch):", yours)
print("the package's:", yours == randomness.clip_order(len(clips), seed, 90, 12))
print("no clip twice in an epoch:", len({clip_order(k, 96, seed)[0] for k in range(96)}) == 96)

# %% [markdown]
# ### Bug of the day: the trainer that forgets its optimizer
#
# A trainer that thousands have copied saves, in our words, this:
#
# ```python
# torch.save({"step": step, "model": model.state_dict(), "ema": ema.state_dict()}, path)
# ```
#
# Weights, average, step: it looks complete, and films sampled from it are fine. What is missing? We take our run at step 80, throw away what Adam
# remembers, and go on to 120: same clips, same noise, same learning rate.

# %% [markdown] tags=["predict"]
# **Predict first.** What will the loss do right after step 80, compared with the run that was never interrupted: nothing, a jump that is gone
# after a step, a jump that takes many steps, or will it never come back? And why should two averages per weight matter at all, if the weights
# themselves are the right ones?
#
# Write your guess here before you run the next cells: …


# %%
def copy_of_run(name: str, newest: int) -> Path:
    """A copy of the whole run as it was when checkpoint `newest` had just been written."""
    place = folder / name
    shutil.copytree(whole, place)
    for checkpoint in list_checkpoints(place):
        if checkpoint.name > checkpoint_name(newest):
            shutil.rmtree(checkpoint)
    return place


# %% tags=["nbval-ignore-output"]
forgetful = copy_of_run("forgetful", newest=80)
trainer = Trainer(NoisePredictionTask(config, clips), config, forgetful, resume=True, progress=False)
trainer.optimizer.optimizer.state.clear()  # as if it had never been saved
trainer.run()
jump = torch.tensor(losses(forgetful)) / torch.tensor(losses(whole))
print(
    f"loss of the first ten steps after 80: {jump[80:90].mean():.2f} times the other's, at worst {jump[80:].max():.2f} times"
)

# %% tags=["nbval-ignore-output"] alt="one curve, dots exactly on it, and another that leaps up at step 82 and comes back"
fig, (above, below) = viz.figure(2, 1, width=7, height=4.4)
steps = range(60, 121)
above.plot(steps, losses(whole)[59:], color=viz.DATA, label="never interrupted")
above.plot(steps, losses(stopped)[59:], "o", color=viz.DATA, ms=3, label="stopped at 70 and resumed")
above.plot(steps, losses(forgetful)[59:], color=viz.NOISE, label="optimizer lost at 80")
below.plot(steps, jump[59:], color=viz.NOISE)
below.axhline(1, color=viz.DATA)
above.set(ylabel="loss", yscale="log", yticks=(0.02, 0.05, 0.1, 0.2), yticklabels=("0.02", "0.05", "0.1", "0.2"))
above.minorticks_off()
below.set(xlabel="step", ylabel="loss, times that of\nthe whole run")
above.legend(frameon=False)
plt.show()

# %% [markdown]
# The dots lie on the curve, all of them: that is what "equal" looks like. And the grey line jumps.
#
# <details><summary>Why</summary>
#
# Adam divides each weight's step by the size of that weight's usual gradients. With an empty memory the first step knows a single gradient,
# divides it by itself, and so moves **every weight by the full learning rate**, up or down, also those that should hardly move. That is how
# a training begins, and then a *warm-up* keeps the steps small. After a resume nobody warms up. In a run with a restart every night this is a kick every
# night; ours jumps to almost eight times what it was, and is still a little higher forty steps later.
# </details>
#
# ## 4 · A power cut while it saves
#
# A checkpoint of a large model takes a minute to write, and one is written every hour. Sooner or later a machine dies in that very minute. Then the *new*
# checkpoint is half a file. And if it was written over the *old* one, there is nothing left at all.
#
# Here is a disk in memory that tells us the truth about disks. What was written is *somewhere between program and platter* until it is
# flushed, and a power cut may keep all of it, half of it, or nothing:

# %%
disk = disk_with({"model": b"four days of training"})
disk.write("model", b"four days and one hour")
print("what may be found after a power cut:", sorted(disk.after_a_power_cut("model")))
disk.flush("model")
print("after flush:                        ", sorted(disk.after_a_power_cut("model")))

# %% [markdown]
# There is one operation that happens in one go: `rename`. A name belongs to one file or to the other, never to half of one.
#
# ### Exercise 10.atomic_save (8 minutes)
#
# The disk has `write(name, data)`, `flush(name)`, `rename(old, new)` and `delete(name)`. Save in such a way that **at every moment** the name belongs to a whole
# file, the old one or the new one, and that nothing else stays behind. The check pulls the plug after each of your operations.


# %%
# exercise: 10.atomic_save
def atomic_save(disk: "Disk", name: str, data: bytes) -> int:
    """Replace the file `name` by `data`, or make it, so that no power cut leaves half of it. Returns the number of bytes.

    Stuck? hint("10.atomic_save")
    """
    ### BEGIN SOLUTION
    aside = name + ".partial"
    disk.write(aside, data)
    disk.flush(aside)
    disk.rename(aside, name)
    return len(data)
    ### END SOLUTION


# %%
# hint("10.atomic_save")
check("10.atomic_save", atomic_save)


# %%
def pull_the_plug(save: Callable[[Disk, str, bytes], int]) -> None:
    """What a power cut after each operation would leave under the name `model`."""
    disk = disk_with({"model": b"old"})
    save(disk, "model", b"newer")
    for operation, names, found in disk.history:
        left = " or ".join(sorted(data.decode() or "(empty)" for data in found.get("model", set())))
        print(f"  {operation + '(' + ', '.join(names) + ')':30} -> model: {left or '(no file)'}")


print("yours:")
pull_the_plug(atomic_save)
print("written in place:")
pull_the_plug(lambda disk, name, data: disk.write(name, data))

# %% [markdown]
# The package saves a whole *folder* in this way: under a name with a dot, every file flushed, then one rename. And it writes down a checksum of each file, because disks also
# forget things *later*. Let us hurt a run in both ways: half a checkpoint on its way in, and one bit of the newest whole one turned over.

# %%
hurt = copy_of_run("hurt", newest=120)
half = hurt / "checkpoints" / f".{checkpoint_name(160)}.partial"
half.mkdir()
(half / "model.safetensors").write_bytes(b"the power fails about h")
newest = hurt / "checkpoints" / checkpoint_name(120) / "model.safetensors"
rotten = bytearray(newest.read_bytes())
rotten[5000] ^= 1
newest.write_bytes(rotten)
print("turned over: one bit of", newest.stat().st_size, "bytes in", newest.relative_to(hurt))

# %%
place, state, damaged = load_newest(hurt)
print(*damaged, sep="\n")
print("what remains:", place.name)

# %% [markdown]
# Forty steps are lost instead of everything, and since all chance is a function of the counter, going on from there leads to the very same weights. (That is
# why one keeps more than one checkpoint: `training.keep_checkpoints`.)
#
# ## 5 · Where does the time go?
#
# "It is slow" is not a finding. A *profile* is: torch notes how long each operation takes.


# %%
def one_step(count: int = 8) -> None:
    """Forward and backward, as in training."""
    task.loss(task.model, *batch_of(0, count)).mean().backward()
    task.model.zero_grad()


def milliseconds(work: Callable[[], object], times: int = 5) -> float:
    """Of processor time, the best of several: what else runs here may disturb, but never helps."""
    work()
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(1000 * (time.process_time() - began))
    return min(found)


# %% tags=["nbval-ignore-output"] alt="bars: the backward pass of the convolutions takes longest, more than twice the forward"
one_step()
with profile(activities=[ProfilerActivity.CPU]) as report:
    one_step()
rows = sorted(report.key_averages(), key=lambda row: row.self_cpu_time_total)[-8:]
fig, ax = viz.figure(width=7, height=2.8)
ax.barh(
    [row.key.split("::")[-1].split(": ")[-1] for row in rows],
    [row.self_cpu_time_total / 1000 for row in rows],
    color=viz.INK,
)
ax.set(xlabel="milliseconds in this operation itself")
plt.show()

# %% [markdown]
# At the top, convolutions, forward and backward: as it should be. If copying, `to`, `item` or the loading of data stand there, you have found your day of work.
#
# Now two changes that everybody recommends:
#
# 1. **Fold the frames into the batch**: a `Conv2d` on (B·T) pictures instead of a `Conv3d` with kernel (1, 3, 3), the same numbers (lesson 07);
# 2. **fused attention**: `scaled_dot_product_attention` instead of softmax(q·k)·v written out, the same numbers (lesson 03).

# %% [markdown] tags=["predict"]
# **Predict first.** Which of the two saves time on *this* processor? Which saves memory?
#
# Write your guess here before you run the next cell: …

# %%
torch.manual_seed(seed)
x = torch.randn(8, 32, 5, 16, 16, requires_grad=True)
in_film, in_picture = nn.Conv3d(32, 32, (1, 3, 3), padding=(0, 1, 1)), nn.Conv2d(32, 32, 3, padding=1)
in_picture.weight.data, in_picture.bias.data = in_film.weight.data[:, :, 0].clone(), in_film.bias.data.clone()
q, k, v = torch.randn(3, 8, 2, 512, 16).requires_grad_().unbind()


def folded() -> Tensor:
    return rearrange(in_picture(rearrange(x, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", t=5)


def written_out() -> Tensor:
    return (q @ k.transpose(-1, -2) * 16**-0.5).softmax(-1) @ v


def fused() -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


ways = {"Conv3d (1, 3, 3)": lambda: in_film(x), "frames folded": folded, "written out": written_out, "fused": fused}
print(
    "the same numbers:",
    torch.allclose(in_film(x), folded(), atol=1e-5),
    torch.allclose(written_out(), fused(), atol=1e-5),
)


# %% tags=["nbval-ignore-output"]
def held(way: Callable[[], Tensor]) -> float:
    """Megabytes that are kept for the backward pass."""
    sizes: dict[int, int] = {}
    hooks = lambda tensor: sizes.update({tensor.data_ptr(): tensor.nbytes}) or tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(hooks, lambda tensor: tensor):
        out = way()  # noqa: F841 keeps them alive
    return sum(sizes.values()) / 2**20


cost = {name: (milliseconds(lambda way=way: way().sum().backward()), held(way)) for name, way in ways.items()}
for name, (time_taken, memory) in cost.items():
    print(f"{name:18}{time_taken:7.1f} ms{memory:8.1f} MB kept")

# %% [markdown]
# The first change brings nothing here: this processor's library knows such kernels, and if anything the detour costs a little (on other machines it pays, which is why the package makes
# it). The second one pays twice: it never writes down the table of all pairs, 512 × 512 numbers for each head, and what is not written need not be kept. **Measure on the machine that you have; then change one thing.**
#
# ## 6 · A large batch on a small machine
#
# The clips of a batch only meet in the mean of their losses, and a gradient is linear. So a batch of 8 may come as 5, then 2, then 1, if their gradients are put together
# rightly. That is **gradient accumulation**: the memory of five clips, the training of eight.
#
# ### Exercise 10.accumulate (5 minutes)
#
# Each small batch gives the gradient of the *mean* loss of its own clips.


# %%
# exercise: 10.accumulate
def accumulate(gradients: Tensor, sizes: Tensor) -> Tensor:
    """The gradient of the mean loss over all clips, (P,).

    gradients (M, P): row m is the gradient of the mean over the sizes[m] clips of small batch m. sizes (M,) long.
    Stuck? hint("10.accumulate")
    """
    ### BEGIN SOLUTION
    shares = sizes / sizes.sum()
    return (shares[:, None] * gradients).sum(0)
    ### END SOLUTION


# %%
# hint("10.accumulate")
check("10.accumulate", accumulate)


# %%
def gradient(net: nn.Module, first: int, count: int) -> Tensor:
    """(P,): the gradient of the mean loss of `count` clips, all weights in a row."""
    loss = task.loss(net, *batch_of(first, count)).mean()
    found = torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


large = gradient(task.model, 0, 8)
small = torch.stack([gradient(task.model, 0, 5), gradient(task.model, 5, 2), gradient(task.model, 7, 1)])
for name, together in (
    ("yours", accumulate(small, torch.tensor([5, 2, 1]))),
    ("mean of the three means", small.mean(0)),
):
    off = (together - large).norm() / large.norm()
    print(f"{name:24} {'equals the batch of 8' if off < 1e-4 else f'is off by {off:.0%}'}")

# %% [markdown]
# The second line is a bug that sat in one of the most used training libraries until 2024: accumulation by a mean of means. With batches of one size nobody notices. With texts of different lengths, or a
# last short batch, it trains something else. (Our `Trainer` only knows batches of one size.)
#
# What if even *one* clip is too much? Then keep less per clip. **Gradient checkpointing** keeps only the input of each level of the network and computes its inside once more when
# the backward pass gets there.

# %% tags=["nbval-ignore-output"]
thrifty = copy.deepcopy(task.model)
thrifty.network.gradient_checkpointing = True
print("the same gradient to the last bit:", torch.equal(gradient(thrifty, 0, 8), large))
plans = [
    measure(load_preset(preset, SMALL | {"unet3d.gradient_checkpointing": on}), "cpu").plan(8) for on in (False, True)
]
for name, plan in zip(("everything kept", "checkpointing"), plans, strict=True):
    print(
        f"{name:16} activations {plan.peak.parts['activations'] / 2**20:5.1f} MB   {plan.flops / 1e9:.2f} GFLOP per step"
    )

# %% [markdown]
# Bytes bought with arithmetic, and not a bit of the result is touched. Together: accumulation first, since it is free; checkpointing next.
#
# ## 7 · Sixteen bits, and what they round away
#
# GPUs multiply 16-bit numbers several times faster than 32-bit ones. There are two kinds. **float16** has 10 binary digits after the point and ends at 65504. **bfloat16** goes
# as far as float32, and has 7.

# %% [markdown] tags=["predict"]
# **Predict first.** A weight of 1.0 gets a thousand updates of 0.001. In float32 it ends at 2. Where does it end in float16, and where in bfloat16?
#
# *My guess: …*

# %%
KINDS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
for name, kind in KINDS.items():
    weight = torch.tensor(1.0, dtype=kind)
    for _ in range(1000):
        weight = weight + torch.tensor(0.001, dtype=kind)
    print(
        f"{name:9} {weight.item():.4f}   300 · 300 = {torch.tensor(300.0, dtype=kind).square().item():g}   1e-8 is {torch.tensor(1e-8, dtype=kind).item():.0e}"
    )

# %% [markdown]
# In bfloat16 the weight **never moves**: the next number after 1 is 1.0078, and an update of less than half of that gap is rounded away, each time anew. The loss stands still, nothing is said. In a trained
# network, how many weights would an Adam step of the usual size, 0.0001, move at all?

# %%
shipped = UnetPipeline.from_pretrained("toy")
trained = torch.cat([weight.detach().flatten() for weight in shipped.unet.parameters()])
for name, kind in KINDS.items():
    still = (trained.to(kind) + torch.tensor(1e-4, dtype=kind) == trained.to(kind)).float().mean()
    print(f"{name:9} {still:.1%} of {len(trained):,} weights do not move")

# %% tags=["nbval-ignore-output"] alt="rising stairs: bfloat16 on top, float16, far below float32; a level line at 0.0001"
sizes = torch.logspace(-4, 1, 200)
fig, ax = viz.figure(width=7, height=3)
for (name, kind), style in zip(KINDS.items(), ("-", "--", ":"), strict=True):
    spacing = 2.0 ** sizes.log2().floor() * torch.finfo(kind).eps
    ax.plot(sizes, spacing / 2, style, color=viz.INK, label=f"half a gap in {name}")
ax.axhline(1e-4, color=viz.DATA, label="a step of Adam")
ax.set(xscale="log", yscale="log", xlabel="size of the weight", ylabel="an update below this is lost")
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Left of where a line crosses the green one, weights move; right of it they are stuck. So: **weights, Adam and the moving average stay in float32**, and only products are taken in 16 bits. That is what *mixed
# precision* means, and what `training.precision` does.
#
# float16 has a second trouble, at the other end. A loss is a mean over all pixels, so the gradient that arrives at a single pixel is tiny:

# %%
error = 0.1 * torch.randn(100_000, generator=torch.Generator().manual_seed(seed))
for name, pixels in (
    ("our toy, 8 films of 16x16", 8 * 3 * 5 * 16**2),
    ("16 films of 17 frames at 512x512", 16 * 3 * 17 * 512**2),
):
    arriving = 2 * error / pixels
    lost = [((scale * arriving).half() == 0).float().mean() for scale in (1, 2**16)]
    print(f"{name:34} lost in float16: {lost[0]:6.1%}   with the loss times 65536: {lost[1]:6.1%}")

# %% [markdown]
# **Loss scaling** is the cure: multiply the loss, so that all gradients are larger, and divide them again before the optimizer sees them. By how much? As much as goes without overflowing; and that is found by
# trying, all the time.
#
# ### Exercise 10.loss_scale_step (8 minutes)


# %%
# exercise: 10.loss_scale_step
def loss_scale_step(gradients: Tensor, scale: float, good: int, patience: int) -> tuple[Tensor, float, int]:
    """What the optimizer gets, the scale of the next step, and how many good steps there have been in a row.

    gradients (P,) of a loss that was multiplied by scale. If one of them is not finite: zeros, half the scale, count 0.
    Else the gradients as they would be without scaling; and with the patience-th good step in a row the scale doubles
    and the count starts anew. Stuck? hint("10.loss_scale_step")
    """
    ### BEGIN SOLUTION
    if not gradients.isfinite().all():
        return torch.zeros_like(gradients), scale / 2, 0
    if good + 1 == patience:
        return gradients / scale, scale * 2, 0
    return gradients / scale, scale, good + 1
    ### END SOLUTION


# %%
# hint("10.loss_scale_step")
check("10.loss_scale_step", loss_scale_step)

# %% tags=["nbval-ignore-output"] alt="a scale that climbs by doubling, drops at step 300, and wavers from there"
g = torch.Generator().manual_seed(seed)
scale, good, scales, left_out = 1.0, 0, [], []
for step in range(600):
    size = 0.3 if step < 300 else 20.0  # halfway through, gradients become larger
    arrived = (scale * size * torch.randn(50, generator=g)).half()
    moved, scale, good = loss_scale_step(arrived.float(), scale, good, patience=12)
    scales.append(scale)
    left_out += [] if moved.any() else [step]
fig, ax = viz.figure(width=7, height=2.6)
ax.step(range(600), scales, color=viz.INK, where="post")
ax.plot(
    left_out, [scales[step] for step in left_out], "o", color=viz.NOISE, ms=4, label=f"{len(left_out)} steps left out"
)
ax.set(yscale="log", xlabel="step", ylabel="scale")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# It climbs to the edge, stumbles, steps back, tries again; and when the gradients grow, it finds the new edge by itself. A few steps are lost: that is the price, and no cause for alarm. Alarm is when
# *every* step is left out: then something else is infinite. bfloat16 needs none of this, which is why newer GPUs made it the default.
#
# ## 8 · When it breaks
#
# ### The learning rate
#
# The commonest cause of all. The same training with a hundred times the rate, 40 steps:

# %% tags=["nbval-ignore-output"] alt="one loss falls below 1; the other rises to a million million and stays there"
wild_settings = settings(learning_rate=0.3, steps=40)
wild_task = NoisePredictionTask(wild_settings, clips)
wild = Trainer(wild_task, wild_settings, folder / "wild", progress=False)
wild.run()
fig, ax = viz.figure(width=7, height=2.6)
ax.plot(losses(whole)[:40], color=viz.DATA, label="learning rate 0.003")
ax.plot(losses(folder / "wild"), color=viz.NOISE, label="0.3")
ax.set(xlabel="step", ylabel="loss", yscale="log")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# No error, no NaN: the loss climbs over ten powers of ten in a dozen steps and stays there. (Gradients were clipped, or it would have ended in infinities.) A loss that *rises in the first hundred steps* is the learning rate until proven otherwise. Keep its film, we shall need it.
#
# ### NaN
#
# When a number stops being one, the loss only says *that*. Where did it begin? Everything after the first bad layer is bad as well, so ask each layer as soon as it has finished.
#
# ### Exercise 10.first_not_finite (10 minutes)


# %%
# exercise: 10.first_not_finite
def first_not_finite(model: nn.Module, x: Tensor) -> int:
    """The first module to finish whose output is not all finite: its number in model.modules(); −1 when all are well.

    Each module returns one tensor. The network is left as it was, without hooks. Stuck? hint("10.first_not_finite")
    """
    ### BEGIN SOLUTION
    broken: list[int] = []

    def listener(number: int) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if not output.isfinite().all():
                broken.append(number)

        return look

    hooks = [module.register_forward_hook(listener(number)) for number, module in enumerate(model.modules())]
    model(x)
    for hook in hooks:
        hook.remove()
    return broken[0] if broken else -1
    ### END SOLUTION


# %%
# hint("10.first_not_finite")
check("10.first_not_finite", first_not_finite)


# %% [markdown]
# A patient: our network, in which the weights of one layer have been blown up, deep inside.


# %%
class AtStep(nn.Module):
    """A Unet3D that is asked about step 100, without words."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.ones(len(x), dtype=torch.bool)
        return self.unet(x, torch.full((len(x),), 100), torch.zeros(len(x), task.words.dim), null_cond=nothing)


patient = AtStep(copy.deepcopy(task.model)).eval().requires_grad_(False)
patient.unet.network.middle.block1.block1.conv.weight.mul_(1e38)
found = first_not_finite(patient, batch_of(0, 2)[0]["video"])
print("the output:", "finite" if patient(batch_of(0, 2)[0]["video"]).isfinite().all() else "not finite")
print("it begins in:", [name for name, _ in patient.named_modules()][found])

# %% [markdown]
# The trainer does the same when a loss or a gradient is not finite: it takes the batch once more with listeners everywhere, says step, place and clip, saves the state *before* the step, and stops. One film of
# our data gets a broken pixel:


# %%
class OneBadClip(Dataset):
    """The clips, of which number 17 has an infinite pixel."""

    def __len__(self) -> int:
        return len(clips)

    def captions(self) -> list[str]:
        return clips.captions()

    def __getitem__(self, which: tuple[int, int]) -> dict:
        item = clips[which]
        if which[0] == 17:
            item["video"] = item["video"].clone()
            item["video"][0, 2, 8, 8] = float("inf")
        return item


try:
    Trainer(NoisePredictionTask(config, OneBadClip()), config, folder / "bad", progress=False).run()
except UserError as error:
    print(str(error).partition(";")[0])

# %% [markdown]
# With `training.not_finite skip` it would leave that batch out, count it, and go on; after five in a row it stops, since then it is not the data.
#
# ## 9 · Your film looks like this? Look here.
#
# The most useful page of this lesson. Each film below is *ill* in a way that you will meet. Each was made on purpose from the shipped networks or the trainings above, by one wrong line. First, a healthy one:

# %% tags=["nbval-ignore-output"]
healthy = shipped(PROMPTS, seed=seed, steps=12)
viz.player(healthy, PROMPTS, columns=4, fps=4, scale=4)


# %% [markdown]
# And seven **signs** to measure, as a doctor takes temperature and pulse. Films (B, 3, T, H, W) in [−1, 1]:


# %%
def signs(films: Tensor, prompts: Sequence[str] | None = None) -> dict[str, float]:
    """Numbers about films; what each means stands beside it."""
    lit = films.amax(1) > -0.5
    steps = [(films[:, :, k:] - films[:, :, :-k]).abs().mean() for k in (1, 2)]
    across = (films[..., 1:] - films[..., :-1]).abs().mean((0, 1, 2, 3))
    border = torch.arange(len(across)) % 4 == 3
    found = {"sky": films.median(), "lit": lit.float().mean()}  # the night; the share that is not night
    edges = [(films[..., 1:, :] - films[..., :-1, :]).abs().mean(), (films[..., 1:] - films[..., :-1]).abs().mean()]
    found["sharp"] = (
        sum(edges) / (films - found["sky"]).abs().mean()
    )  # steps between neighbours, against the light there is
    found["jumpy"] = steps[0] / steps[1]  # change in one frame against change in two: 1 when order means nothing
    found["blocks"] = across[border].mean() / across[~border].mean()  # steps at every 4th pixel against the others
    found["spread"] = films.std(0).mean()  # how much films of different prompts differ
    obeyed = [
        match(verdict, parse_caption(text)) for verdict, text in zip(judge(films), prompts or PROMPTS, strict=True)
    ]
    return {name: value.item() for name, value in found.items()} | {"obeys": sum(obeyed) / len(obeyed)}


# %% [markdown]
# What is normal? Ask sixteen rendered clips (nothing was asked of them, so the last sign is left out), and the healthy films:

# %% tags=["nbval-ignore-output"]
real = render(
    sample_scenes(16, generator=torch.Generator().manual_seed(seed + 1)),
    9,
    32,
    generator=torch.Generator().manual_seed(seed + 2),
)
normal = signs(real, ["a large red peony"] * 16)
print("rendered clips: ", "  ".join(f"{name} {value:.2f}" for name, value in normal.items() if name != "obeys"))
print("healthy samples:", "  ".join(f"{name} {value:.2f}" for name, value in signs(healthy).items()))

# %% [markdown]
# Now the ward. Four illnesses of **scale and sampling**:
#
# * *grey sky, burnt colours*: the network works on films of mean 0 and size 1, and somebody forgot to bring its output back (`denormalize`; with a VAE: `scale_factor` and `shift_factor`, lesson 03);
# * *never clears*: the input is scaled wrongly, so the network sees less noise than it is told, and leaves a dim film full of grain;
# * *fog*: too few steps, and everything is the mean of what it could be;
# * *posters*: guidance far too strong, shapes fall apart into a lattice, and obedience, for which it was turned up, is lost.


# %% tags=["nbval-ignore-output"]
class WronglyScaled(nn.Module):
    """The network, handed its input at 0.3 of its size."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, *told, **named) -> Tensor:
        return self.unet(0.3 * x, *told, **named)


ward = {"grey sky": shipped.diffusion.normalize(healthy).clamp(-1, 1)}
misled = UnetPipeline(WronglyScaled(shipped.unet), shipped.diffusion, shipped.words, shipped.config)
ward["never clears"] = misled(PROMPTS, seed=seed, steps=12)
ward["fog"] = shipped(PROMPTS, seed=seed, steps=2)
ward["posters"] = shipped(PROMPTS, seed=seed, steps=12, guidance=15.0)

# %% [markdown]
# Four of **order and words**:
#
# * *flicker*: frames in the wrong order, by one wrong `rearrange`: (T, B) read as (B, T), or files sorted as 1, 10, 11, 2;
# * *blocks*: patches put back with height and width swapped;
# * *deaf*: every caption was dropped, or the guidance is 0;
# * *always the same film*: the seed is set inside the loop, or every worker has the same one.

# %% tags=["nbval-ignore-output"]
order = torch.randperm(healthy.shape[2], generator=torch.Generator().manual_seed(3))
ward["flicker"] = healthy[:, :, order]
patches = rearrange(healthy, "b c t (h p) (w q) -> b c t h w p q", p=4, q=4)
ward["blocks"] = rearrange(patches, "b c t h w q p -> b c t (h p) (w q)")
ward["deaf"] = shipped(PROMPTS, seed=seed, steps=12, guidance=0.0)
ward["always the same"] = torch.cat([shipped(PROMPTS[:1], seed=seed, steps=6) for _ in range(2)]).repeat(2, 1, 1, 1, 1)

# %% [markdown]
# And two of **training**, from the runs above: the average that had *no warm-up* (the weights themselves were fine!), and the weights after a *learning rate × 100*. They are films of 16×16 pixels, drawn larger.

# %% tags=["nbval-ignore-output"]
ward["cold average"] = F.interpolate(films_of(averages.cold), scale_factor=(1, 2, 2))
ward["rate x 100"] = F.interpolate(films_of(wild.ema.module), scale_factor=(1, 2, 2))
viz.player(
    [film for films in ward.values() for film in films[:2]],
    [name for name in ward for _ in range(2)],
    columns=4,
    fps=4,
    scale=4,
)

# %% [markdown]
# You see them; a script at night does not. Here is its eye: for each sign a range that is normal, and the names of those that are not.

# %% tags=["nbval-ignore-output"]
RANGE = {"sky": (-1.0, -0.85), "lit": (0.01, 0.25), "sharp": (0.55, 0.85), "jumpy": (0.0, 0.85)}
RANGE |= {"blocks": (0.8, 1.25), "spread": (0.03, 0.3), "obeys": (0.5, 1.0)}
print(f"{'':16}" + "".join(f"{name:>8}" for name in RANGE))
for name, films in {"healthy": healthy, **ward}.items():
    measured = signs(films)
    alarms = [sign for sign, (low, high) in RANGE.items() if not low <= measured[sign] <= high]
    print(f"{name:16}" + "".join(f"{value:8.2f}" for value in measured.values()) + "   " + ", ".join(alarms))

# %% [markdown]
# | your film | look first at | the sign |
# |---|---|---|
# | grey sky, burnt colours | un-normalising after sampling or decoding | sky |
# | dim, grain that never clears | scaling of the input; prediction type (noise, x0, v) | sharp, jumpy |
# | fog, soft balls | number of steps; then the length of the training | sharp |
# | posters, a lattice over the shapes | guidance | sharp, obeys |
# | flicker | order of frames in `rearrange`, in the loader | jumpy |
# | blocks, a grid | patchify, unpatchify; decoding in tiles | blocks |
# | nice films of something else | captions dropped, text mask, guidance | obeys |
# | always the same film | seeds | spread |
# | nothing but a pattern, though the loss is low | the average: its warm-up, its decay | spread |
# | confetti; the loss rose at once | learning rate | the loss |
# | NaN | `first_not_finite`; then clips, precision, learning rate | the trainer |
# | out of memory | the plan of section 1 | `minivdm plan` |
#
# More of them, each beside the right film from the same noise, with the exercise whose mistake it is: [the atlas of symptoms](../docs/symptoms/README.md).
#
# One illness has no sign in a single film: the **missing text mask** (lesson 09). The film is fine, and it is *another* one when the same sentence is padded to another length. So the test needs two lengths:

# %% tags=["nbval-ignore-output"]
text_to_video = TextToVideoPipeline.from_pretrained("toy")
drift, pair = [], []
for masked in (True, False):
    short, long = (TextEmbedder(checkpoint_dir("toy/t5"), length, attention_mask=masked) for length in (12, 48))
    one, other = (ear(PROMPTS[:1])[0][0, :9] for ear in (short, long))  # nine tokens, the last of them </s>
    drift.append(((other - one).norm() / one.norm()).item())
    heard = TextToVideoPipeline(text_to_video.denoiser, long, text_to_video.vae, text_to_video.settings)
    pair.append(heard(PROMPTS[0], seed=seed, steps=10)[0])
print(f"padded to 48 and not to 12, the words move by {drift[0]:.1%} with a mask, by {drift[1]:.1%} without")
viz.player(pair, ["with a mask", "without"], columns=2, fps=6, scale=3)

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. A colleague resumes a run and sees the loss jump for a hundred steps. Name two causes, and for each the one measurement that tells.
# 2. Why is "randomness as a function of a counter" also the simplest way to train on eight machines?
# 3. Your GPU has 24 GB, the plan says 31. In which order do you try what, and which of these change the result of the training?
# 4. Half of the steps of a float16 run are left out. Is that a bug? What would you look at?
# 5. Take one row of the table of symptoms and find a *second* cause that would look the same. How would you tell the two apart?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# Your own training. `minivdm plan --preset small --gpu 24GB`, `minivdm train unet3d --preset small --data FOLDER --run runs/mine`, Ctrl-C when you need the machine, `--resume` when you do not. If the films look wrong, come
# back to section 9.
#
# **Where it lives:** `minivdm/planner/` counts before anything runs. `minivdm/training/trainer.py` is the loop, `randomness.py` the order and the noise, `checkpoint.py` the saving, `interrupts.py` Ctrl-C, `not_finite.py` the
# search for the first bad layer, `precision.py` the 16 bits, `ema.py` the average. Your functions that passed are kept in `workbook/`.
#
# **Read on:** Kingma and Ba, *Adam* (2015), on what its two averages are for. Micikevicius et al., *Mixed Precision Training* (2018), loss scaling. Chen et al., *Training Deep Nets with Sublinear Memory Cost* (2016), checkpointing.
# Pillai et al., *All File Systems Are Not Created Equal* (2014), on what a power cut really leaves. Karpathy, *A Recipe for Training Neural Networks* (2019), the best page on patience.
