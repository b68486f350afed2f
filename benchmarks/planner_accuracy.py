"""Does a training take the memory that `minivdm plan` says?

    python benchmarks/planner_accuracy.py                       every task of toy and toy_64, and small at batches that fit
    python benchmarks/planner_accuracy.py toy:unet3d:16         some of them: PRESET:TASK:BATCH

Every training runs in a process of its own: the real Trainer takes three steps on a few clips, in single precision on the
CPU. Measured is how much its resident memory grew, at the highest, above that of a process that has imported everything
(the interpreter and torch are some 300 MB that no plan is about). Networks that others stand on have random weights.
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
            building, standing = seen.peak, seen.bytes[-1]
            with watch_memory(0.05) as seen, contextlib.suppress(_Done):
                trainer.run()
            steps.append(standing + seen.peak)
            del task, trainer
            gc.collect()
    moments = {moment.name: int(moment.total) for moment in said.moments}
    row = {"batch": config.training.batch_size, "building": building, "steps": steps, "said": moments}
    print(json.dumps(row | {"parts": {name: int(size) for name, size in said.peak.parts.items()}}))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2])
        return
    print("preset:task:batch            steps MiB    planned   off     building MiB  planned")
    for case in sys.argv[1:] or CASES:
        done = subprocess.run(
            [sys.executable, __file__, "measure", case], capture_output=True, text=True, env=os.environ
        )
        if done.returncode:
            print(f"{case}: {done.stderr.strip().splitlines()[-1]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        planned = max(row["said"]["step"], row["said"]["optimizer"])
        name = ":".join([*case.split(":")[:2], str(row["batch"])])
        print(
            f"{name:<26}{row['steps'][0] / MIB:12.1f}{row['steps'][1] / MIB:12.1f}{planned / MIB:11.1f}{planned / row['steps'][0] - 1:+7.1%}"
            f"{row['building'] / MIB:15.1f}{row['said']['caching'] / MIB:10.1f}",
            {k: v >> 20 for k, v in row["parts"].items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
