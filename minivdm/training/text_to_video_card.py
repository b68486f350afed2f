"""The page beside the shipped text-to-video model: what it is, how it was made, what was measured, where it fails."""

from typing import Any

from minivdm.config import Config, load_preset
from minivdm.training.lineage import Stage

SHOWN = [
    "a large red peony high on the left",
    "a small blue ring low on the right",
    "a large gold willow in the upper centre",
    "a large green palm low on the left and a small purple ring high on the right",
    "a small cyan spiral high on the left, then a large orange crossette low on the right",
    "first a large white ring in the upper centre, then a small red willow at the bottom left",
    "a large blue peony high on the right while a small gold palm opens at the bottom right",
    "a large purple crossette at the top left and a large green ring at the bottom centre",
]

CARD = """# Toy text to video: fireworks from a sentence

![films drawn by this model](samples.gif)

Eight prompts, in rows: {shown}.

A `denoisers.STDiT3` of {denoiser:,} parameters, which draws {frames} frames of {size}×{size} pixels in the latents of
{autoencoders} ({vae:,} parameters
together), from texts as the [toy T5](../t5/MODEL_CARD.md) hears them ({text:,}). The averaged weights (EMA), in half
precision.

    minivdm sample "{example}"

    from minivdm.pipelines import TextToVideoPipeline
    video = TextToVideoPipeline.from_pretrained("toy")("{example}", seed=0)

## Recipe
{trainings} Each step took {batch} rendered clips of the training split (level {level}), in the last
training out of {clips:,}, as cached latents with a new wording in each epoch; rectified flow with {t_sampling} times,
{precision}; {drop:.0%} of the texts dropped; {given:.0%} of the clips with a first frame, a last one or both given.
{machine}
Every setting of the last training is in `config.yaml`, its log in `metrics.jsonl`. To make it again:

{commands}

![loss](loss.png)

## Measured quality
By `minivdm.data.judge`, on films drawn from {films} captions of the test split, half of which ask for combinations
that training never showed ({sampler}). *Joint*: number of shells, all that was said of each, and their order are
right. *Binding*: all the right colours, shapes, sizes and places, on the wrong shells. *VAE*: joint on rendered clips
that only went through the VAEs, which is about the most that this model could reach. Colour to place: shares of shells.

| films | number | joint | seen | unseen | binding | order | colour | shape | size | place | VAE | guessing |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{table}

Other strengths of guidance, on {guided} films: {guidance}.

How real they look: Fréchet distance to rendered clips, on what the judge's trunk sees of {drawn} films, in
thousandths: drawn {frechet_drawn:.1f}, rendered clips that went through the VAEs {frechet_vae:.1f}, other rendered
clips {frechet_floor:.1f} (the least there is).

From a prompt to its GIF {gif:.1f} s, on {threads} thread(s) of the machine that measured it;
loading {loading:.1f} s, once PyTorch and transformers are imported, which takes seconds.

![frames of the films above](contact_sheet.png)

## Limits
{limits}
It has seen nothing but rendered fireworks of 17 frames, and knows no words but those of `data.captions`. The judge is
a network too, and lenient about fine structure. Licence: Apache-2.0.
"""

# What stands in the card where the model works in the latents of the shipped VAEs, and where it has a pair of its own.
SHIPPED_VAE = """the [temporal VAE](../temporal_vae/MODEL_CARD.md) over the [2D VAE](../vae2d/MODEL_CARD.md)"""
OWN_VAE = """a temporal VAE over a 2D VAE of its own (`vae/`). This one began as the shipped
[2D VAE](../vae2d/MODEL_CARD.md) of half the picture size, with more channels in the latent (`training.growing`), the
temporal one from nothing; clips of the test split come back at {psnr:.1f} dB"""
DECODER = "--vae_loss.init runs/temporal_vae-{preset} --vae_loss.decoder_only true --data.clips {clips}"
OPTIMIZERS = {"adam": "Adam", "muon": "Muon"}

LIMITS = """Large willows and palms are lumpier than rendered ones, and small late bursts lose their shape: a few
thousand numbers per clip are few. Its films are more alike than rendered ones, which the distance of Fréchet shows and
guidance adds to. Three shells one after another are the hardest, and so are short sentences, which leave the place
open: of {short[films]} such as "a red ring" {short[joint]:.0%} are obeyed; most others are drawn twice or as an empty
sky, and another seed helps."""


