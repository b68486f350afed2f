"""How alike are two clips? Everywhere, and where there is something to see."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

WINDOW = 11  # pixels a side, over which `ssim` compares
LIT = -0.8  # a pixel whose brightest channel is above this is not night: 0.1 on the scale from 0 to 1


def psnr(video: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per clip, (B,). Two tensors (B, ...) in [-1, 1]; equal ones give infinity."""
    error = (video - other).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)  # the peak is 2, from -1 to 1


def lit(video: Tensor) -> Tensor:
    """Which pixels show light: (B, 1, ...) bool for clips or pictures (B, C, ...) in [-1, 1]."""
    return video.amax(1, keepdim=True) > LIT


def psnr_lit(video: Tensor, other: Tensor) -> Tensor:
    """PSNR over the pixels that are lit in `video`, (B,); NaN where nothing is lit.

    An empty sky scores 20 dB by `psnr`, so it says little about fireworks. video, other (B, C, ...) in [-1, 1].
    """
    where = lit(video).expand_as(video)
    error = ((video - other).square() * where).flatten(1).sum(1) / where.flatten(1).sum(1)
    return 10 * torch.log10(4 / error)


def likeness(video: Tensor, other: Tensor) -> dict[str, float]:
    """All three measures, averaged over clips (B, C, T, H, W) or pictures (B, C, H, W) in [-1, 1].

    "psnr", "psnr_lit" (over those that show any light) and "ssim", of sizes that its window fits into.
    """
    found = {"psnr": psnr(video, other).mean().item(), "psnr_lit": psnr_lit(video, other).nanmean().item()}
    if min(video.shape[-2:]) >= WINDOW:
        pictures = [rearrange(x, "b c t h w -> (b t) c h w") if x.ndim == 5 else x for x in (video, other)]
        found["ssim"] = ssim(*pictures).mean().item()
    return found


def ssim(video: Tensor, other: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) per picture, averaged over channels and places: (N,).

    video, other (N, C, H, W) in [-1, 1], from 11 pixels a side on; Gaussian window of 11 pixels, sigma 1.5.
    """
    channels = video.shape[1]
    offset = torch.arange(WINDOW, device=video.device, dtype=video.dtype) - WINDOW // 2
    curve = torch.exp(-0.5 * (offset / 1.5) ** 2)
    curve = curve / curve.sum()

    down, across = rearrange(curve, "k -> 1 1 k 1"), rearrange(curve, "k -> 1 1 1 k")

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, down.expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(x, across.expand(channels, -1, -1, -1), groups=channels)

    mean, other_mean = blur(video), blur(other)
    variance = blur(video.square()) - mean.square()
    other_variance = blur(other.square()) - other_mean.square()
    covariance = blur(video * other) - mean * other_mean
    stable1, stable2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    likeness = (2 * mean * other_mean + stable1) * (2 * covariance + stable2)
    likeness = likeness / ((mean.square() + other_mean.square() + stable1) * (variance + other_variance + stable2))
    return likeness.flatten(1).mean(1)
