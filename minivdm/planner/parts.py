"""The finished parts that a training or a film stands on, by their sizes only: no weight is read."""

import json
from dataclasses import replace
from pathlib import Path

import yaml
from torch import nn

from minivdm.config import load_config
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.settings import Config, VaeLossConfig
from minivdm.text.t5 import T5Encoder, T5EncoderConfig
from minivdm.vae.autoencoder2d import AutoEncoder2D, AutoEncoderConfig
from minivdm.vae.autoencoder_kl import arguments_from_diffusers
from minivdm.vae.lpips import FIREWORKS, LPIPS, ConvTrunk, Vgg16Trunk
from minivdm.vae.open_sora import SDXL_VAE
from minivdm.vae.temporal import VAE_TEMPORAL_SD, TemporalVAE, TemporalVAEConfig
from minivdm.vae.video import VideoAutoencoder
from minivdm.weights import read_config

OPEN_SORA_VAE = "hpcai-tech/OpenSora-VAE-v1.2"
_T5 = {"vocab_size": 32128, "d_kv": 64}
# Published T5 v1.1 encoders, by the end of their names on the Hub.
T5_SIZES = {
    "t5-v1_1-xxl": T5EncoderConfig(**_T5, d_model=4096, d_ff=10240, num_layers=24, num_heads=64),
    "t5-v1_1-xl": T5EncoderConfig(**_T5, d_model=2048, d_ff=5120, num_layers=24, num_heads=32),
    "t5-v1_1-large": T5EncoderConfig(**_T5, d_model=1024, d_ff=2816, num_layers=24, num_heads=16),
    "t5-v1_1-base": T5EncoderConfig(**_T5, d_model=768, d_ff=2048, num_layers=12, num_heads=12),
    "t5-v1_1-small": T5EncoderConfig(**_T5, d_model=512, d_ff=1024, num_layers=8, num_heads=6),
}


def text_encoder(source: str) -> nn.Module:
    """The encoder that `flow.text` names. UserError for a name on the Hub whose sizes are not known here."""
    folder = checkpoint_dir("toy/t5") if source == "toy" else Path(source)
    if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():  # a run of `train toy_t5`
        return toy_encoder(load_config(folder / "config.yaml"))
    if (folder / "config.json").is_file():
        return T5Encoder(T5EncoderConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    for name, sizes in T5_SIZES.items():
        if source.endswith(name):
            return T5Encoder(sizes)
    known = ", ".join(("toy", *T5_SIZES))
    raise UserError(f"text encoder {source!r}: no such folder, and its size is not known here; known are {known}")


def toy_encoder(config: Config) -> T5Encoder:
    """The encoder that `minivdm train toy_t5` makes with this configuration."""
    sizes = config.toy_t5
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    return T5Encoder(T5EncoderConfig(vocab_size=128, **{name: getattr(sizes, name) for name in names}))


def vae2d(source: str | None, config: Config) -> AutoEncoder2D:
    """The 2D VAE that `vae_loss.vae2d` names; one that is not trained yet will have the sizes of this configuration."""
    folder = checkpoint_dir("toy/vae2d") if source == "toy" else Path(source or "")
    if source and (folder / "config.json").is_file():
        return AutoEncoder2D(read_config(folder))
    if source and (folder / "config.yaml").is_file():
        return new_vae2d(load_config(folder / "config.yaml").vae2d)
    return new_vae2d(config.vae2d)


def new_vae2d(sizes: AutoEncoderConfig) -> AutoEncoder2D:
    """Without the weights that the configuration may name."""
    return AutoEncoder2D(replace(sizes, from_pretrained=None))


def perceptual_distance(losses: VaeLossConfig) -> LPIPS:
    """The LPIPS of a training, which may do without the files of its weights here."""
    if losses.perceptual_trunk == "vgg16":
        return LPIPS(Vgg16Trunk())
    return LPIPS(ConvTrunk(read_config(checkpoint_dir(FIREWORKS))["widths"]))


def video_vae(source: str, config: Config) -> VideoAutoencoder:
    """The video VAE that `flow.vae` names; one that is not trained yet will have the sizes of this configuration."""
    if source == "toy":
        pair = (vae2d("toy", config), TemporalVAE(read_config(checkpoint_dir("toy/temporal_vae"))))
        return VideoAutoencoder(*pair).eval().requires_grad_(False)
    folder = Path(source)
    if (folder / "config.yaml").is_file():  # a run of `train temporal_vae`
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        below = vae2d(settings["vae_loss"]["vae2d"], config)
        vae = VideoAutoencoder(below, TemporalVAE(TemporalVAEConfig(**settings["temporal_vae"])))
    elif (folder / "vae2d" / "config.json").is_file():
        saved = read_config(folder)
        limits = {name: saved.get(name) for name in ("micro_frame_size", "micro_batch_size")}
        temporal = TemporalVAE(read_config(folder / "temporal")) if saved.get("temporal") else None
        vae = VideoAutoencoder(AutoEncoder2D(read_config(folder / "vae2d")), temporal, **limits)
    elif source == OPEN_SORA_VAE or (folder / "config.json").is_file():
        pair = (AutoEncoder2D(**arguments_from_diffusers(SDXL_VAE)), TemporalVAE(VAE_TEMPORAL_SD))
        vae = VideoAutoencoder(*pair, micro_frame_size=17, micro_batch_size=4)
    else:
        vae = VideoAutoencoder(vae2d(config.vae_loss.vae2d, config), TemporalVAE(config.temporal_vae))
    return vae.eval().requires_grad_(False)
