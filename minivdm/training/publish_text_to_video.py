"""Make the shipped text-to-video model out of a run of `minivdm train stdit3`, measured, with a model card.

    python -m minivdm.training.publish_text_to_video runs/stdit3-toy checkpoints/toy/text_to_video

The averaged weights are stored in half precision, and what the card says is measured on the weights that are written.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm.config import Config, load_config
from minivdm.data.io import write_video
from minivdm.data.scenes import Scene
from minivdm.errors import UserError
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.pipelines.trained import trained_weights
from minivdm.training.checkpoint import load_newest
from minivdm.training.evaluate_text_to_video import (
    draw,
    graded,
    realism,
    reconstructed,
    rendered,
    short_sentences,
    unseen_prompts,
)
from minivdm.training.lineage import EVALUATION, as_json, minutes_of, stages
from minivdm.training.parts import find_video_vae
from minivdm.training.tasks import tile
from minivdm.training.text_to_video_card import SHOWN, card
from minivdm.vae.metrics import psnr
from minivdm.vae.video import VideoAutoencoder
from minivdm.viz import contact_sheet

LEVEL = "scene"


def publish(
    run: Path, out: Path, films: int = 300, drawn: int = 1000, machine: str = "", vae: Path | None = None
) -> dict[str, Any]:
    """Export the newest checkpoint of `run` to `out`, grade `films` films of the test split, write the card.

    Where `run` began as another run (`flow.init`), that one has to be there still: the card tells how it was made.
    vae: a run of `minivdm train temporal_vae` whose decoders went on learning from those of `run`
        (`vae_loss.decoder_only`), to take instead. UserError when its latents are others.
    drawn: how many films the distance of Fréchet is measured on; the graded ones are among them.
    """
    folder, _ = trained_weights(run)
    config = load_config(folder / "config.yaml")
    made, told = stages(run), _told_of(config.flow.vae)  # before `out` is written, which may be where it began
    shipped = [part for part in ("text", "vae") if getattr(config.flow, part) == "toy"]
    pipeline = TextToVideoPipeline.from_pretrained(run)
    if vae is not None:
        pipeline.vae = _same_latents(pipeline.vae, find_video_vae(str(vae)), vae)
    pipeline.save_pretrained(out, shipped=shipped, dtype=torch.float16)
    for page in out.rglob("README.md"):  # huggingface_hub writes some that say nothing
        page.unlink()
    for source in (folder / "config.yaml", run / "loss.png", run / "metrics.jsonl"):
        shutil.copy(source, out / source.name)

    started = time.perf_counter()
    pipeline = TextToVideoPipeline.from_pretrained(out)
    seconds = {"loading": time.perf_counter() - started} | _seconds(pipeline)
    how = pipeline.settings
    prompts, scenes = unseen_prompts(drawn, LEVEL, seed=1)
    videos = draw(pipeline, prompts, seed=0)
    results = {
        "stages": as_json(made),
        "decoder": told.get("decoder") if vae is None else _more_of_the_decoder(vae),
        "minutes": told.get("minutes", {})
        | {"denoiser": round(sum(stage.minutes for stage in made), 1)}
        | _minutes_of_the_vae(config, vae),
        "parameters": {part: _count(getattr(pipeline, part)) for part in ("denoiser", "text", "vae")},
        "sampler": f"{how.steps} Euler steps, guidance {how.guidance:g}, eta {how.eta:g}",
        "drawn": graded(videos[:films], prompts[:films], scenes[:films]),
        **_reconstructed(pipeline, prompts[:films], scenes[:films]),
        "frechet": realism(videos, scenes, pipeline) | {"films": drawn},
        "guidance": {
            f"{scale:g}": graded(draw(pipeline, prompts[:96], seed=0, guidance=scale), prompts[:96], scenes[:96])
            for scale in (1.0, 3.0)
        },
        "short": short_sentences(pipeline),
        "seconds": seconds,
    }
    _show(pipeline, out)
    (out / EVALUATION).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "MODEL_CARD.md").write_text(card(config, results, machine), encoding="utf-8")
    return results


def _same_latents(old: VideoAutoencoder, new: VideoAutoencoder, source: Path) -> VideoAutoencoder:
    """`new`, if its encoders are those of `old`."""
    weights = new.state_dict()
    for name, weight in old.state_dict().items():
        decodes = any(part in name for part in ("decoder.", "post_quant_conv.", "shortcut_out."))
        if not decodes and not torch.equal(weight, weights[name]):
            raise UserError(
                f"{source} makes other latents than the denoiser knows: {name} differs; train it decoder_only"
            )
    return new


def _told_of(vae: str) -> dict[str, Any]:
    """What was measured when this VAE was published, as part of another text-to-video model; {} if it was not."""
    file = Path(vae).parent / EVALUATION
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _more_of_the_decoder(run: Path) -> dict[str, int]:
    """How long the decoder of `run` went on learning, and on how many clips."""
    folder, state, _ = load_newest(run)
    return {"steps": state["step"], "clips": load_config(folder / "config.yaml").data.clips}


def _minutes_of_the_vae(config: Config, decoder: Path | None) -> dict[str, float]:
    """What its trainings took that are still there, or are told of where their VAE was published."""
    runs, told = {"its decoder alone": decoder} if decoder else {}, {}
    if config.flow.vae != "toy":
        runs |= {"2D VAE": Path(config.vae_loss.vae2d), "temporal VAE": Path(config.flow.vae)}
        minutes = _told_of(str(runs["2D VAE"].parent)).get("minutes", {})
        told = {name: spent for name, spent in minutes.items() if name == "2D VAE"}
    there = {name: round(minutes_of(run), 1) for name, run in runs.items() if (run / "metrics.jsonl").is_file()}
    return told | there


def _seconds(pipeline: TextToVideoPipeline) -> dict[str, float]:
    """From a prompt to its GIF, the second time: the first one warms up."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            started = time.perf_counter()
            film = pipeline(SHOWN[0], seed=0)
            write_video(Path(folder) / "film.gif", film[0], fps=pipeline.settings.fps)
            elapsed = time.perf_counter() - started
    return {"prompt to GIF": elapsed, "threads": torch.get_num_threads()}


def _reconstructed(pipeline: TextToVideoPipeline, prompts: list[str], scenes: list[Scene]) -> dict[str, Any]:
    """What the judge reads from rendered clips that went through the VAE, and how near these come back, in dB."""
    settings = pipeline.settings
    clips = rendered(scenes, settings.frames, (settings.height, settings.width), seed=3)
    again = reconstructed(clips, pipeline.vae)
    return {"reconstructed": graded(again, prompts, scenes), "psnr": psnr(clips, again).mean().item()}


def _show(pipeline: TextToVideoPipeline, out: Path) -> None:
    films: Tensor = draw(pipeline, SHOWN, seed=0)
    enlarged = tile(films).repeat_interleave(4, -1).repeat_interleave(4, -2)
    write_video(out / "samples.gif", enlarged, fps=pipeline.settings.fps)
    contact_sheet(films, SHOWN).save(out / "contact_sheet.png")


def _count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--films", type=int, default=300, help="films that are graded")
    parser.add_argument("--drawn", type=int, default=1000, help="films for the Fréchet distance")
    parser.add_argument("--vae", type=Path, help="run of a temporal VAE whose decoder went on learning")
    parser.add_argument("--machine", default="", help="a sentence for the card: where it was trained and for how long")
    options = parser.parse_args()
    found = publish(options.run, options.out, options.films, options.drawn, options.machine, options.vae)
    print(json.dumps(found["drawn"], indent=1))
