"""The convolutional parts of the video U-Net. All of them see single frames: `(B·T, C, H, W)`, frames in the batch."""

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale the channel vector of every pixel to root-mean-square 1, then by a learned gain per channel.

    An optional modulation (FiLM, Perez et al. 2018) `y · (1 + scale) + shift` is folded into the gain, so that it costs
    one pass over the activations and not three.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (N, C, H, W); scale and shift (N, C) or both None -> like x."""
        # the length is summed in float32 under autocast too; the limit only guards pixels that are exactly zero
        precise = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=precise).clamp(min=1e-12)
        x = x * (x.shape[1] ** 0.5 / length).to(x.dtype)
        if scale is None:
            return x * self.gain[:, None, None].to(x.dtype)
        gain = (self.gain * (1 + scale))[:, :, None, None]
        return torch.addcmul(shift[:, :, None, None].to(x.dtype), x, gain.to(x.dtype))


class Block(nn.Module):
    """3×3 convolution, norm (with an optional modulation), SiLU."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, padding=1)
        self.norm = RMSNorm(dim_out)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (N, dim, H, W), scale and shift (N, dim_out) or None -> (N, dim_out, H, W)."""
        return F.silu(self.norm(self.conv(x), scale, shift))


class ResnetBlock(nn.Module):
    """Two blocks and a shortcut; the time (and conditioning) vector modulates the first."""

    def __init__(self, dim: int, dim_out: int, embedding_dim: int | None = None):
        super().__init__()
        self.modulation = nn.Linear(embedding_dim, 2 * dim_out) if embedding_dim else None
        self.block1 = Block(dim, dim_out)
        self.block2 = Block(dim_out, dim_out)
        self.shortcut = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x (B·T, dim, H, W), embedding (B, embedding_dim), shared by the frames of a clip -> (B·T, dim_out, H, W)."""
        scale = shift = None
        if self.modulation is not None:
            frames = len(x) // len(embedding)
            scale, shift = repeat(self.modulation(F.silu(embedding)), "b (two c) -> two (b t) c", two=2, t=frames)
        return self.block2(self.block1(x, scale, shift)) + self.shortcut(x)


def downsample(dim: int) -> nn.Module:
    """Halve height and width: (N, dim, H, W) -> (N, dim, H/2, W/2)."""
    return nn.Conv2d(dim, dim, 4, stride=2, padding=1)


def upsample(dim: int) -> nn.Module:
    """Double height and width: (N, dim, H, W) -> (N, dim, 2H, 2W)."""
    return nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)
