"""Distances between clips, against numbers worked out by hand."""

import math

import pytest
import torch
from einops import repeat

from minivdm.vae.metrics import lit, psnr, psnr_lit, ssim


def test_psnr_by_hand():
    video = torch.zeros(2, 3, 4, 5, 7)
    other = video.clone()
    other[1] += 0.2  # the peak is 2, so 20 log10(2 / 0.2)
    assert psnr(video, other).tolist() == [math.inf, pytest.approx(20.0)]


def test_lit_pixels_alone_decide_the_second_score():
    video = torch.full((1, 3, 2, 4, 6), -1.0)
    video[:, 2, 1, 3, 5] = 0.5
    assert lit(video).sum() == 1
    dark_error, lit_error = video.clone(), video.clone()
    dark_error[:, :, 0] += 0.1
    lit_error[:, :, 1, 3, 5] += 0.2
    assert psnr_lit(video, dark_error).item() == math.inf
    assert psnr_lit(video, lit_error).item() == pytest.approx(20.0)
    assert psnr(video, lit_error).item() > 35, "an empty sky hides it"
    assert psnr_lit(video[:, :, :1], dark_error[:, :, :1]).isnan().all(), "nothing is lit: there is no score"


def test_ssim_of_equal_pictures_is_one_and_falls_with_blur_and_noise():
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(2, 3, 20, 24, generator=generator) * 2 - 1
    noise = torch.randn(pictures.shape, generator=generator)
    torch.testing.assert_close(ssim(pictures, pictures), torch.ones(2))
    little, much = ssim(pictures, pictures + 0.1 * noise), ssim(pictures, pictures + 0.5 * noise)
    assert (little < 1).all() and (much < little).all()


def test_ssim_of_two_flat_pictures_is_its_formula():
    pictures = repeat(torch.tensor([0.2, -0.4]), "n -> n c h w", c=3, h=12, w=13)
    other = pictures + 0.3
    stable = (0.01 * 2) ** 2
    expected = [(2 * a * b + stable) / (a * a + b * b + stable) for a, b in ((0.2, 0.5), (-0.4, -0.1))]
    torch.testing.assert_close(ssim(pictures, other), torch.tensor(expected), atol=1e-3, rtol=0)
