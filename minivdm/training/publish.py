"""Make a shipped checkpoint out of a run: averaged weights in half precision, measured, with a model card.

    python -m minivdm.training.publish runs/unet3d-toy checkpoints/toy/unet3d

What the card says about quality is measured here, on films drawn from the very weights that are written.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch

from minivdm.data.io import write_video
from minivdm.pipelines import UnetPipeline, pick_device
from minivdm.training.checkpoint import load_newest, read_tensors
from minivdm.training.evaluation import ATTRIBUTES, distance, evaluate
from minivdm.training.tasks import tile
from minivdm.viz import contact_sheet

SHOWN = [
    "a large red peony high on the left",
    "a small blue ring low on the right",
    "a large gold willow high on the left",
    "a large green ring low in the centre",
    "a large purple palm high on the right",
    "a small white peony high in the centre",
    "a large cyan spiral high in the centre",
    "a large orange crossette low on the left",
]

CARD = """# Toy Unet3D: one firework from a caption

![films drawn by this model](samples.gif)

A `denoisers.Unet3D` of {parameters:,} parameters that draws {frames} frames of {size}×{size} pixels. It hears a caption
as a bag of {words} words. The weights are averages over the last steps (EMA), stored in half precision.

## Recipe
{steps:,} steps of {batch} clips, drawn from {source}; {precision}, learning rate {rate}. {machine}
Every setting is in `config.yaml`, the log in `metrics.jsonl` and `loss.png`. To make it again:

    {command}
    python -m minivdm.training.publish runs/toy checkpoints/toy/unet3d

## Measured quality
By `minivdm.data.judge`, on {clips} films per line ({sampler}). The judge is a network too; how often it is right
is in its own card, and the first line shows it on rendered clips with the same captions.

| films | legal shell | all as asked | colour | shape | size | place |
|---|---|---|---|---|---|---|
{quality}

All as asked: {seen:.0%} where the colour and shape occur together in training, {held_out:.0%} where they never do.

Are the proportions right? Total variation between what the judge found and what it should be: 0 is equal, and
{clips} films drawn from exactly the right proportions would show about {noise:.2f} for the eight colours.

| attribute | asked for | left free, against the training data | never drawn when left free |
|---|---|---|---|
{proportions}

![frames of the films above](contact_sheet.png)

## Limits
One shell per clip. Two shells in a caption come out as a mixture, because a bag of words cannot say which colour
belongs to which shell. Fine structure is soft. A shell without a visible rise is not legal for the judge, and what is
not legal is not as asked. The model has seen nothing but rendered fireworks. Licence: Apache-2.0.
"""


def publish(run: Path, out: Path, clips: int = 100, machine: str = "") -> dict[str, Any]:
    """Export the newest checkpoint of `run` to `out`, draw and grade `clips` films per question, write the card."""
    folder, state, _ = load_newest(run)
    out.mkdir(parents=True, exist_ok=True)
    averages = read_tensors(folder / "ema.safetensors")
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in averages.items()}
    safetensors.torch.save_file(halves, out / "model.safetensors")
    for source in (folder / "config.yaml", folder / "vocabulary.json", run / "loss.png", run / "metrics.jsonl"):
        shutil.copy(source, out / source.name)
    pipeline = UnetPipeline.from_pretrained(out).to(pick_device())
    results = evaluate(pipeline, clips)
    (out / "evaluation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    films = pipeline(SHOWN, seed=0, progress=True).cpu()
    large = tile(films).repeat_interleave(4, -1).repeat_interleave(4, -2)
    write_video(out / "samples.gif", large, fps=pipeline.config.data.fps)
    contact_sheet(films, SHOWN).save(out / "contact_sheet.png")
    (out / "MODEL_CARD.md").write_text(_card(pipeline, state["step"], results, machine), encoding="utf-8")
    return results


def _card(pipeline: UnetPipeline, steps: int, results: dict[str, Any], machine: str) -> str:
    data, training = pipeline.config.data, pipeline.config.training
    origin = f"--data {data.folder}" if data.folder else f"--data.clips {data.clips}"
    command = (
        f"minivdm train unet3d --preset {pipeline.config.preset} {origin} --training.precision {training.precision}"
    )
    colours = results["data_shares"]["colour"].values()
    return CARD.format(
        parameters=sum(parameter.numel() for parameter in pipeline.unet.parameters()),
        frames=data.frames,
        size=data.size,
        words=pipeline.words.dim,
        steps=steps,
        batch=training.batch_size * training.accumulate,
        source=data.folder or f"{data.clips:,} rendered clips of the training split",
        precision=training.precision,
        rate=training.learning_rate,
        machine=machine,
        command=f"{command} --run runs/toy",
        clips=results["clips"],
        sampler=results["sampler"],
        quality=_quality(results),
        seen=results["joint_seen"],
        held_out=results["joint_held_out"],
        # mean absolute deviation of a binomial share, summed over the values and halved
        noise=sum((2 * share * (1 - share) / (3.1416 * results["clips"])) ** 0.5 for share in colours) / 2,
        proportions=_proportions(results),
    )


def _quality(results: dict[str, Any]) -> str:
    asked = ("joint", "colour", "shape", "size", "place")
    lines = [
        f"| {name} | {right['legal']:.0%} | " + " | ".join(f"{right[key]:.0%}" for key in asked) + " |"
        for name, right in (
            ("rendered", results["rendered"]),
            ("this model, captions of the test split", results["prompted"]),
        )
    ]
    lines.append(f"| this model, no caption | {results['free']['legal']:.0%} |" + " |" * len(asked))
    chance = results["prompted"]["chance"]
    lines.append("| guessing | | " + " | ".join(f"{chance[key]:.0%}" for key in asked) + " |")
    return "\n".join(lines)


def _proportions(results: dict[str, Any]) -> str:
    lines = []
    for name in ATTRIBUTES:
        free, data = results["free"]["shares"][name], results["data_shares"][name]
        asked = distance(results["prompted"]["shares"][name], results["asked_shares"][name])
        never = ", ".join(sorted(set(data) - set(free))) or "none"
        lines.append(f"| {name} | {asked:.2f} | {distance(free, data):.2f} | {never} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=100, help="films per question")
    parser.add_argument("--machine", default="", help="a sentence for the card: where it was trained and for how long")
    options = parser.parse_args()
    print(json.dumps(publish(options.run, options.out, options.clips, options.machine), indent=1))
