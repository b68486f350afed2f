"""The encoder of T5 v1.1 (Raffel et al. 2020, Shazeer 2020): which number each word becomes, from first to last line.

    tokens -> vectors -> [attention, feed-forward] × num_layers -> norm

Four things set it apart from the transformers in `denoisers/`:

* there is no table of positions: all that is known of order is a number added to each attention score, chosen by how
  far the key stands behind the query. Layer 0 learns these numbers, all layers use them;
* scores are not divided by √d_kv: the division is in the initial weights of the queries instead;
* norms have no mean and no shift, linear layers no bias;
* the feed-forward is gated: one half of it, through a GELU, says how much of the other half passes.

Parameters are named as in transformers' `T5EncoderModel`, so `load_state_dict` takes weights from either to the other.
Sums, norms and the softmax are float32 whatever the weights are: float16 ends at 65504, and T5's sums do not.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError


@dataclass(frozen=True)
class T5EncoderConfig:
    """Sizes of a `T5Encoder`, named as in transformers. T5 v1.1 XXL: 24 layers of width 4096, 4.76 billion weights.

    d_model, d_ff: width of the tokens, and of the feed-forward inside
    num_heads, d_kv: heads, and the width of each; their product need not be d_model
    relative_attention_num_buckets, relative_attention_max_distance: how distances are told apart, see `buckets`
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @classmethod
    def from_dict(cls, config: Mapping) -> "T5EncoderConfig":
        """From the contents of transformers' config.json. UserError if it is not a T5 with gated GELUs."""
        kind = (config.get("model_type"), config.get("feed_forward_proj"))
        if kind != ("t5", "gated-gelu"):
            raise UserError(f"found a model of type {kind[0]!r}, feed-forward {kind[1]!r}; expected 't5', 'gated-gelu'")
        if missing := [field.name for field in fields(cls) if field.default is MISSING and field.name not in config]:
            raise UserError(f"the T5 configuration lacks {', '.join(missing)}; expected a whole config.json")
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


class T5Encoder(nn.Module):
    """Token ids to one vector each, which knows of all other tokens."""

    def __init__(self, config: T5EncoderConfig):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)  # in the whole T5, shared with the decoder
        self.encoder = Stack(config, self.shared)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """input_ids (B, L), attention_mask (B, L), true or 1 where a token is no pad -> (B, L, D).

        Without a mask every token is looked at, pads too. Vectors come out for pads as well: do not use them.
        """
        return self.encoder(input_ids, attention_mask)


class Stack(nn.Module):
    """The blocks between embedding and last norm."""

    def __init__(self, config: T5EncoderConfig, embed_tokens: nn.Embedding):
        super().__init__()
        self.embed_tokens = embed_tokens
        self.block = nn.ModuleList(Block(config, learns_bias=layer == 0) for layer in range(config.num_layers))
        self.final_layer_norm = RMSNorm(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed_tokens(input_ids).float()  # (B, L, D)
        bias = self.block[0].layer[0].SelfAttention.position_bias(x.shape[1])  # (heads, L, L)
        if attention_mask is not None:
            hidden = rearrange(~attention_mask.bool(), "b key -> b 1 1 key")
            bias = bias.masked_fill(hidden, torch.finfo(bias.dtype).min)  # (B, heads, L, L)
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)


class Block(nn.Module):
    """Attention and feed-forward, each added to what came in."""

    def __init__(self, config: T5EncoderConfig, learns_bias: bool):
        super().__init__()
        attention = {"SelfAttention": SelfAttention(config, learns_bias), "layer_norm": RMSNorm(config)}
        feed_forward = {"DenseReluDense": GatedGelu(config), "layer_norm": RMSNorm(config)}  # a ReLU until v1.1
        self.layer = nn.ModuleList([nn.ModuleDict(attention), nn.ModuleDict(feed_forward)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention, feed_forward = self.layer
        x = x + attention.SelfAttention(attention.layer_norm(x), bias)
        return x + feed_forward.DenseReluDense(feed_forward.layer_norm(x))


class SelfAttention(nn.Module):
    """Every token looks at all tokens; how far away they are counts, where they are does not."""

    def __init__(self, config: T5EncoderConfig, learns_bias: bool):
        super().__init__()
        self.config = config
        inner = config.num_heads * config.d_kv
        self.q = _linear(config.d_model, inner, std=(config.d_model * config.d_kv) ** -0.5)  # the missing 1/√d_kv
        self.k = _linear(config.d_model, inner)
        self.v = _linear(config.d_model, inner)
        self.o = _linear(inner, config.d_model)
        if learns_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=config.d_model**-0.5)

    def position_bias(self, length: int) -> Tensor:
        """What to add to the scores of `length` tokens: (heads, L, L) float32, rows are queries, columns keys."""
        table = self.relative_attention_bias.weight.float()
        distances = (self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance)
        return rearrange(table[buckets(length, *distances, table.device)], "query key head -> head query key")

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, L, D), bias (B, heads, L, L) or (heads, L, L) -> (B, L, D)."""
        query, key, value = (
            rearrange(project(x), "b l (head d) -> b head l d", head=self.config.num_heads)
            for project in (self.q, self.k, self.v)
        )
        scores = query.float() @ key.float().transpose(-1, -2) + bias
        gathered = scores.softmax(dim=-1).to(x.dtype) @ value
        return self.o(rearrange(gathered, "b head l d -> b l (head d)"))


def buckets(length: int, num_buckets: int, max_distance: int, device: torch.device | None = None) -> Tensor:
    """The kind of distance from each query to each key: (L, L) int64 in [0, num_buckets).

    The first half of the kinds is for keys at or before the query, the second for keys after it. Of each half, one half
    is for single distances (0, 1, 2 ...); the rest share ever more distances, up to max_distance, and all beyond.
    """
    position = torch.arange(length, device=device)
    ahead = rearrange(position, "key -> 1 key") - rearrange(position, "query -> query 1")
    per_side = num_buckets // 2
    exact = per_side // 2
    distance = ahead.abs()
    # float32, as the published models were trained: at the edges, rounding decides. max(1) only avoids log(0)
    logarithmic = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = exact + (logarithmic * (per_side - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=per_side - 1)) + per_side * (ahead > 0)


class GatedGelu(nn.Module):
    """`wo(gelu(wi_0 x) · wi_1 x)` (Shazeer 2020): x (B, L, D) -> (B, L, D) float32."""

    def __init__(self, config: T5EncoderConfig):
        super().__init__()
        self.wi_0 = _linear(config.d_model, config.d_ff)
        self.wi_1 = _linear(config.d_model, config.d_ff)
        self.wo = _linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.gelu(self.wi_0(x).float(), approximate="tanh")
        return F.linear(gate * self.wi_1(x).float(), self.wo.weight.float())


class RMSNorm(nn.Module):
    """Each token divided by the root of its mean square: x (B, L, D) float32 -> (B, L, D) as precise as the weight."""

    def __init__(self, config: T5EncoderConfig):
        super().__init__()
        self.epsilon = config.layer_norm_epsilon
        self.weight = nn.Parameter(torch.ones(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        mean_square = x.pow(2).mean(dim=-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean_square + self.epsilon)).to(self.weight.dtype)


def _linear(inputs: int, outputs: int, std: float | None = None) -> nn.Linear:
    """Without bias, and starting with outputs as large as the inputs: T5 has no other scaling."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=inputs**-0.5 if std is None else std)
    return linear
