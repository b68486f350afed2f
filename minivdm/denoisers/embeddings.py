"""How a denoiser is told *when*: which diffusion step a clip is at, and which frame a token belongs to.

Three embeddings, from coarse to fine:

* `SinusoidalEmbedding` turns the diffusion step t of a clip into a vector;
* `RotaryEmbedding` turns queries and keys by an angle that grows with their frame, so that their product depends
  on how far apart two frames are and not on where they stand;
* `RelativePositionBias` adds a learned number to every attention logit, one per bucket of frame distance.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError


class SinusoidalEmbedding(nn.Module):
    """Diffusion step -> waves of many lengths (Vaswani et al. 2017, section 3.5; used for steps since Ho et al. 2020).

    `half = dim // 2` frequencies run geometrically from 1 down to 1/10000 (both ends included, hence `half - 1`).
    All sines come first, then all cosines.
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim < 4 or dim % 2:
            raise UserError(f"sinusoidal embedding of width {dim}: expected an even number from 4 on; change dim")
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) integers or floats -> (B, dim) float32 in [-1, 1]."""
        half = self.dim // 2
        decay = math.log(10000.0) / (half - 1)
        frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * -decay)
        angles = rearrange(t.float(), "b -> b 1") * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def rotary_frequencies(dim: int, device: torch.device | None = None) -> Tensor:
    """Radians per frame of each of the dim // 2 feature pairs: float32 (dim // 2,), from 1 down to nearly 1/10000."""
    return 1.0 / 10000.0 ** (torch.arange(0, dim, 2, device=device).float() / dim)


class RotaryEmbedding(nn.Module):
    """Rotate pairs of features by an angle proportional to the frame index (Su et al. 2021, RoFormer).

    Features (0, 1), (2, 3), … are read as complex numbers; pair j of frame f is multiplied by
    `exp(i · f · 10000^(-2j/dim))`. A query at frame f and a key at frame g then meet as `exp(i · (f - g) · …)`:
    only their distance is left. Features beyond `dim` are not rotated. Nothing is learned.
    """

    def __init__(self, dim_head: int, dim: int | None = None):
        super().__init__()
        dim = dim or dim_head
        if dim_head % 2 or dim % 2 or dim > dim_head:
            raise UserError(f"rotary embedding of {dim} of {dim_head} features: expected even numbers; change dim_head")
        self.dim_head = dim_head
        self.dim = dim

    def forward(self, frames: int, device: torch.device | None = None) -> Tensor:
        """The rotations of `frames` positions: complex64 (frames, dim_head // 2), all of absolute value 1."""
        unrotated = torch.zeros((self.dim_head - self.dim) // 2, device=device)
        frequencies = torch.cat([rotary_frequencies(self.dim, device), unrotated])
        angles = rearrange(torch.arange(frames, device=device, dtype=torch.float32), "t -> t 1") * frequencies
        return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the feature pairs of x (..., D) by rotation (..., D // 2), complex and broadcastable. At least float32.

    One complex product does it; written with sines and cosines it would need the pairs swapped, which is a copy.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # half precisions have no complex numbers
    pairs = torch.view_as_complex(rearrange(x, "... (pair two) -> ... pair two", two=2))
    return rearrange(torch.view_as_real(pairs * rotation), "... pair two -> ... (pair two)")


class RelativePositionBias(nn.Module):
    """A learned attention bias per head and bucket of frame distance (Raffel et al. 2020, T5, section 2.1).

    Half of the buckets serve keys at or before the query, half keys after it. In each half, small distances have a
    bucket of their own, larger ones share buckets that widen logarithmically, and everything from `max_distance` on
    shares the last.
    """

    def __init__(self, heads: int, num_buckets: int = 32, max_distance: int = 32):
        super().__init__()
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.randn(num_buckets, heads))

    def buckets(self, frames: int, device: torch.device | None = None) -> Tensor:
        """Bucket number of every (query, key) pair: (frames, frames) int64 in [0, num_buckets)."""
        position = torch.arange(frames, device=device)
        distance = rearrange(position, "query -> query 1") - rearrange(position, "key -> 1 key")
        per_side = self.num_buckets // 2
        exact = per_side // 2  # distances below this have a bucket each
        size = distance.abs()
        # float32 on purpose: the bucket edges are where float32 logarithms put them. max(1) only avoids log(0)
        logarithmic = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (logarithmic * (per_side - exact)).long()
        bucket = torch.where(size < exact, size, far.clamp(max=per_side - 1))
        return bucket + per_side * (distance < 0)

    def forward(self, frames: int) -> Tensor:
        """The bias to add to the logits: (heads, frames, frames), rows are queries, columns keys."""
        return rearrange(self.table[self.buckets(frames, self.table.device)], "query key head -> head query key")
