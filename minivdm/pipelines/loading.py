"""Text-to-video pipelines in folders: saved ones, runs of `minivdm train stdit3`, and the pieces of Open-Sora 1.2."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.video_settings import VideoSettings
from minivdm.pipelines.video_vae import load_video_autoencoder
from minivdm.text.encoder import TextEmbedder
from minivdm.vae.video import VideoAutoencoder

PIPELINE = "pipeline.json"  # what a saved pipeline is recognised by
Loaded = tuple[STDiT3, nn.Module, VideoAutoencoder, VideoSettings]


def save_pipeline(
    folder: Path,
    parts: Loaded,
    shipped: tuple[str, ...] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Write pipeline.json and the parts, but for those of "text" and "vae" that are the `shipped` ones."""
    if unknown := set(shipped) - {"text", "vae"}:
        raise UserError(f"shipped parts {', '.join(sorted(unknown))}: expected text, vae, or both")
    denoiser, text, vae, settings = parts
    folder.mkdir(parents=True, exist_ok=True)
    (denoiser if dtype is None else copy.deepcopy(denoiser).to(dtype)).save_pretrained(folder / "denoiser")
    if "text" not in shipped:
        text.save_pretrained(folder / "text_encoder")
    if "vae" not in shipped:
        vae.save_pretrained(folder / "vae")
    values = {"settings": asdict(settings)} | {part: "toy" for part in shipped}
    (folder / PIPELINE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_pipeline(folder: Path) -> Loaded:
    """What `save_pipeline` wrote; weights stored in half precision come back in single."""
    try:
        values = json.loads((folder / PIPELINE).read_text(encoding="utf-8"))
        settings = VideoSettings.from_dict(values["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder / PIPELINE} cannot be read ({error}): expected a saved text-to-video pipeline"
        ) from None
    denoiser = STDiT3.from_pretrained(folder / "denoiser")
    text = load_text_encoder(values.get("text", folder / "text_encoder"), denoiser.config.model_max_length)
    vae = load_video_autoencoder(values.get("vae", folder / "vae"))
    return denoiser, text, vae, settings


def load_text_encoder(source: str | Path, tokens: int) -> TextEmbedder:
    """A text encoder from its folder or by its name on the Hugging Face Hub; "toy" is the shipped one."""
    return TextEmbedder(checkpoint_dir("toy/t5") if source == "toy" else source, tokens)
