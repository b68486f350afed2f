"""Right answers to the exercises of lesson 07, written in another way: loops, other algebra, other idioms."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat


def sinusoidal_embedding(t, dim):
    half = dim // 2
    freqs = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * freqs[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def sinusoidal_embedding_loop(t, dim):
    half = dim // 2
    rows = [[step / 10000 ** (i / (half - 1)) for i in range(half)] for step in t.tolist()]
    return torch.tensor([[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in rows])


def film(x, scale, shift):
    return torch.einsum("bcthw,bc->bcthw", x, scale) + x + shift[..., None, None, None]


def frames_to_batch(x):
    return torch.stack([x[b, :, t] for b in range(x.shape[0]) for t in range(x.shape[2])])


def temporal_attention(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(q), *bias.shape))


def temporal_attention_loop(q, k, v, bias):
    out = torch.zeros_like(v)
    for i in range(q.shape[2]):
        scores = (q[:, :, i : i + 1] * k).sum(-1) / math.sqrt(q.shape[-1]) + bias[:, i]
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[:, :, i] = (weights[..., None] * v).sum(2)
    return out


def relative_position_bucket(rel, num_buckets=32, max_distance=32):
    half = num_buckets // 2
    exact = half // 2

    def bucket(offset):
        n = abs(offset)
        if n >= exact:
            n = min(exact + int(math.log(n / exact) / math.log(max_distance / exact) * (half - exact)), half - 1)
        return n + (half if offset > 0 else 0)

    return torch.tensor([bucket(offset) for offset in rel.flatten().tolist()]).reshape(rel.shape)


def relative_position_bucket_float32(rel, num_buckets=32, max_distance=32):
    half = num_buckets // 2
    exact = half // 2
    n = torch.abs(rel)
    large = exact + (torch.log2(n.float() / exact) / math.log2(max_distance / exact) * (half - exact)).long()
    large = torch.min(large, torch.full_like(large, half - 1))
    return (rel > 0).long() * half + torch.where(n < exact, n, large)


def rotate(x, freqs):
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(freqs), freqs)
    return torch.view_as_real(turned).flatten(-2)


def rotate_halves(x, freqs):
    angles = repeat(freqs, "t d -> t (d two)", two=2)
    a, b = rearrange(x, "... (d two) -> ... d two", two=2).unbind(-1)
    return x * angles.cos() + rearrange(torch.stack((-b, a), -1), "... d two -> ... (d two)") * angles.sin()


def guided(cond, uncond, scale):
    return torch.lerp(uncond, cond, scale)


def guided_sum(cond, uncond, scale):
    return scale * cond + (1 - scale) * uncond


def focus_present_mask(focus, num_frames):
    masks = [torch.eye(num_frames) if one else torch.ones(num_frames, num_frames) for one in focus]
    return torch.stack(masks).bool()


def focus_present_mask_loop(focus, num_frames):
    frames = range(num_frames)
    return torch.tensor([[[i == j or not one for j in frames] for i in frames] for one in focus.tolist()])


def ema_update(ema, value, decay):
    return ema + (value - ema) * (1 - decay)


def ema_update_lerp(ema, value, decay):
    return value.lerp(ema, decay)


ALTERNATIVES = {
    "07.sinusoidal_embedding": [sinusoidal_embedding, sinusoidal_embedding_loop],
    "07.film": [film],
    "07.frames_to_batch": [frames_to_batch],
    "07.temporal_attention": [temporal_attention, temporal_attention_loop],
    "07.relative_position_bucket": [relative_position_bucket, relative_position_bucket_float32],
    "07.rotate": [rotate, rotate_halves],
    "07.guided": [guided, guided_sum],
    "07.focus_present_mask": [focus_present_mask, focus_present_mask_loop],
    "07.ema_update": [ema_update, ema_update_lerp],
}

# Mutants that compute the same thing. 33 // 2 is 16; at `exact` the far branch gives `exact` too, and below it nobody
# looks at it; off the edges float32 is precise enough.
EQUIVALENT = {"07.relative_position_bucket": r"num_buckets=33|distance <= exact|clamp\(min=[02]\)|clamp\(min=1\) /"}
