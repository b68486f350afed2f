"""Exercises of notebook 07, the Unet3D: how noisy, where and when; guidance; and weights that follow slowly."""

import math

import torch
from einops import rearrange
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n07_attention_mistakes as attention_mistakes
from minivdm.course.exercises import n07_block_mistakes as block_mistakes
from minivdm.course.inputs import randn

CLIP = (2, 3, 5, 4, 6)


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    half = dim // 2
    frequencies = 10000 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def film(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = (rearrange(each, "b c -> b c 1 1 1") for each in (scale, shift))
    return x * (1 + scale) + shift


def frames_to_batch(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> (b t) c h w")


def temporal_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5 + bias
    return torch.softmax(scores, dim=3) @ v


def relative_position_bucket(rel: Tensor, num_buckets: int = 32, max_distance: int = 32) -> Tensor:
    half = num_buckets // 2  # one half for the past, one for the future
    exact = half // 2  # near offsets have a bucket each, far ones share
    distance = rel.abs()
    octave = torch.log(distance.clamp(min=1).double() / exact) / math.log(max_distance / exact)
    far = (exact + (octave * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (rel > 0)


def rotate(x: Tensor, freqs: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (even * freqs.cos() - odd * freqs.sin(), even * freqs.sin() + odd * freqs.cos())
    return torch.stack(turned, dim=x.ndim).flatten(start_dim=x.ndim - 1)


def guided(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    return uncond + scale * (cond - uncond)


def focus_present_mask(focus: Tensor, num_frames: int) -> Tensor:
    return torch.eye(num_frames, dtype=torch.bool) | ~focus[:, None, None]


def ema_update(ema: Tensor, value: Tensor, decay: float) -> Tensor:
    return decay * ema + (1 - decay) * value


def _sinusoid_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"t": torch.tensor([999, 0, 1, 500, 37]), "dim": 16}, "dim 16"),
        Case({"t": torch.tensor([3, 421]), "dim": 4}, "dim 4, the smallest"),
        Case({"t": torch.tensor([750]), "dim": 64}, "dim 64, a single sample"),
    ]


def _film_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        scale, shift = 2 * randn(g, *shape[:2], dtype=dtype), 2 * randn(g, *shape[:2], dtype=dtype)
        return Case({"x": randn(g, *shape, dtype=dtype), "scale": scale, "shift": shift}, note)

    return [case(CLIP, torch.float32, "a batch of videos"), case((1, 4, 2, 3, 5), torch.float64, "one clip in float64")]


def _fold_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"x": randn(g, *CLIP)}, "a batch of videos"),
        Case({"x": randn(g, 1, 4, 2, 3, 5, dtype=torch.float64)}, "one clip in float64"),
    ]


def _attention_cases(g: torch.Generator) -> list[Case]:
    def case(batch: int, heads: int, frames: int, width: int, dtype: torch.dtype, note: str) -> Case:
        q, k, v = (randn(g, batch, heads, frames, width, dtype=dtype) for _ in range(3))
        return Case({"q": q, "k": k, "v": v, "bias": randn(g, heads, frames, frames, dtype=dtype)}, note)

    return [
        case(2, 3, 5, 8, torch.float32, "5 frames, 3 heads"),
        case(4, 1, 7, 6, torch.float64, "7 frames, a single head, float64"),
        case(1, 2, 3, 16, torch.float32, "a single sample"),
    ]


def _bucket_cases(g: torch.Generator) -> list[Case]:
    def case(num_buckets: int, max_distance: int, note: str, named: bool = True) -> Case:
        exact = num_buckets // 4
        offsets = torch.tensor([n for n in range(-150, 151) if not _on_an_edge(abs(n), exact, max_distance)])
        offsets = offsets[torch.randperm(len(offsets), generator=g)]
        rel = offsets[: len(offsets) // 7 * 7].reshape(7, -1)
        rel[0, :5] = torch.tensor([0, 1, -1, max_distance + 1, -max_distance - 1])
        sizes = {"num_buckets": num_buckets, "max_distance": max_distance} if named else {}
        return Case({"rel": rel, **sizes}, note)

    return [
        case(32, 32, "the default sizes", named=False),
        case(32, 128, "32 buckets up to 128"),
        case(16, 20, "16 buckets up to 20"),
        case(8, 10, "8 buckets up to 10"),
    ]


def _on_an_edge(distance: int, exact: int, max_distance: int) -> bool:
    """True where a far bucket begins at exactly this distance: there the last bit of a logarithm decides, either "
    "way."""
    if not exact < distance < max_distance:
        return False
    place = math.log(distance / exact) / math.log(max_distance / exact) * exact
    return abs(place - round(place)) < 1e-3


def _rotate_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        freqs = 2 * randn(g, shape[-2], shape[-1] // 2, dtype=dtype)
        return Case({"x": randn(g, *shape, dtype=dtype), "freqs": freqs}, note)

    return [
        case((2, 3, 5, 8), torch.float32, "(B, heads, T, d)"),
        case((7, 4), torch.float32, "(T, d)"),
        case((2, 3, 10), torch.float64, "(B, T, d) in float64"),
    ]


def _guided_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], scale: float, dtype: torch.dtype, note: str) -> Case:
        cond, uncond = randn(g, *shape, dtype=dtype), randn(g, *shape, dtype=dtype)
        return Case({"cond": cond, "uncond": uncond, "scale": scale}, note)

    return [
        case(CLIP, 3.5, torch.float32, "scale 3.5"),
        case((4, 2), 1.0, torch.float32, "scale 1"),
        case((1, 3, 2), 0.0, torch.float32, "scale 0"),
        case((5, 2), 2.0, torch.float64, "scale 2 in float64"),
    ]


