"""Make a shipped checkpoint out of a run of `minivdm train vae2d` or `temporal_vae`, measured, with a model card.

    python -m minivdm.training.publish_vae runs/vae2d-toy checkpoints/toy/vae2d

The averaged weights are stored in half precision, together with what brings the latents to mean 0 and variance 1,
computed here on clips of the training split. What the card says about quality is measured on the weights that are
written, on clips of the test split.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm.config import Config, load_config
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.io import write_video
from minivdm.pipelines import LATENTS, load_video_autoencoder
from minivdm.training.checkpoint import load_newest, read_tensors
from minivdm.training.evaluate_vae import as_table, evaluate_vae
from minivdm.training.latents import encode_frames, find_temporal_vae, find_vae2d
from minivdm.training.parts import averages, vae_weights
from minivdm.training.tasks import tile
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.temporal import TemporalVAE
from minivdm.vae.video import VideoAutoencoder

STATISTICS_FROM = 256  # clips of the training split
SHOWN = 8

CARD = """# {title}

![clips of the test split above, their reconstructions below](samples.gif)

{what}

## Recipe
{steps:,} steps of {batch}, out of {clips:,} rendered clips of the training split (level {level}, {size}×{size} pixels);
{precision}, learning rate {rate}. {machine}
Weights: lit pixels {lit:g}, divergence {kl:g}, perceptual distance {perceptual:g}; critic: {critic}. Every setting is
in `config.yaml`, the log in `metrics.jsonl` and `loss.png`. To make it again:

    {command}
    python -m minivdm.training.publish_vae runs/{task} checkpoints/toy/{task}

## Measured quality
Reconstructions of clips of the test split, half of which hold combinations that training never showed. PSNR over all
pixels flatters: an empty sky scores about 20 dB. So there is a second one over the pixels that are lit. What the judge
can still read says whether what matters is there: colours, shapes, sizes, places, the order of the bursts, a rise.

{table}

The divergence from a standard normal is {divergence:.1f} nats per {unit}; {silent} of {channels} channels are silent
(posterior collapse). {latents}

