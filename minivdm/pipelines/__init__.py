"""Trained parts put together: from a prompt to a film, and from a film to latents and back."""

from minivdm.pipelines.device import pick_device
from minivdm.pipelines.prompts import no_text, text_for_denoiser
from minivdm.pipelines.text_to_video import Parts, TextToVideoPipeline
from minivdm.pipelines.unet import UnetPipeline
from minivdm.pipelines.video_settings import VideoSettings
from minivdm.pipelines.video_vae import LATENTS, load_video_autoencoder

__all__ = [
    "LATENTS",
    "Parts",
    "TextToVideoPipeline",
    "UnetPipeline",
    "VideoSettings",
    "load_video_autoencoder",
    "no_text",
    "pick_device",
    "text_for_denoiser",
]
