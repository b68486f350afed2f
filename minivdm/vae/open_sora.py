"""The published video autoencoder of Open-Sora 1.2, into ours."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from minivdm.errors import UserError
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.temporal import VAE_TEMPORAL_SD, TemporalVAE, TemporalVAEConfig
from minivdm.vae.video import VideoAutoencoder
from minivdm.weights import load_weights, read_weights

# Its 2D VAE, in diffusers' words: that of Stable Diffusion XL.
SDXL_VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4}

PARTS = ("spatial_vae.module.", "temporal_vae.")


def video_autoencoder_from_opensora(
    source: str | Path | Mapping[str, Tensor],
    config_2d: Mapping = SDXL_VAE,
    config_temporal: TemporalVAEConfig | dict = VAE_TEMPORAL_SD,
    **settings,
) -> VideoAutoencoder:
    """Build the `VideoAutoencoderPipeline` of Open-Sora 1.2 from its weights; in eval mode.

    source: a safetensors file, a folder that holds one, such a folder's name on the Hugging Face Hub, or a state dict.
        The shift and scale of the latents are in it.
    config_2d: the configuration of its 2D VAE, in diffusers' words.
    settings: arguments of `VideoAutoencoder`; upstream uses micro_frame_size=17 and micro_batch_size=4.
    """
    weights = source if isinstance(source, Mapping) else read_weights(source)
    spatial, temporal = ({k.removeprefix(part): v for k, v in weights.items() if k.startswith(part)} for part in PARTS)
    for part, found in zip(PARTS, (spatial, temporal), strict=True):
        if not found:
            raise UserError(f"no key starts with {part}: expected the weights of a VideoAutoencoderPipeline")
    vae = TemporalVAE(config_temporal)
    load_weights(vae, temporal)
    scales = {name: weights[name].flatten().tolist() for name in ("shift", "scale") if name in weights}
    return VideoAutoencoder(AutoEncoder2D.from_diffusers(spatial, config_2d), vae, **scales | settings).eval()
