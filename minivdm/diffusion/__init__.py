"""Noise schedules, the diffusion process, samplers and guidance. Imports nothing from the other rooms.

Read in this order: `schedules`, `gaussian` (with its `tables` and `thresholding`), `samplers`, `dpm_solver`,
`guidance`, `flow_euler`, `rectified_flow`, `masks`, `conditions`.
"""

from minivdm.diffusion.conditions import CONDITIONS, condition_strategy
from minivdm.diffusion.gaussian import Gaussian, GaussianDiffusion, Model, draw_noise
from minivdm.diffusion.guidance import classifier_free, image_and_text, oscillating
from minivdm.diffusion.masks import apply_mask_strategy, training_mask
from minivdm.diffusion.rectified_flow import RectifiedFlow
from minivdm.diffusion.samplers import ddim_sample, ddim_step, ddim_timesteps, sample
from minivdm.diffusion.schedules import (
    alphas_cumprod,
    betas_from_alphas_cumprod,
    cosine_betas,
    linear_betas,
    make_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    snr,
)
from minivdm.diffusion.tables import extract

__all__ = [
    "CONDITIONS",
    "Gaussian",
    "GaussianDiffusion",
    "Model",
    "RectifiedFlow",
    "alphas_cumprod",
    "apply_mask_strategy",
    "betas_from_alphas_cumprod",
    "classifier_free",
    "condition_strategy",
    "cosine_betas",
    "ddim_sample",
    "ddim_step",
    "ddim_timesteps",
    "draw_noise",
    "extract",
    "image_and_text",
    "linear_betas",
    "make_betas",
    "oscillating",
    "rescale_zero_terminal_snr",
    "sample",
    "scaled_linear_betas",
    "snr",
    "training_mask",
]