def _focus_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"focus": torch.tensor([False, True, True, False, True]), "num_frames": 3}, "a mixed batch"),
        Case({"focus": torch.tensor([True]), "num_frames": 5}, "one focused clip"),
        Case({"focus": torch.tensor([False, False]), "num_frames": 4}, "no focused clip"),
    ]


def _ema_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], decay: float, dtype: torch.dtype, note: str) -> Case:
        ema, value = randn(g, *shape, dtype=dtype), randn(g, *shape, dtype=dtype)
        return Case({"ema": ema, "value": value, "decay": decay}, note)

    return [
        case((3, 5), 0.9, torch.float32, "decay 0.9"),
        case((4,), 0.25, torch.float64, "decay 0.25 in float64"),
        case((2, 3, 4), 0.995, torch.float32, "decay 0.995"),
    ]


EXERCISES = (
    Exercise(
        "07.sinusoidal_embedding",
        sinusoidal_embedding,
        _sinusoid_cases,
        block_mistakes.SINUSOIDAL_EMBEDDING,
        (
            "A clock with many hands: the fastest turns one radian per step, the slowest hardly at all. Together "
            "they tell "
            "every t apart, and neighbours look alike.",
            "f_i = 10000^(−i/(dim/2 − 1)) for i = 0 … dim/2 − 1; embedding = [sin(t·f), cos(t·f)]",
            "`freqs = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))`, then "
            "`torch.cat([(t[:, None] * freqs).sin(), (t[:, None] * freqs).cos()], dim=1)`",
        ),
        rtol=0.0,
        atol=2e-4,
    ),
    Exercise(
        "07.film",
        film,
        _film_cases,
        block_mistakes.FILM,
        (
            "The timestep speaks to each channel: how much louder, how much higher. Saying nothing (0, 0) must "
            "change nothing.",
            "out[b, c, …] = x[b, c, …] · (1 + scale[b, c]) + shift[b, c]",
            '`x * (1 + rearrange(scale, "b c -> b c 1 1 1")) + rearrange(shift, "b c -> b c 1 1 1")`',
        ),
    ),
    Exercise(
        "07.frames_to_batch",
        frames_to_batch,
        _fold_cases,
        block_mistakes.FRAMES_TO_BATCH,
        (
            "A layer for pictures does not know time. Show it the frames of all clips as one large batch of pictures.",
            "out[b·T + t] = x[b, :, t]",
            '`rearrange(x, "b c t h w -> (b t) c h w")`',
        ),
    ),
    Exercise(
        "07.temporal_attention",
        temporal_attention,
        _attention_cases,
        attention_mistakes.TEMPORAL_ATTENTION,
        (
            "Each frame asks all frames: who has what I need? Similarity of query and key, plus a preference for "
            "certain "
            "offsets in time, becomes a weight for each value.",
            "softmax over keys of (q·kᵀ/√d + bias), times v",
            "`torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias, dim=-1) @ v`",
        ),
    ),
    Exercise(
        "07.relative_position_bucket",
        relative_position_bucket,
        _bucket_cases,
        attention_mistakes.RELATIVE_POSITION_BUCKET,
        (
            "Near in time, every offset matters; far away, only the rough distance. And the future is not the "
            "past: each has "
            "its own half of the buckets.",
            "half = num_buckets/2, exact = half/2, n = |rel|; n < exact: bucket n; else exact + "
            "⌊ln(n/exact)/ln(max_distance/exact) · "
            "(half − exact)⌋, at most half − 1; plus half where rel > 0",
            "`torch.where(n < exact, n, (exact + (torch.log(n.clamp(min=1) / exact) / math.log(max_distance / "
            "exact) * "
            "(half - exact)).long()).clamp(max=half - 1)) + half * (rel > 0)`",
        ),
    ),
    Exercise(
        "07.rotate",
        rotate,
        _rotate_cases,
        attention_mistakes.ROTATE,
        (
            "Take the channels two by two as points in a plane, and turn each point by its angle. Two turned "
            "vectors then "
            "know how far apart in time they are.",
            "(a, b) → (a·cos θ − b·sin θ, a·sin θ + b·cos θ) with a = x[…, 2i], b = x[…, 2i + 1], θ = freqs[…, i]",
            "`a, b = x[..., 0::2], x[..., 1::2]`, then "
            "`torch.stack([a * freqs.cos() - b * freqs.sin(), a * freqs.sin() + b * freqs.cos()], "
            "dim=-1).flatten(-2)`",
        ),
    ),
    Exercise(
        "07.guided",
        guided,
        _guided_cases,
        block_mistakes.GUIDED,
        (
            "What does the condition change? Go further in that direction, starting from the unconditioned prediction.",
            "uncond + scale · (cond − uncond)",
            "`uncond + scale * (cond - uncond)`",
        ),
    ),
    Exercise(
        "07.focus_present_mask",
        focus_present_mask,
        _focus_cases,
        attention_mistakes.FOCUS_PRESENT_MASK,
        (
            "A focused clip is a set of pictures: each frame may look at itself only. The other clips are films: "
            "every frame "
            "may look at every frame.",
            "mask[b, i, j] = (i = j) or not focus[b]",
            "`torch.eye(num_frames, dtype=torch.bool) | ~focus[:, None, None]` (with `device=focus.device` on a GPU)",
        ),
    ),
    Exercise(
        "07.ema_update",
        ema_update,
        _ema_cases,
        block_mistakes.EMA_UPDATE,
        (
            "The average forgets slowly: it keeps most of itself and takes a small share of the new value.",
            "decay · ema + (1 − decay) · value",
            "`decay * ema + (1 - decay) * value`, without an underscore method",
        ),
    ),
)
