"""Autoencoders: pictures and clips to fewer numbers and back, and the losses that train them."""

from minivdm.vae.autoencoder2d import HIGH_RES, LIGHTWEIGHT, AutoEncoder2D, AutoEncoderConfig
from minivdm.vae.autoencoder_kl import (
    autoencoder_from_diffusers,
    autoencoder_from_upstream,
    autoencoder_to_diffusers,
)
from minivdm.vae.causal_conv import CausalConv3d, pad_at_dim
from minivdm.vae.chunked_conv import CONV3D_NUMEL_LIMIT, ChannelChunkConv3D, chunk_convolutions
from minivdm.vae.chunked_ops import (
    PadConv3D,
    chunked_avg_pool1d,
    chunked_interpolate,
    pad_for_conv3d,
    pad_for_conv3d_kernel_3x3x3,
)
from minivdm.vae.discriminator import NLayerDiscriminator2D, NLayerDiscriminator3D, weights_init, weights_init_conv
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.losses import (
    AdversarialLoss,
    CombinedVAELoss,
    LeCam,
    VAELoss,
    VAELossTerms,
    adaptive_weight,
    adopt_weight,
    gradient_penalty,
    hinge_d_loss,
    l1,
    l2,
    measure_perplexity,
    vanilla_d_loss,
    wgan_d_loss,
)
from minivdm.vae.lpips import LPIPS
from minivdm.vae.open_sora import video_autoencoder_from_opensora
from minivdm.vae.parallel import ColumnParallelConv3d, RowParallelConv3d, parallelize
from minivdm.vae.pieces import latent_frames
from minivdm.vae.processes import run_processes
from minivdm.vae.style_discriminator import StyleDiscriminator3D
from minivdm.vae.temporal import VAE_TEMPORAL_SD, TemporalVAE, TemporalVAEConfig, depth_to_time
from minivdm.vae.video import VideoAutoencoder

__all__ = [
    "AdversarialLoss",
    "AutoEncoder2D",
    "AutoEncoderConfig",
    "CONV3D_NUMEL_LIMIT",
    "CausalConv3d",
    "ChannelChunkConv3D",
    "ColumnParallelConv3d",
    "CombinedVAELoss",
    "DiagonalGaussianDistribution",
    "HIGH_RES",
    "LIGHTWEIGHT",
    "LPIPS",
    "LeCam",
    "NLayerDiscriminator2D",
    "NLayerDiscriminator3D",
    "PadConv3D",
    "RowParallelConv3d",
    "StyleDiscriminator3D",
    "TemporalVAE",
    "TemporalVAEConfig",
    "VAELoss",
    "VAELossTerms",
    "VAE_TEMPORAL_SD",
    "VideoAutoencoder",
    "adaptive_weight",
    "adopt_weight",
    "autoencoder_from_diffusers",
    "autoencoder_from_upstream",
    "autoencoder_to_diffusers",
    "chunk_convolutions",
    "chunked_avg_pool1d",
    "chunked_interpolate",
    "depth_to_time",
    "gradient_penalty",
    "hinge_d_loss",
    "l1",
    "l2",
    "latent_frames",
    "measure_perplexity",
    "pad_at_dim",
    "pad_for_conv3d",
    "pad_for_conv3d_kernel_3x3x3",
    "parallelize",
    "run_processes",
    "vanilla_d_loss",
    "video_autoencoder_from_opensora",
    "weights_init",
    "weights_init_conv",
    "wgan_d_loss",
]
