"""Autoencoders: pictures and clips to fewer numbers and back, and the losses that train them."""

from minivdm.vae.autoencoder2d import HIGH_RES, LIGHTWEIGHT, AutoEncoder2D, AutoEncoderConfig
from minivdm.vae.autoencoder_kl import (
    autoencoder_from_diffusers,
    autoencoder_from_upstream,
    autoencoder_to_diffusers,
)
from minivdm.vae.distributions import DiagonalGaussianDistribution

__all__ = [
    "HIGH_RES",
    "LIGHTWEIGHT",
    "AutoEncoder2D",
    "AutoEncoderConfig",
    "DiagonalGaussianDistribution",
    "autoencoder_from_diffusers",
    "autoencoder_from_upstream",
    "autoencoder_to_diffusers",
]
