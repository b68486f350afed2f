"""The block of `STDiT3`: attention within frames or along time, a look at the text, an MLP; and the layer at the end.

One block class serves both directions. A clip is always `(B, T, S, D)`, T frames of S tokens; a spatial block folds
the frames into the batch, a temporal block the places, and that is all the difference there is.

Timesteps reach a block as `modulation (B, T or 1, 6, D)`: shift, scale and gate of the attention, then of the MLP, for
each frame or for all frames alike. A clip with frames that are already clean (the first frame of "animate this
picture") has one modulation for them and another for the rest; the block need not know.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.denoisers.dit_embeddings import MLP, rotate_pairs

Rotation = tuple[Tensor, Tensor]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x · (1 + scale) + shift` (Perez et al. 2018, FiLM), scale 0 and shift 0 change nothing."""
    return x * (1 + scale) + shift


def layer_norm(dim: int) -> nn.LayerNorm:
    """A norm without gain and bias, which come with the modulation."""
    return nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)


class HeadNorm(nn.RMSNorm):
    """Bring the queries or keys of every head to RMS 1, times a learned gain per feature."""

    def __init__(self, dim_head: int):
        super().__init__(dim_head, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_head) -> like x. Under autocast the gain follows x: the fused kernel takes one precision only."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Every token of a sequence looks at all others.

    Args:
        dim, heads: width, and the number of heads it is divided into.
        qkv_bias: whether the projection has a bias.
        qk_norm: bring queries and keys of each head to RMS 1 first, so that logits cannot grow without bounds in
            half precision (Dehghani et al. 2023, section 3.1).
        rotate_first: rotate before that norm, as models older than Open-Sora 1.2 do, instead of after it.
    """

    def __init__(
        self, dim: int, heads: int, *, qkv_bias: bool = True, qk_norm: bool = True, rotate_first: bool = False
    ):
        super().__init__()
        self.heads = heads
        self.rotate_first = rotate_first
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = (HeadNorm(dim // heads) if qk_norm else nn.Identity() for _ in range(2))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """x (N, S, D), rotation for S positions or None for no positions at all -> (N, S, D)."""
        query, key, value = rearrange(self.qkv(x), "n s (three head d) -> three n head s d", three=3, head=self.heads)
        if rotation is not None and self.rotate_first:
            query, key = rotate_pairs(query, rotation), rotate_pairs(key, rotation)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None and not self.rotate_first:
            query, key = rotate_pairs(query, rotation), rotate_pairs(key, rotation)
        out = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        return self.proj(rearrange(out, "n head s d -> n s (head d)"))


class CrossAttention(nn.Module):
    """Every token of a clip looks at the text of that clip."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, D), y (B, L, D), mask (B, L) bool, True for tokens that may be seen -> (B, N, D).

        Upstream packs the visible tokens of all clips into one sequence and cuts that up again; a mask says the same.
        """
        query = rearrange(self.q_linear(x), "b n (head d) -> b head n d", head=self.heads)
        key, value = rearrange(self.kv_linear(y), "b l (two head d) -> two b head l d", two=2, head=self.heads)
        if mask is not None:
            mask = rearrange(mask, "b l -> b 1 1 l")
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(rearrange(out, "b head n d -> b n (head d)"))


class STDiT3Block(nn.Module):
    """One of the 2·depth blocks of `STDiT3`: spatial, or the same along time if `temporal`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, *, temporal: bool = False, qk_norm: bool = True):
        super().__init__()
        self.temporal = temporal
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, heads, qk_norm=qk_norm)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm2 = layer_norm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        modulation: Tensor,
        text_mask: Tensor | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """x (B, T, S, D), y (B, L, D), modulation (B, T or 1, 6, D), text_mask (B, L) bool -> (B, T, S, D).

        rotation: of T positions, for a temporal block.
        """
        frames = x.shape[1]
        table = rearrange(self.scale_shift_table + modulation, "b t six d -> six b t 1 d")
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table
        x = x + gate * self.look(modulate(self.norm1(x), shift, scale), rotation)
        # no norm and no gate here: the text is added to the stream as it comes
        text = self.cross_attn(rearrange(x, "b t s d -> b (t s) d"), y, text_mask)
        x = x + rearrange(text, "b (t s) d -> b t s d", t=frames)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

    def look(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Self-attention of x (B, T, S, D) in this block's direction."""
        batch = len(x)
        if self.temporal:
            out = self.attn(rearrange(x, "b t s d -> (b s) t d"), rotation)
            return rearrange(out, "(b s) t d -> b t s d", b=batch)
        return rearrange(self.attn(rearrange(x, "b t s d -> (b t) s d")), "(b t) s d -> b t s d", b=batch)


class FinalLayer(nn.Module):
    """Norm, one last modulation, and every token becomes the numbers of its patch.

    double_modulate: normalise and modulate clean frames twice, as upstream does because it overwrites x between its
        two branches. Only frames whose output nobody uses differ.
    """

    def __init__(self, dim: int, out_dim: int, *, double_modulate: bool = False):
        super().__init__()
        self.double_modulate = double_modulate
        self.norm_final = layer_norm(dim)
        self.linear = nn.Linear(dim, out_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)

    def forward(self, x: Tensor, t: Tensor, x_mask: Tensor | None = None, t0: Tensor | None = None) -> Tensor:
        """x (B, T, S, D), t (B, D) -> (B, T, S, out_dim); x_mask (B, T) bool takes t0 (B, D) for frames of False."""
        out = self._modulated(x, t)
        if x_mask is not None:
            clean = self._modulated(out if self.double_modulate else x, t0)
            out = torch.where(rearrange(x_mask, "b t -> b t 1 1"), out, clean)
        return self.linear(out)

    def _modulated(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale = rearrange(self.scale_shift_table + rearrange(t, "b d -> b 1 d"), "b two d -> two b 1 1 d")
        return modulate(self.norm_final(x), shift, scale)


def per_frame(t: Tensor, x_mask: Tensor | None = None, t0: Tensor | None = None) -> Tensor:
    """t (B, 6·D) -> modulation (B, 1, 6, D); or, where x_mask (B, T) bool is False, of t0 (B, 6·D): (B, T, 6, D)."""
    modulation = rearrange(t, "b (six d) -> b 1 six d", six=6)
    if x_mask is None:
        return modulation
    clean = rearrange(t0, "b (six d) -> b 1 six d", six=6)
    return torch.where(rearrange(x_mask, "b t -> b t 1 1"), modulation, clean)


def repeat_mask(mask: Tensor, batch: int) -> Tensor:
    """A text mask (b, L) of any numbers -> (batch, L) bool; b rows serve a batch of k·b as a, b, a, b, …

    Guidance doubles the batch, the prompts' texts in front and "no text" behind, and gives the masks of the prompts.
    """
    return repeat(mask != 0, "b l -> (k b) l", k=batch // len(mask))
