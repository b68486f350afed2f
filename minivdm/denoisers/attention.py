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

    def attend(self, tokens: Tensor, rotation: Tensor, bias: Tensor, focused: Tensor | None = None) -> Tensor:
        """Attention alone: tokens (B, S, T, C) -> (B, S, T, C), for S independent pixels.

        Where `focused` (B,) is true a frame may look only at itself. A softmax over one logit is 1, so what it gets is
        its own value: no mask is needed, only the values in place of the attention's result.
        """
        attend = _attend_by_head if tokens.device.type == "cpu" else _attend_at_once
        pixels = rearrange(tokens, "b s t c -> (b s) t c")
        out = attend(pixels, self.to_qkv.weight, self.to_out.weight, rotation, bias)
        out = rearrange(out, "(b s) t c -> b s t c", b=len(tokens))
        if focused is None:
            return out
        value_weight = self.to_qkv.weight.chunk(3)[2]
        own_value = self.to_out(F.linear(tokens, value_weight))
        return torch.where(rearrange(focused, "b -> b 1 1 1"), own_value, out)


def _attend_at_once(x: Tensor, qkv_weight: Tensor, out_weight: Tensor, rotation: Tensor, bias: Tensor) -> Tensor:
    """Attention along time of x (N, T, C), all heads in one fused call: made for accelerators."""
    heads = len(bias)
    qkv = rearrange(F.linear(x, qkv_weight), "n t (three head d) -> n t three head d", three=3, head=heads)
    query_key, value = qkv.split([2, 1], dim=2)
    # the rotation is done in float32, the products again in the precision of the projections
    query_key = rotate(query_key, rearrange(rotation, "t pair -> t 1 1 pair")).to(value.dtype)
    query, key = rearrange(query_key, "n t two head d -> two n head t d")
    value = rearrange(value, "n t 1 head d -> n head t d")
    out = _fused(query, key, value, bias.to(value.dtype))
    return F.linear(rearrange(out, "n head t d -> n t (head d)"), out_weight)


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, limit: int = 2**16 - 1) -> Tensor:
    """Torch's attention, in portions: CUDA cannot start it for more sequences at once (pytorch issue 142228)."""
    if len(query) <= limit:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    portions = zip(query.split(limit), key.split(limit), value.split(limit), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*portion, attn_mask=bias) for portion in portions])


def _attend_by_head(x: Tensor, qkv_weight: Tensor, out_weight: Tensor, rotation: Tensor, bias: Tensor) -> Tensor:
    """The same numbers, one head after the other: two to four times faster than the above on a CPU.

    There the sums are cheap and memory is slow. T is small and N (every pixel of every clip) is large, so that queries,
    keys and values of all heads are many times larger than x itself, and each pass over them costs more than the
    attention. One head at a time keeps them small, and two of the passes can be left out:

    * values: attention is linear in them, so `A (x Wv) Wo = (A x) (Wv Wo)`: where a head is not much narrower than x,
      average x itself and apply both weights, multiplied beforehand, at the end;
    * logits are kept as (key, query), because a softmax along the last axis is slow when that axis has 9 entries.
    """
    heads = len(bias)
    weights = rearrange(qkv_weight, "(three head d) c -> three head d c", three=3, head=heads)
    query_weight, key_weight, value_weight = weights
    out_weight = rearrange(out_weight, "c (head d) -> head c d", head=heads)
    dim_head = query_weight.shape[1]
    rotation = torch.cat([rotation, rotation], dim=-1)  # queries and keys are turned in one product
    out = 0
    for head in range(heads):
        query_key = F.linear(x, torch.cat([query_weight[head], key_weight[head]]))
        query, key = rotate(query_key, rotation).chunk(2, dim=-1)
        if x.shape[-1] <= 2 * dim_head:
            value, weight = x, out_weight[head] @ value_weight[head]
        else:
            value, weight = F.linear(x, value_weight[head]), out_weight[head]
        with torch.autocast("cpu", enabled=False):  # float32 costs nothing here
            logits = torch.baddbmm(bias[head].T.to(key.dtype), key, query.transpose(1, 2), alpha=dim_head**-0.5)
            gathered = torch.bmm(logits.softmax(dim=1).transpose(1, 2), value.to(key.dtype))
        out = out + F.linear(gathered.to(x.dtype), weight)
    return out


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

    Instead of comparing each query with each key, the keys first gather the positions into one table per head, which
    every query then reads: (q kᵀ) v becomes q (kᵀ v). For that the softmax is split in two, over the features for q,
    over the positions for k. Nothing non-linear happens to the values, so their projection and the last one are applied
    to the small table and not to every position.
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
        query_weight, key_weight, value_weight = self.to_qkv.weight.chunk(3)
        out_weight = self.to_out.weight * self.scale
        query = F.linear(tokens, query_weight).unflatten(-1, (self.heads, -1)).softmax(dim=-1).flatten(-2)
        key = torch.matmul(key_weight, tokens.transpose(1, 2)).softmax(dim=-1)
        table = rearrange(key @ tokens, "n (head d) c -> n head d c", head=self.heads)
        table = table @ rearrange(value_weight, "(head d) c -> head c d", head=self.heads)
        table = table @ rearrange(out_weight, "c (head d) -> head d c", head=self.heads)
        return torch.baddbmm(self.to_out.bias, query, rearrange(table, "n head d c -> n (head d) c"))
