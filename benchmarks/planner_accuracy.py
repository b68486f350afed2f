"""Does a training take the memory that `minivdm plan` says?

    python benchmarks/planner_accuracy.py                   every task of toy and toy_64, and small at batches that fit
    python benchmarks/planner_accuracy.py toy:unet3d:16     some of them: PRESET:TASK:BATCH, batch 0 for the preset's

Each training runs in a process of its own: the Trainer takes three steps on a few clips, in float32 on the CPU.
Measured is the most that its resident memory grew above what the process had when everything was imported: the
interpreter and torch take some 300 MB, which no plan is about. Networks that others stand on have random weights.
Measured twice: as trainings run, and with an allocator that gives freed memory back at once, which takes less memory
and more time. The second is what the plan is made of before the share of the allocator is added.
"""

import contextlib
import gc
import json
import os
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


def measure(case: str) -> None:
    """Train in this process, and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        config = configuration(case, Path(name))
        import transformers.models.t5.modeling_t5  # noqa: F401  before the first look: it takes 100 MB

        import minivdm.training.toy_t5_task  # noqa: F401
        import minivdm.training.trainer as training
        from minivdm.memory import watch_memory
        from minivdm.planner.memory import measure as plan
        from minivdm.training.start import make_task

        said = plan(config, "cpu").plan(config.training.batch_size)
        steps = []
        for allocator in (lambda: None, training.keep_freed_memory):
            training.keep_freed_memory = allocator
            with watch_memory(0.05) as seen:
                task = make_task(config)
                trainer = training.Trainer(task, config, Path(name) / "run", progress=False)
            task.metrics = _stop
            standing = seen.bytes[-1]
            with watch_memory(0.05) as seen, contextlib.suppress(_Done):
                trainer.run()
            steps.append(standing + seen.peak)
            del task, trainer
            gc.collect()
    moments = {moment.name: int(moment.total) for moment in said.moments}
    kept_free = said.peak.parts.get("free memory that is kept", 0)
    row = {"batch": config.training.batch_size, "steps": steps, "said": moments, "kept_free": int(kept_free)}
    print(json.dumps(row))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2])
        return
    print("preset:task:batch           steps   planned     off   gives back   planned     off   (MiB)")
    for case in sys.argv[1:] or CASES:
        done = subprocess.run(
            [sys.executable, __file__, "measure", case], capture_output=True, text=True, env=os.environ
        )
        if done.returncode:
            print(f"{case}: {done.stderr.strip().splitlines()[-1]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        planned = max(row["said"]["step"], row["said"]["optimizer"])
        bare = planned - row["kept_free"]
        name = ":".join([*case.split(":")[:2], str(row["batch"])])
        gives_back, as_run = row["steps"]
        print(
            f"{name:<24}{as_run / MIB:9.1f}{planned / MIB:10.1f}{planned / as_run - 1:+8.1%}"
            f"{gives_back / MIB:13.1f}{bare / MIB:10.1f}{bare / gives_back - 1:+8.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
