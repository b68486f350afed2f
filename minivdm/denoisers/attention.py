"""Three ways for the positions of a video to look at each other, each cheap in its own way.

A clip with T frames of H·W pixels has T·H·W tokens; full attention over all of them costs (T·H·W)². Here

* `TemporalAttention`: each pixel looks along its own T frames (H·W small problems of size T);
* `SpatialAttention`: each frame looks at its own H·W pixels, used only where H·W is small;
* `LinearAttention`: each frame again, but with a cost that grows like H·W and not like its square.

All three take and return frames folded into the batch, `(B·T, C, H, W)`, in channels-last memory, so that the tokens
`(B·T, H·W, C)` are a view, and include their own normalisation and residual: `x + attention(norm(x))`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.denoisers.embeddings import rotate


class TemporalAttention(nn.Module):
    """Every pixel attends along time, with rotary positions and a relative position bias."""

    def __init__(self, dim: int, heads: int, dim_head: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, bias: Tensor, focused: Tensor | None = None) -> Tensor:
        """x (B·T, C, H, W), rotation (T, dim_head // 2) complex, bias (heads, T, T), focused (B,) bool -> like x."""
        height, width = x.shape[-2:]
        frames = rotation.shape[0]
        tokens = rearrange(x, "(b t) c h w -> b (h w) t c", t=frames)
        tokens = self.attend(self.norm(tokens), rotation, bias, focused)
        return x + rearrange(tokens, "b (h w) t c -> (b t) c h w", h=height, w=width)

    def attend(self, tokens: Tensor, rotation: Tensor, bias: Tensor | None, focused: Tensor | None = None) -> Tensor:
        """Attention alone: tokens (B, S, T, C) -> (B, S, T, C), for S independent pixels.

        Where `focused` (B,) is true a frame may look only at itself. A softmax over one logit is 1, so what it gets is
        its own value: no mask is needed, only the values in place of the attention's result.
        """
        batch = tokens.shape[0]
        qkv = rearrange(self.to_qkv(tokens), "b s t (three head d) -> three (b s) head t d", three=3, head=self.heads)
        query_key = rotate(qkv[:2], rotation).to(qkv.dtype)
        value = qkv[2]
        out = F.scaled_dot_product_attention(query_key[0], query_key[1], value, attn_mask=bias)
        if focused is not None:
            out = torch.where(focused.repeat_interleave(len(out) // batch)[:, None, None, None], value, out)
        return self.to_out(rearrange(out, "(b s) head t d -> b s t (head d)", b=batch))


class SpatialAttention(nn.Module):
    """Every pixel attends to all pixels of its own frame. Positions are left to the convolutions around it."""

    def __init__(self, dim: int, heads: int, dim_head: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B·T, C, H, W) -> like x."""
        height, width = x.shape[-2:]
        tokens = self.norm(rearrange(x, "n c h w -> n (h w) c"))
        query, key, value = rearrange(
            self.to_qkv(tokens), "n s (three head d) -> three n head s d", three=3, head=self.heads
        )
        out = F.scaled_dot_product_attention(query, key, value)
        out = self.to_out(rearrange(out, "n head s d -> n s (head d)"))
        return x + rearrange(out, "n (h w) c -> n c h w", h=height, w=width)


class LinearAttention(nn.Module):
    """Attention within a frame at a cost linear in H·W (Shen et al. 2021, "Efficient Attention").

    Instead of comparing each query with each key, the keys first gather the values into one d×d table per head,
    which every query then reads: (q kᵀ) v becomes q (kᵀ v). For that the softmax is split in two, over the features
    for q, over the positions for k.
    """

    def __init__(self, dim: int, heads: int, dim_head: int):
        super().__init__()
        self.heads = heads
        self.scale = dim_head**-0.5
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (B·T, C, H, W) -> like x."""
        height, width = x.shape[-2:]
        tokens = rearrange(x, "n c h w -> n (h w) c")
        return x + rearrange(self.attend(self.norm(tokens)), "n (h w) c -> n c h w", h=height, w=width)

    def attend(self, tokens: Tensor) -> Tensor:
        """Attention alone: tokens (N, S, C) -> (N, S, C), for N independent frames of S positions."""
        query, key, value = rearrange(
            self.to_qkv(tokens), "n s (three head d) -> three n head s d", three=3, head=self.heads
        )
        query = query.softmax(dim=-1) * self.scale
        key = key.softmax(dim=-2)
        table = key.transpose(-1, -2) @ value
        return self.to_out(rearrange(query @ table, "n head s d -> n s (head d)"))
