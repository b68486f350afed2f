"""Trained parts put together: from a prompt to a film, and from a film to latents and back."""

from minivdm.pipelines.device import pick_device
from minivdm.pipelines.unet import UnetPipeline
from minivdm.pipelines.video_vae import LATENTS, load_video_autoencoder

__all__ = ["LATENTS", "UnetPipeline", "load_video_autoencoder", "pick_device"]
