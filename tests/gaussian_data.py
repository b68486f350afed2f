"""Data that are normally distributed: a world whose best denoiser is known in closed form."""

import torch

from minivdm.diffusion import GaussianDiffusion, cosine_betas, extract

MEAN, DEVIATION = 0.3, 0.4


def exact(num_steps=1000, betas=cosine_betas, **options):
    """A process in float64 without a threshold."""
    return GaussianDiffusion(betas(num_steps), **{"threshold": None, "dtype": torch.float64, **options})


def gaussian_denoiser(diffusion):
    """The best prediction of the noise when the data are N(MEAN, DEVIATION²), in closed form."""

    def model(x, t):
        abar = extract(diffusion.alphas_cumprod, t, x.shape)
        variance = abar * DEVIATION**2 + 1 - abar
        return (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / variance

    return model


def gaussian_path(x_T, start, here):
    """Where the deterministic path from x_T at abar = `start` is at abar = `here`, in closed form."""
    spread = lambda abar: (abar * DEVIATION**2 + 1 - abar) ** 0.5  # noqa: E731
    return here**0.5 * MEAN + spread(here) / spread(start) * (x_T - start**0.5 * MEAN)
