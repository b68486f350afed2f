"""Text-to-video pipelines in folders: saved ones, runs of `minivdm train stdit3`, and the pieces of Open-Sora 1.2."""

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from minivdm.config import load_config
from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.trained import read_single, trained_weights
from minivdm.pipelines.video_settings import VideoSettings
from minivdm.pipelines.video_vae import load_open_sora_vae
from minivdm.text.encoder import TextEmbedder
from minivdm.vae.video import VideoAutoencoder
from minivdm.weights import load_weights

PIPELINE = "pipeline.json"  # what a saved pipeline is recognised by
Loaded = tuple[STDiT3, nn.Module, VideoAutoencoder, VideoSettings]

# What films Open-Sora 1.2 makes by default: 2 seconds of 240p; a picture counts as 120 frames per second.
OPEN_SORA = VideoSettings(
    frames=51,
    height=240,
    width=424,
    fps=24.0,
    steps=30,
    guidance=7.0,
    shift=True,
    image_fps=120.0,
    carried=5,
    null_tokens="prompt",
)


def save_pipeline(folder: Path, parts: Loaded, shipped: tuple[str, ...] = (), dtype: torch.dtype | None = None) -> None:
    """Write pipeline.json and the parts, except those of "text" and "vae" that are the `shipped` ones."""
    if unknown := set(shipped) - {"text", "vae"}:
        raise UserError(f"shipped parts {', '.join(sorted(unknown))}: expected text, vae, or both")
    denoiser, text, vae, settings = parts
    folder.mkdir(parents=True, exist_ok=True)
    if dtype is not None:
        denoiser, vae = copy.deepcopy(denoiser).to(dtype), copy.deepcopy(vae)
        for part in filter(None, (vae.vae2d, vae.temporal)):  # shift and scale are numbers in config.json, kept exact
            part.to(dtype)
    denoiser.save_pretrained(folder / "denoiser")
    if "text" not in shipped:
        text.save_pretrained(folder / "text_encoder")
    if "vae" not in shipped:
        vae.save_pretrained(folder / "vae")
    values = {"settings": asdict(settings)} | {part: "toy" for part in shipped}
    (folder / PIPELINE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_pipeline(source: str | Path) -> Loaded:
    """The parts of the shipped pipeline ("toy"), of a saved one, or of a run of `minivdm train stdit3`."""
    folder = checkpoint_dir("toy/text_to_video") if source == "toy" else Path(source)
    return _load_saved(folder) if (folder / PIPELINE).is_file() else _load_trained(folder)


def holds_text_to_video(source: str | Path) -> bool:
    """Whether `load_pipeline` is the one to ask for what lies there, and not `UnetPipeline`."""
    if source == "toy":
        try:
            return (checkpoint_dir("toy/text_to_video") / PIPELINE).is_file()
        except UserError:
            return False
    folder = Path(source)
    if (folder / PIPELINE).is_file():
        return True
    return (folder / "config.yaml").is_file() and load_config(folder / "config.yaml").task == "stdit3"


def load_open_sora(denoiser: str | Path, vae: str | Path, vae2d: str | Path | None, text: str | Path) -> Loaded:
    """See `TextToVideoPipeline.from_open_sora`."""
    network = STDiT3.from_pretrained(str(denoiser))
    embedder = TextEmbedder(text, network.config.model_max_length)
    return network, embedder, load_open_sora_vae(vae, vae2d), OPEN_SORA


def _load_saved(folder: Path) -> Loaded:
    """What `save_pipeline` wrote; weights stored in half precision come back in single."""
    from minivdm.training.parts import find_text_encoder, find_video_vae  # it imports pipelines

    try:
        values = json.loads((folder / PIPELINE).read_text(encoding="utf-8"))
        settings = VideoSettings.from_dict(values["settings"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        expected = "expected the settings of a saved text-to-video pipeline"
        raise UserError(f"cannot read {folder / PIPELINE} ({error}): {expected}") from None
    denoiser = STDiT3.from_pretrained(folder / "denoiser")
    text = find_text_encoder(str(values.get("text", folder / "text_encoder")), denoiser.config.model_max_length)
    vae = find_video_vae(str(values.get("vae", folder / "vae")))
    return denoiser, text, vae, settings


def _load_trained(source: Path) -> Loaded:
    """From the newest checkpoint of a run, or from that of a folder."""
    from minivdm.training.parts import find_text_encoder, find_video_vae
    from minivdm.training.stdit3_task import film_settings

    folder, weights = trained_weights(source)
    config = load_config(folder / "config.yaml")
    if config.task != "stdit3":
        raise UserError(f"{source} holds a trained {config.task}; expected a run of `minivdm train stdit3`")
    vae, text = find_video_vae(config.flow.vae), find_text_encoder(config.flow.text, config.flow.tokens)
    sizes = {"in_channels": vae.channels, "caption_channels": text.dim, "model_max_length": text.max_length}
    denoiser = STDiT3(replace(config.stdit3, **sizes)).eval()
    load_weights(denoiser, read_single(weights), str(weights))
    return denoiser, text, vae, film_settings(config)
