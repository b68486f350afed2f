"""Both trained VAEs put together: from a film to latents of mean 0 and variance 1, and back."""

import json
from dataclasses import asdict
from pathlib import Path

from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.open_sora import SDXL_VAE, video_autoencoder_from_opensora
from minivdm.vae.temporal import VAE_TEMPORAL_SD, TemporalVAE, TemporalVAEConfig
from minivdm.vae.video import VideoAutoencoder
from minivdm.weights import read_config

LATENTS = "latents.json"  # beside a published temporal VAE: shift and scale of each channel of its latents


def load_video_autoencoder(source: str | Path, vae2d: AutoEncoder2D | None = None) -> VideoAutoencoder:
    """Both VAEs together, in eval mode, with latents of mean 0 and variance 1.

    source: "toy" for the shipped pair, the folder of a published temporal VAE (with `vae2d`, the 2D one that it was
    trained on), what `VideoAutoencoder.save_pretrained` wrote, or Open-Sora 1.2's by its folder or its name on the Hub.
    Raises UserError when it is none of these.
    """
    if source == "toy":
        source, vae2d = checkpoint_dir("toy/temporal_vae"), AutoEncoder2D.from_pretrained(checkpoint_dir("toy/vae2d"))
    folder = Path(source)
    if vae2d is None or not (folder / LATENTS).is_file():
        upstream = not folder.is_dir() or "vae_temporal" in read_config(folder)
        return load_open_sora_vae(source) if upstream else VideoAutoencoder.from_pretrained(folder)
    statistics = json.loads((folder / LATENTS).read_text(encoding="utf-8"))
    temporal = TemporalVAE.from_pretrained(folder)
    return VideoAutoencoder(vae2d, temporal, shift=statistics["shift"], scale=statistics["scale"]).eval()


def load_open_sora_vae(source: str | Path, vae2d: str | Path | None = None) -> VideoAutoencoder:
    """Open-Sora 1.2's video VAE, from its folder or its name on the Hub, as upstream runs it.

    vae2d: where the sizes of the 2D VAE are to be read, if they are not those of SDXL's.
    """
    temporal = dict(read_config(source).get("vae_temporal") or {"type": "VAE_Temporal_SD"})
    kind = temporal.pop("type", "VAE_Temporal")
    temporal.pop("from_pretrained", None)
    known = {"VAE_Temporal_SD": VAE_TEMPORAL_SD, "VAE_Temporal": TemporalVAEConfig(norm="group")}
    if kind not in known:
        raise UserError(f"{source}: a temporal VAE of type {kind!r}; expected {' or '.join(known)}")
    return video_autoencoder_from_opensora(
        source,
        SDXL_VAE if vae2d is None else read_config(vae2d),
        TemporalVAEConfig(**asdict(known[kind]) | temporal),
        micro_frame_size=17,
        micro_batch_size=4,
    )
