"""The main job in a few minutes: films from three sentences; then train on the fireworks GIFs, stop, resume, sample.

`make demo` runs this. Everything it makes is in `outputs/demo/`.
"""

import shutil
import sys
import time
from pathlib import Path

from minivdm.cli import EXIT_USER_ERROR
from minivdm.errors import UserError
from minivdm.paths import repo_root

OUT = Path("outputs/demo")
STEPS, STOP_AT = 120, 60
SENTENCES = [
    "a large red peony high on the left",
    "a large gold willow in the upper centre, then a small blue ring low on the right",
    "a large green palm low on the left and a small purple ring high on the right",
]
PROMPTS = [
    "a large red peony high on the left",
    "a small blue ring low on the right",
    "a large gold willow in the centre",
    "a large green ring",
    "a purple palm high on the right",
    "a small white peony",
    "a cyan spiral",
    "an orange crossette",
]


def films_from_text(out: Path, steps: int | None = None) -> None:
    """A film for each of SENTENCES from the shipped text-to-video model, written as GIFs."""
    from minivdm.pipelines.write_films import sample_films

    print("1. Films from three sentences, drawn by the shipped text-to-video model.")
    started = time.perf_counter()
    films = sample_films(SENTENCES, out / "text", checkpoint="toy", model="stdit3", steps=steps)
    for path, sentence in zip(films, SENTENCES, strict=True):
        print(f"   {path}  {sentence}")
    print(f"   made in {time.perf_counter() - started:.0f} s")


def main(out: Path = OUT, steps: int = STEPS, stop_at: int = STOP_AT, sampling_steps: int = 25) -> None:
    """Films from text; then train `stop_at` steps, resume up to `steps`, sample from this model and the shipped one."""
    import torch

    from minivdm.config import load_preset
    from minivdm.data.io import write_video
    from minivdm.pipelines import UnetPipeline, pick_device
    from minivdm.training.tasks import NoisePredictionTask, tile
    from minivdm.training.trainer import Trainer
    from minivdm.viz import contact_sheet

    started = time.perf_counter()
    run = out / "run"
    if out.exists():
        shutil.rmtree(out)
    films_from_text(out, sampling_steps)
    gifs = repo_root() / "datasets" / "fireworks_toy"
    overrides = {
        "data.folder": str(gifs),
        "training.milestone_every": stop_at,
        "training.log_every": 5,
        "sampling.steps": sampling_steps,
    }
    print(f"2. Train the toy Unet3D on the GIFs in {gifs.relative_to(repo_root())} for {stop_at} steps, then stop.")
    config = load_preset("toy", overrides | {"training.steps": stop_at, "training.decay_from": 1.0})
    Trainer(NoisePredictionTask(config), config, run).run()
    print(f"3. Resume the run from its checkpoint and go on to step {steps}.")
    config = load_preset("toy", overrides | {"training.steps": steps, "training.decay_from": 1.0})
    Trainer(NoisePredictionTask(config), config, run, resume=True).run()
    print("4. Sample: this model, and the shipped one (same recipe, trained for longer).")
    films = {}
    for name, source in {"minutes": run, "shipped": "toy"}.items():
        pipeline = UnetPipeline.from_pretrained(source).to(pick_device())
        films[name] = pipeline(PROMPTS, steps=sampling_steps, seed=0, progress=True).cpu()
        enlarged = tile(films[name]).repeat_interleave(4, -1).repeat_interleave(4, -2)
        write_video(out / f"samples_{name}.gif", enlarged, fps=config.data.fps)
    shutil.copy(run / "loss.png", out / "loss.png")
    labels = [f"{name}: {prompt}" for name in films for prompt in PROMPTS]
    contact_sheet(torch.cat(list(films.values())), labels).save(out / "contact_sheet.png")
    print(f"\nMade in {time.perf_counter() - started:.0f} s:")
    for path, what in {
        "text/": "a film for each of three sentences, by the shipped text-to-video model",
        "loss.png": "the loss, falling",
        "samples_minutes.gif": f"eight films after {steps} steps: blobs that flicker",
        "samples_shipped.gif": "the same prompts, drawn by the shipped model",
        "contact_sheet.png": "both, frame by frame",
        "run/": "the training run: checkpoints, log, samples",
    }.items():
        print(f"  {out / path}  {what}")
    print("\nNext: make lab   (JupyterLab with the lessons; start with notebooks/01_ddpm_math.ipynb)")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"minivdm: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
