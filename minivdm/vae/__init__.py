"""Autoencoders: pictures and clips to fewer numbers and back, and the losses that train them."""

from minivdm.vae.autoencoder2d import HIGH_RES, LIGHTWEIGHT, AutoEncoder2D, AutoEncoderConfig
from minivdm.vae.autoencoder_kl import (
    autoencoder_from_diffusers,
    autoencoder_from_upstream,
    autoencoder_to_diffusers,
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
from minivdm.vae.style_discriminator import StyleDiscriminator3D

__all__ = [
    "AdversarialLoss",
    "AutoEncoder2D",
    "AutoEncoderConfig",
    "CombinedVAELoss",
    "DiagonalGaussianDistribution",
    "HIGH_RES",
    "LIGHTWEIGHT",
    "LPIPS",
    "LeCam",
    "NLayerDiscriminator2D",
    "NLayerDiscriminator3D",
    "StyleDiscriminator3D",
    "VAELoss",
    "VAELossTerms",
    "adaptive_weight",
    "adopt_weight",
    "autoencoder_from_diffusers",
    "autoencoder_from_upstream",
    "autoencoder_to_diffusers",
    "gradient_penalty",
    "hinge_d_loss",
    "l1",
    "l2",
    "measure_perplexity",
    "vanilla_d_loss",
    "weights_init",
    "weights_init_conv",
    "wgan_d_loss",
]