def card(config: Config, results: dict[str, Any], machine: str) -> str:
    """The whole page."""
    flow, data, training = config.flow, config.data, config.training
    films = sum(kind["films"] for kind in results["drawn"].values())
    own = results["psnr"] if flow.vae != "toy" else None
    return CARD.format(
        autoencoders=SHIPPED_VAE if own is None else OWN_VAE.format(psnr=own),
        trainings=_trainings([Stage(**stage) for stage in results["stages"]]),
        commands="\n".join(f"    {command}" for command in _commands(config, results)),
        shown="; ".join(f"*{prompt}*" for prompt in SHOWN),
        example=SHOWN[4],
        denoiser=results["parameters"]["denoiser"],
        vae=results["parameters"]["vae"],
        text=results["parameters"]["text"],
        frames=data.frames,
        size=data.size,
        batch=training.batch_size * training.accumulate,
        clips=data.clips,
        level=data.level,
        t_sampling=flow.t_sampling,
        precision=training.precision,
        drop=training.null_cond_prob,
        given=flow.image_head + flow.image_tail + flow.image_head_tail,
        machine=machine,
        films=films,
        sampler=results["sampler"],
        table="\n".join(_row(name, kind, results["reconstructed"][name]) for name, kind in results["drawn"].items()),
        guided=sum(kind["films"] for kind in next(iter(results["guidance"].values())).values()),
        guidance="; ".join(
            f"{scale}: " + ", ".join(f"{name} {kind['joint']:.0%}" for name, kind in kinds.items())
            for scale, kinds in results["guidance"].items()
        ),
        drawn=results["frechet"]["films"],
        frechet_drawn=1000 * results["frechet"]["drawn"],
        frechet_vae=1000 * results["frechet"]["reconstructed"],
        frechet_floor=1000 * results["frechet"]["rendered"],
        gif=results["seconds"]["prompt to GIF"],
        threads=results["seconds"]["threads"],
        loading=results["seconds"]["loading"],
        limits=LIMITS.format(short=results["short"]),
    )


def _trainings(made: list[Stage]) -> str:
    """What each training did, in sentences."""
    told = []
    for stage in made:
        size = stage.settings.get("data.size") or load_preset(stage.preset, task="stdit3").data.size
        begun = " from those weights" if told else ""
        told.append(
            f"{stage.steps:,} steps on {size}×{size} pixels{begun}, with {OPTIMIZERS[stage.optimizer]} at a learning "
            f"rate of {stage.learning_rate:g} ({stage.minutes:.0f} min)"
        )
    grown = " Where the pictures grow, `training.growing` makes the larger model." if len(made) > 1 else ""
    return f"{'; then '.join(told)}.{grown}"


def _commands(config: Config, results: dict[str, Any]) -> list[str]:
    """From nothing but the shipped VAEs and T5 to this folder."""
    train, run = [], None
    if config.flow.vae != "toy":
        train += [f"minivdm train {task} --preset {config.preset}" for task in ("vae2d", "temporal_vae")]
    for number, stage in enumerate(results["stages"], start=1):
        before, run = run, f"runs/stdit3-{number}"
        train.append(Stage(**stage).command(run, before))
    publish = f"python -m minivdm.training.publish_text_to_video {run} checkpoints/toy/text_to_video"
    if (decoder := results["decoder"]) is not None:
        more = f"minivdm train temporal_vae --preset {config.preset} --run runs/decoder-{config.preset}"
        begun = DECODER.format(preset=config.preset, clips=decoder["clips"])
        train.append(f"{more} {begun} --training.steps {decoder['steps']}")
        publish = f"{publish} --vae runs/decoder-{config.preset}"
    return [*train, publish]


def _row(name: str, kind: dict[str, Any], rebuilt: dict[str, Any]) -> str:
    shares = ("joint", "seen", "unseen", "binding", "order", "colour", "shape", "size", "place")
    cells = [f"{kind[share]:.1%}" if share in kind else "" for share in shares]
    cells += [f"{rebuilt['joint']:.1%}", f"{kind['chance']['joint']:.2%}"]
    return f"| {name} | {kind['films']} | {' | '.join(cells)} |"
