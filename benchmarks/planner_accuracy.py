"""Does a training take the memory that `minivdm plan` says?

    python benchmarks/planner_accuracy.py > benchmarks/PLANNER.md   toy, toy_64, and small at batches that fit
    python benchmarks/planner_accuracy.py toy:unet3d:16             PRESET:TASK:BATCH, batch 0 for the preset's

Each training runs in a process of its own: the Trainer takes three steps on a few clips, in float32 on the CPU.
Measured is the most that its resident memory grew above what the process had before: after a first, tiny training, for
the interpreter and torch take some 350 MB, part of it at the first step only, which no plan is about. Networks that
others stand on have random weights.
Measured twice: as trainings run, and with an allocator that gives freed memory back at once, which takes less memory
and more time. The second is what the plan is made of before the share of the allocator is added.
"""

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 2**20
CASES = [
    f"{preset}:{task}:0"
    for preset in ("toy", "toy_64")
    for task in ("unet3d", "vae2d", "temporal_vae", "toy_t5", "stdit3")
]
CASES += ["small:unet3d:1", "small:vae2d:2", "small:temporal_vae:2", "small:toy_t5:16", "small:stdit3:8"]
STEPS = 3
PAGE = """# What a training takes, and what its plan said

Made by `python benchmarks/planner_accuracy.py`. The highest memory of a training on the CPU in float32 (resident, above
what the process had before), beside what `minivdm plan` says. *As run*: with our allocator (`minivdm/allocator.py`),
which the plan counts in. *Returning*: with freed memory given back at once, and without that share of the plan.

| preset:task:batch | as run, MiB | planned | off | returning, MiB | planned | off |
|---|---|---|---|---|---|---|"""


def configuration(case: str, folder: Path):
    """The preset with few clips and the given batch (0: its own); untrained parts are written to `folder`."""
    from minivdm.config import load_preset
    from minivdm.vae import AutoEncoder2D, TemporalVAE, VideoAutoencoder

    preset, task, batch = case.split(":")
    overrides = {"training.precision": "fp32", "training.accumulate": 1, "flow.cache": None, "vae_loss.init": None}
    overrides |= {"training.steps": STEPS + 1, "training.log_every": STEPS}
    if int(batch):
        overrides["training.batch_size"] = int(batch)
    config = load_preset(preset, overrides, task=task)
    overrides |= {"data.clips": 2 * config.training.batch_size}
    if task == "temporal_vae":
        AutoEncoder2D(config.vae2d).save_pretrained(folder / "vae2d")
        overrides["vae_loss.vae2d"] = str(folder / "vae2d")
    if task == "stdit3":
        vae = VideoAutoencoder(AutoEncoder2D(config.vae2d), TemporalVAE(config.temporal_vae))
        vae.save_pretrained(folder / "vae")
        overrides["flow.vae"] = str(folder / "vae")
    return load_preset(preset, overrides, task=task)


class _Done(Exception):
    """Raised instead of writing the log of the last step: checkpoints and samples are not what is measured."""


def _stop() -> dict[str, float]:
    raise _Done


def first_training(folder: Path) -> None:
    """Everything that is imported or made at the first step of a process, by as small a training as there is."""
    from minivdm.config import load_preset
    from minivdm.training.start import make_task
    from minivdm.training.trainer import Trainer

    sizes = {"data.clips": 2, "training.batch_size": 1, "training.steps": 2, "training.log_every": 1}
    config = load_preset("toy", sizes | {"toy_t5.num_layers": 1, "training.precision": "fp32"}, task="toy_t5")
    Trainer(make_task(config), config, folder, progress=False).run()


def measure(case: str, allocator: str) -> None:
    """Train in this process, and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        first_training(Path(name) / "first")
        config = configuration(case, Path(name))
        import minivdm.training.trainer as training
        from minivdm.memory import watch_memory
        from minivdm.planner.memory import measure as plan
        from minivdm.training.start import make_task

        said = plan(config, "cpu").plan(config.training.batch_size)
        gc.collect()
        if allocator == "returning":
            training.keep_freed_memory = lambda: None
        with watch_memory(0.05) as seen:
            task = make_task(config)
            trainer = training.Trainer(task, config, Path(name) / "run", progress=False)
        task.metrics = _stop
        standing = seen.bytes[-1]
        with watch_memory(0.05) as seen, contextlib.suppress(_Done):
            trainer.run()
    moments = {moment.name: int(moment.total) for moment in said.moments}
    kept_free = said.peak.parts.get("free memory that is kept", 0)
    row = {"batch": config.training.batch_size, "step": standing + seen.peak, "said": moments}
    print(json.dumps(row | {"kept_free": int(kept_free)}))


def measured(case: str, allocator: str) -> dict:
    """What `measure` says, of a process of its own. RuntimeError with the last line of what went wrong."""
    command = [sys.executable, __file__, "measure", case, allocator]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        measure(*sys.argv[2:])
        return
    print(PAGE)
    for case in sys.argv[1:] or CASES:
        try:
            rows = [measured(case, allocator) for allocator in ("keeping", "returning")]
        except RuntimeError as error:
            print(f"{case}: {error}")
            continue
        name = ":".join([*case.split(":")[:2], str(rows[0]["batch"])])
        planned = [max(row["said"]["step"], row["said"]["optimizer"]) for row in rows]
        planned[1] -= rows[1]["kept_free"]
        print(f"| {name} {_compared(rows[0], planned[0])}{_compared(rows[1], planned[1])[1:]}", flush=True)


def _compared(row: dict, planned: float) -> str:
    return f"| {row['step'] / MIB:,.1f} | {planned / MIB:,.1f} | {planned / row['step'] - 1:+.1%} |"


if __name__ == "__main__":
    main()
