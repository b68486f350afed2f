"""The blocks of a convolutional autoencoder of pictures: residual, attention, half the size, twice the size.

The architecture of latent diffusion's first stage (Rombach et al. 2022, appendix E), which Stable Diffusion, Flux and
Open-Sora share. The names of the layers are theirs, so that their weights can be loaded.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """`groups` groups where the width allows it, else the largest number that divides both."""
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x). Without gradients it overwrites x: at full resolution one copy is hundreds of megabytes."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    """Twice norm, SiLU and a 3×3 convolution, added to the input: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, groups: int = 32):
        super().__init__()
        self.norm1 = group_norm(channels_in, groups)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out, groups)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        # the way round needs weights only where the width changes
        self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Every place of a picture looks at every other, in one head as wide as the channels: (N, C, H, W) -> the same."""

    def __init__(self, channels: int, groups: int = 32):
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "n c h w -> n 1 (h w) c") for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(h, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """Half the height and width, by a 3×3 convolution of stride 2. An odd last row or column is dropped.

    Only the right and the bottom edge are padded: the windows then start at pixels 0, 2, 4, …, and two of them side by
    side share one pixel. (Padding all round would start them at -1.)
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width: every pixel becomes four, and a 3×3 convolution smooths them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """The lowest resolution: a residual block, attention, a residual block."""

    def __init__(self, channels: int, groups: int = 32):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))
