"""Both trained VAEs put together: from a film to latents of mean 0 and variance 1, and back."""

import json
from pathlib import Path

from minivdm.paths import checkpoint_dir
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.temporal import TemporalVAE
from minivdm.vae.video import VideoAutoencoder

LATENTS = "latents.json"  # beside a published temporal VAE: shift and scale of each channel of its latents


def load_video_autoencoder(source: str | Path, vae2d: AutoEncoder2D | None = None) -> VideoAutoencoder:
    """Both VAEs together, in eval mode, with latents of mean 0 and variance 1.

    source: "toy" for the shipped pair, the folder of a published temporal VAE (with `vae2d`, the 2D one that it was
    trained on), or what `VideoAutoencoder.save_pretrained` wrote. Raises UserError when the folder holds none of these.
    """
    if source == "toy":
        source, vae2d = checkpoint_dir("toy/temporal_vae"), AutoEncoder2D.from_pretrained(checkpoint_dir("toy/vae2d"))
    folder = Path(source)
    if vae2d is None or not (folder / LATENTS).is_file():
        return VideoAutoencoder.from_pretrained(folder)
    statistics = json.loads((folder / LATENTS).read_text(encoding="utf-8"))
    temporal = TemporalVAE.from_pretrained(folder)
    return VideoAutoencoder(vae2d, temporal, shift=statistics["shift"], scale=statistics["scale"]).eval()
