"""Lesson 09's steering as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math
import random

import torch
import torch.nn.functional as F
from torch import nn

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


def attend(q, k, v, bias, scale=None):
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.softmax(scores + bias, -1) @ v


def as_bias(mask, blocked=-math.inf):
    return torch.zeros(mask.shape).masked_fill(~mask, blocked)[:, None, None]


several(
    "09.masked_cross_attention",
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask, -3.0)),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask, -1e-9)),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask, math.inf)),
    lambda q, k, v, mask: attend(q * q.shape[-1] ** -0.5, k, v, as_bias(mask)),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask), scale=k.shape[2] ** -0.5),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask), scale=(q.shape[1] * q.shape[3]) ** -0.5),
    lambda q, k, v, mask: attend(q, k * mask[:, None, :, None], v, 0),
    lambda q, k, v, mask: attend(q, k * mask[:, None, :, None], v * mask[:, None, :, None], 0),
    lambda q, k, v, mask: attend(q, k, k, as_bias(mask)),
    lambda q, k, v, mask: attend(q, v, k, as_bias(mask)),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask.any(0)[None].expand_as(mask))),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask.flip(0))),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask)) + q,
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask)).transpose(1, 2),
    lambda q, k, v, mask: attend(q, k, v, as_bias(mask)).transpose(1, 2).flatten(2),
    lambda q, k, v, mask: attend(q, k, v, mask[:, :, None]),
    lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v),
    lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=~mask[:, None, None]),
    lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None], dropout_p=0.1),
    lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    lambda q, k, v, mask: attend(q[:, :1], k[:, :1], v[:, :1], as_bias(mask)),
    lambda q, k, v, mask: attend(q.half(), k.half(), v.half(), as_bias(mask).half()),
)


@wrong("09.masked_cross_attention")
def cuts_at_the_count(q, k, v, mask):
    """Takes as many tokens from the front as are real: wrong where padding lies in between."""
    films = [
        attend(a[None], b[None, :, :n], c[None, :, :n], 0) for a, b, c, n in zip(q, k, v, mask.sum(1), strict=True)
    ]
    return torch.cat(films)


@wrong("09.masked_cross_attention")
def packed_without_borders(q, k, v, mask):
    """All real tokens of the batch in one row: every film hears every prompt."""
    real_k, real_v = (each.transpose(1, 2)[mask].transpose(0, 1)[None] for each in (k, v))
    return attend(q, real_k, real_v, 0)


@wrong("09.null_dropout")
def in_place(y, null, drop):
    y[drop] = null
    return y


@wrong("09.null_dropout")
def without_gradients(y, null, drop):
    with torch.no_grad():
        return torch.where(drop[:, None, None], null, y)


@wrong("09.null_dropout")
def drawn_anew(y, null, drop):
    return torch.where((torch.rand(len(y)) < drop.float().mean())[:, None, None], null, y)


@wrong("09.null_dropout")
def gradient_twice(y, null, drop):
    double = 2 * null - null.detach()
    return torch.where(drop[:, None, None], double, y)


several(
    "09.null_dropout",
    lambda y, null, drop: torch.where(drop[:, None, None], torch.tensor(null.tolist(), dtype=y.dtype), y),
    lambda y, null, drop: torch.where(drop[:, None, None], nn.Parameter(null), y),
    lambda y, null, drop: torch.where(drop[:, None, None], null.data, y),
    lambda y, null, drop: torch.where(drop[:, None, None], null.flip(0), y),
    lambda y, null, drop: torch.where(drop[:, None, None], null[:1], y),
    lambda y, null, drop: torch.where(drop[:, None, None], null, y)[~drop],
    lambda y, null, drop: torch.where(drop, null, y),
    lambda y, null, drop: y * ~drop[:, None, None],
    lambda y, null, drop: y.masked_fill(drop[:, None, None], 0) + null,
    lambda y, null, drop: (y + null) / 2,
    lambda y, null, drop: torch.where(drop[:, None, None], null, y).mean(1),
    lambda y, null, drop: (torch.where(drop[:, None, None], null, y), drop),
    lambda y, null, drop: null.expand_as(y),
    lambda y, null, drop: torch.cat([y[~drop], null.expand(int(drop.sum()), *null.shape)]),
)

several(
    "09.image_guidance",
    lambda cond, image, uncond, a, b: uncond + b * (image - uncond) + a * (cond - image) + image,
    lambda cond, image, uncond, a, b: uncond + a * b * (cond - uncond),
    lambda cond, image, uncond, a, b: uncond + (a + b) / 2 * (cond - uncond),
    lambda cond, image, uncond, a, b: cond + b * (image - uncond) + a * (cond - image),
    lambda cond, image, uncond, a, b: uncond + b * (image - uncond) + a * (image - cond),
    lambda cond, image, uncond, a, b: uncond + b * (image - uncond) + (a - 1) * (cond - image),
    lambda cond, image, uncond, a, b: uncond + image - uncond + a * (cond - image),
    lambda cond, image, uncond, a, b: (uncond + b * (image - uncond) + a * (cond - image)).clamp(-1, 1),
    lambda cond, image, uncond, a, b: (uncond + b * (image - uncond) + a * (cond - image)) / (1 + a + b),
    lambda cond, image, uncond, a, b: uncond + int(b) * (image - uncond) + int(a) * (cond - image),
    lambda cond, image, uncond, a, b: uncond + max(b, 1) * (image - uncond) + max(a, 1) * (cond - image),
    lambda cond, image, uncond, a, b: torch.stack([uncond, image, cond]),
    lambda cond, image, uncond, a, b: image.add_(cond - image, alpha=a),
)

several(
    "09.oscillate",
    lambda scale, step, first=10: scale if step % 2 == 0 or step < first else scale / 2,
    lambda scale, step, first=10: scale if step % 2 == 0 or step < first else -scale,
    lambda scale, step, first=10: scale if step % 2 == 0 and step < first else 1.0,
    lambda scale, step, first=10: scale if step % 2 == 0 or step < first - 1 else 1.0,
    lambda scale, step, first=10: scale if step % 2 == 0 or step > first else 1.0,
    lambda scale, step, first=10: scale if step % 3 == 0 or step < first else 1.0,
    lambda scale, step, first=10: scale if (step // 2) % 2 == 0 or step < first else 1.0,
    lambda scale, step, first=10: max(scale, 1.0) if step % 2 == 0 or step < first else 1.0,
    lambda scale, step, first=10: scale if step % 2 == 0 or step < first else min(scale, 1.0),
    lambda scale, step, first=10: 1 + (scale - 1) * (step % 2 == 0),
    lambda scale, step, first=10: int(scale) if step % 2 == 0 or step < first else 1,
    lambda scale, step, first=10: scale if step % 2 == 0 or step < (first or 10) else 1.0,
    lambda scale, step, first=10: [scale if n % 2 == 0 or n < first else 1.0 for n in range(step + 1)],
    lambda scale, step, first=10: scale if random.random() < 0.5 or step < first else 1.0,
    lambda scale, step, first=10: True if step % 2 and step >= first else scale,
)


@wrong("09.freeze_frames")
def frozen_in_place(z, z_ref, mask):
    z[mask[:, None, :, None, None].expand_as(z)] = z_ref[mask[:, None, :, None, None].expand_as(z)]
    return z


several(
    "09.freeze_frames",
    lambda z, z_ref, mask: torch.where(mask.any(1)[:, None, None, None, None], z_ref, z),
    lambda z, z_ref, mask: torch.where(mask.any(0)[None, None, :, None, None], z_ref, z),
    lambda z, z_ref, mask: torch.where(mask.flip(1)[:, None, :, None, None], z_ref, z),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref[:, :, :1], z),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref[:1], z),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref.mean((3, 4), keepdim=True), z),
    lambda z, z_ref, mask: torch.where(mask[:, None, None, :, None], z_ref, z),
    lambda z, z_ref, mask: torch.where(mask, z_ref, z),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref, z).half(),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref, z)[:, :, ~mask[0]],
    lambda z, z_ref, mask: torch.where(mask.cumsum(1).bool()[:, None, :, None, None], z_ref, z),
    lambda z, z_ref, mask: torch.cat([z_ref[:, :, mask[0]], z[:, :, ~mask[0]]], 2),
    lambda z, z_ref, mask: torch.where(mask[:, None, :, None, None], z_ref, 0 * z),
    lambda z, z_ref, mask: torch.lerp(z, z_ref, 0.99 * mask[:, None, :, None, None].to(z)),
)


@right("09.null_dropout")
def caption_by_caption(y, null, drop):
    return torch.stack([torch.lerp(caption, null, float(gone)) for caption, gone in zip(y, drop, strict=True)])


@right("09.null_dropout")
def by_index(y, null, drop):
    return y.index_put((drop.nonzero()[:, 0],), null)


@right("09.masked_cross_attention")
def a_large_number(q, k, v, mask):
    return attend(q, k, v, as_bias(mask, -1e9))
