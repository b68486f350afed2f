"""What a diffusion transformer is told beside the noisy latent: where a token stands, when, how fast, how large, what.

The parts of `STDiT3` in front of its blocks, each of them one small module or function:

* `PatchEmbed3D` cuts a latent clip into tokens;
* `position_embedding_2d` tells a token its place within the frame, measured in a size that all resolutions share;
* `FrameRotation` tells the temporal attention how far apart two frames are;
* `TimestepEmbedder` and `SizeEmbedder` turn a number (timestep, frames per second) into a vector;
* `CaptionEmbedder` brings the text to the width of the model, and knows what stands for "no text".

Formulas and names of the weights are Open-Sora 1.2's.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import pack, rearrange, repeat
from torch import Tensor, nn

from minivdm.denoisers.embeddings import rotary_frequencies
from minivdm.errors import UserError


def sinusoid(values: Tensor, dim: int) -> Tensor:
    """Waves of many lengths: values (B,) of any size -> (B, dim) float32 in [-1, 1], cosines first, then sines.

    `half = dim // 2` frequencies run from 1 down to almost 1/10000 (`exp(-ln(10000) k / half)`; the last is not
    included, unlike in `SinusoidalEmbedding`). An odd width gets one column of zeros at its end.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=values.device, dtype=torch.float32))
    angles = rearrange(values.float(), "b -> b 1") * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


def position_embedding_2d(dim: int, size: tuple[int, int], scale: Tensor, base_size: int | None = None) -> Tensor:
    """Sines and cosines of each token's place: (B, h·w, dim) float32, for tokens in rows.

    Args:
        dim: width, divisible by 4: a half for the column (it comes first), a half for the row; sines, then cosines.
        size: (h, w), rows and columns of tokens.
        scale: (B,), how much larger than the size of reference a clip is; positions shrink by it.
        base_size: positions run from 0 to `base_size / scale` whatever h and w are; None counts tokens instead.

    So a token in the middle of a frame has almost the same position at every resolution and aspect ratio.
    """
    rows, columns = size
    frequencies = 10000.0 ** -(torch.arange(0, dim // 2, 2, device=scale.device, dtype=torch.float32) / (dim // 2))

    def waves(count: int) -> Tensor:  # (B, count, dim / 2)
        place = torch.arange(count, device=scale.device, dtype=torch.float32) / rearrange(scale.float(), "b -> b 1")
        if base_size is not None:
            place = place * (base_size / count)
        angles = rearrange(place, "b place -> b place 1") * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    by_column = repeat(waves(columns), "b w d -> b (h w) d", h=rows)
    by_row = repeat(waves(rows), "b h d -> b (h w) d", w=columns)
    return torch.cat([by_column, by_row], dim=-1)


class PatchEmbed3D(nn.Module):
    """A latent clip -> one token per patch. Sides that the patch does not divide get zeros at their end."""

    def __init__(self, patch_size: Sequence[int], channels: int, dim: int):
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = nn.Conv3d(channels, dim, self.patch_size, stride=self.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, dim, T', H', W'), with T' = ceil(T / patch) and so on."""
        missing = [-side % patch for side, patch in zip(x.shape[2:], self.patch_size, strict=True)]
        return self.proj(F.pad(x, [amount for side in reversed(missing) for amount in (0, side)]))


class FrameRotation(nn.Module):
    """Rotary positions along time (Su et al. 2021): cosines and sines for `rotate_pairs`, the same for all blocks.

    The frequencies are a weight that does not learn, because upstream's state dicts hold them.
    """

    def __init__(self, dim_head: int):
        super().__init__()
        self.freqs = nn.Parameter(rotary_frequencies(dim_head), requires_grad=False)

    def forward(self, frames: int) -> tuple[Tensor, Tensor]:
        """-> cosines and sines (frames, dim_head / 2) float32."""
        place = torch.arange(frames, device=self.freqs.device, dtype=torch.float32)
        angles = rearrange(place, "t -> t 1") * self.freqs.float()
        return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the feature pairs (0, 1), (2, 3), … of x (..., T, D) by rotation, two tensors (T, D / 2). Like x.

    Real arithmetic in float32: `torch.compile` makes one kernel of it, and has none for complex numbers.
    """
    cosine, sine = rotation
    even, odd = rearrange(x.float(), "... (pair two) -> two ... pair", two=2)
    turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)
    return rearrange(turned, "... pair two -> ... (pair two)").to(x.dtype)


class TimestepEmbedder(nn.Module):
    """A number per clip -> a vector: `sinusoid`, then two layers. For timesteps of 0 to 1000, used as they are."""

    def __init__(self, dim: int, frequency_dim: int = 256):
        super().__init__()
        self.frequency_dim = frequency_dim
        self.mlp = nn.Sequential(nn.Linear(frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, dim)."""
        return self.mlp(sinusoid(t, self.frequency_dim).to(self.mlp[0].weight.dtype))


class SizeEmbedder(TimestepEmbedder):
    """The same for sizes and rates, such as frames per second; several numbers per clip are embedded side by side."""

    def forward(self, sizes: Tensor, batch: int | None = None) -> Tensor:
        """sizes (B,) or (B, n) -> (B, n·dim). A single row serves a whole `batch`."""
        sizes, _ = pack([sizes], "b *")
        if batch is not None and len(sizes) == 1:
            sizes = repeat(sizes, "1 n -> b n", b=batch)
        return rearrange(super().forward(rearrange(sizes, "b n -> (b n)")), "(b n) d -> b (n d)", b=len(sizes))


class MLP(nn.Module):
    """Two layers with GELU between them, in its tanh approximation: the exact one is 5e-4 off upstream's outputs."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out_dim)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Text tokens -> tokens of the model's width; `y_embedding` stands in for the text of a clip without any."""

    y_embedding: Tensor  # (L, caption_channels): drawn once, and not learned, as upstream

    def __init__(self, caption_channels: int, dim: int, tokens: int):
        super().__init__()
        self.register_buffer("y_embedding", torch.randn(tokens, caption_channels) / caption_channels**0.5)
        self.y_proj = MLP(caption_channels, dim, dim)

    def forward(self, y: Tensor, drop: Tensor | None = None) -> Tensor:
        """y (B, L, caption_channels), drop (B,) bool: whose text is taken away -> (B, L, dim)."""
        if drop is not None:
            if y.shape[-2] != len(self.y_embedding):
                raise UserError(
                    f"{y.shape[-2]} text tokens with some texts dropped: expected model_max_length "
                    f"{len(self.y_embedding)}, because that is the length of the text that stands in for none"
                )
            y = torch.where(rearrange(drop, "b -> b 1 1"), self.y_embedding.to(y.dtype), y)
        return self.y_proj(y)