## Limits
Rendered fireworks only: other pictures come back as something like fireworks. Trained at {size}×{size} pixels; other
sizes work, less exactly. Licence: Apache-2.0.
"""


def publish_vae(run: Path, out: Path, clips: int = 128, machine: str = "") -> dict[str, Any]:
    """Export the newest checkpoint of `run` to `out`, reconstruct and grade `clips` clips per kind, write the card."""
    folder, state, _ = load_newest(run)
    config = load_config(folder / "config.yaml")
    tensors = read_tensors(folder / "ema.safetensors")
    weights = vae_weights(tensors)
    out.mkdir(parents=True, exist_ok=True)
    for source in (folder / "config.yaml", run / "loss.png", run / "metrics.jsonl"):
        shutil.copy(source, out / source.name)
    export = {"vae2d": _export_2d, "temporal_vae": _export_temporal}[config.task]
    rebuild, facts = export(config, weights, out)
    with torch.no_grad():
        results = evaluate_vae(rebuild, clips, config.data.frames, config.data.size)
        _show(rebuild, config, out)
    (out / "README.md").unlink(missing_ok=True)  # huggingface_hub writes one that says nothing
    (out / "evaluation.json").write_text(json.dumps(facts | results, indent=1) + "\n", encoding="utf-8")
    (out / "MODEL_CARD.md").write_text(_card(config, state["step"], results, facts, machine), encoding="utf-8")
    return results


def _export_2d(config: Config, weights: dict[str, Tensor], out: Path) -> tuple[Callable, dict[str, Any]]:
    vae = AutoEncoder2D(config.vae2d)
    vae.load_state_dict(weights)
    videos = _training_clips(config)
    with torch.no_grad():
        posterior = vae.eval().posterior(videos)
    latents = posterior.mode()
    scaled = {"scale_factor": 1 / latents.std().item(), "shift_factor": latents.mean().item()}
    vae = AutoEncoder2D(config.vae2d, **{name: round(value, 4) for name, value in scaled.items()})
    vae.load_state_dict(weights)
    vae.half().save_pretrained(out)
    vae = AutoEncoder2D.from_pretrained(out)
    scale, shift = vae.config.scale_factor, vae.config.shift_factor
    return lambda clips: vae.decode(encode_frames(vae, clips)), {
        "parameters": sum(weight.numel() for weight in vae.parameters()),
        "divergence": posterior.kl().mean().item() / videos.shape[2],
        "silent": posterior.silent(),
        "latents": f"z = {scale:g} · (latent − {shift:g}) has mean 0 and variance 1.",
    }


def _export_temporal(config: Config, weights: dict[str, Tensor], out: Path) -> tuple[Callable, dict[str, Any]]:
    temporal = TemporalVAE(config.temporal_vae)
    temporal.load_state_dict(weights)
    vae2d = find_vae2d(config.vae_loss.vae2d)
    statistics, posterior = _latent_statistics(config, vae2d, temporal)
    temporal.half().save_pretrained(out)
    (out / LATENTS).write_text(json.dumps(statistics) + "\n", encoding="utf-8")
    vae = load_video_autoencoder(out, vae2d)
    return lambda clips: vae.decode(vae.encode(clips, sample=False), num_frames=clips.shape[2]), {
        "parameters": sum(weight.numel() for weight in temporal.parameters()),
        "divergence": posterior.kl().mean().item(),
        "silent": posterior.silent(),
        "latents": f"z = (latent − shift) / scale, per channel, has mean 0 and variance 1: `{LATENTS}`.",
    }


def trained_video_vae(run: Path) -> VideoAutoencoder:
    """Both VAEs of a run of `minivdm train temporal_vae`: its own and the 2D one below, latents of variance 1."""
    config, _ = averages(run, "temporal_vae")
    temporal, vae2d = find_temporal_vae(str(run)), find_vae2d(config.vae_loss.vae2d)
    return VideoAutoencoder(vae2d, temporal, **_latent_statistics(config, vae2d, temporal)[0]).eval()


@torch.no_grad()
def _latent_statistics(
    config: Config, vae2d: AutoEncoder2D, temporal: TemporalVAE
) -> tuple[dict[str, list[float]], DiagonalGaussianDistribution]:
    """{"shift": mean, "scale": standard deviation} of each channel on clips of the training split; their posterior."""
    latents = encode_frames(vae2d, _training_clips(config))
    posterior = temporal.eval().encode(latents, sample=False, return_posterior=True)[1]
    channels = posterior.mode().transpose(0, 1).flatten(1)
    statistics = {"shift": channels.mean(1), "scale": channels.std(1)}
    return {name: [round(value, 4) for value in values.tolist()] for name, values in statistics.items()}, posterior


def _training_clips(config: Config) -> Tensor:
    data = config.data
    dataset = FireworksDataset(STATISTICS_FROM, data.level, "train", data.frames, data.size, config.seed)
    return torch.stack([item["video"] for item in dataset])


def _show(rebuild: Callable[[Tensor], Tensor], config: Config, out: Path) -> None:
    data = FireworksDataset(SHOWN, config.data.level, "test", config.data.frames, config.data.size, seed=2)
    clips = torch.stack([item["video"] for item in data])
    pairs = tile(torch.cat([clips, rebuild(clips).clamp(-1, 1)]), columns=SHOWN)
    write_video(out / "samples.gif", pairs.repeat_interleave(3, -1).repeat_interleave(3, -2), fps=config.data.fps)


def _card(config: Config, steps: int, results: dict[str, Any], facts: dict[str, Any], machine: str) -> str:
    loss, training, pictures = config.vae_loss, config.training, config.task == "vae2d"
    count = training.batch_size * training.accumulate
    size = f"{facts['parameters']:,} parameters"
    batch = f"{count} clips of 1 to {config.data.frames} frames"
    if pictures:
        batch = f"{count * loss.frames_per_clip} pictures"
    command = f"minivdm train {config.task} --preset {config.preset} --training.precision {training.precision}"
    if pictures:
        factor = config.vae2d.patch * 2 ** (len(config.vae2d.ch_mult) - 1)
        what = (
            f"A `vae.AutoEncoder2D` of {size}: pictures to latents {factor} times smaller per side, with "
            f"{config.vae2d.z_channels} channels, and back."
        )
    else:
        factor = 2 ** sum(config.temporal_vae.temporal_downsample)
        what = (
            f"A `vae.TemporalVAE` of {size}: the latents of the 2D VAE beside it, {factor} times shorter, with "
            f"{config.temporal_vae.embed_dim} channels, and back. No frame looks at a later one, so it streams.\n\n"
            "    from minivdm.pipelines import load_video_autoencoder\n"
            '    vae = load_video_autoencoder("toy")        # both together: clips to latents and back'
        )
    return CARD.format(
        title="Toy 2D VAE: pictures of fireworks in a sixteenth of the places" if pictures else "Toy temporal VAE",
        what=what,
        steps=steps,
        batch=batch,
        clips=config.data.clips,
        level=config.data.level,
        size=config.data.size,
        precision=training.precision,
        rate=training.learning_rate,
        machine=machine,
        lit=loss.lit,
        kl=loss.kl,
        perceptual=loss.perceptual,
        critic=loss.critic or "none",
        command=f"{command} --run runs/{config.task}",
        task=config.task,
        table=as_table(results),
        divergence=facts["divergence"],
        silent=facts["silent"] or "none",
        channels=config.vae2d.z_channels if pictures else config.temporal_vae.embed_dim,
        unit="picture" if pictures else f"clip of {config.data.frames} frames",
        latents=facts["latents"],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=128, help="clips per kind of scene")
    parser.add_argument("--machine", default="", help="a sentence for the card: where it was trained and for how long")
    options = parser.parse_args()
    print(as_table(publish_vae(options.run, options.out, options.clips, options.machine)))
