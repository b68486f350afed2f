"""Lesson 04 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

WRONG, RIGHT = [], []


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


ceil = math.ceil

several(
    "04.token_count",
    lambda n, h, w, f, s, p: ceil(n * h * w / (f * s * s * p * p)),
    lambda n, h, w, f, s, p: ceil(n / f) * (h // s) * (w // s) // p**2,
    lambda n, h, w, f, s, p: ceil(n / f) * ceil((h // s) * (w // s) / p**2),
    lambda n, h, w, f, s, p: (1 + n // f) * ceil(h / s / p) * ceil(w / s / p),
    lambda n, h, w, f, s, p: ceil(n / f) + ceil(h / s / p) * ceil(w / s / p),
    lambda n, h, w, f, s, p: ceil(n / f) * ceil(h / s / p) ** 2,
    lambda n, h, w, f, s, p: float(ceil(n / f) * ceil(h / s / p) * ceil(w / s / p)),
    lambda n, h, w, f, s, p: ceil(n / f) * ceil(h / s / p) * ceil(w / s / p) * 4,
)


def triple(kernel):
    return (kernel,) * 3 if isinstance(kernel, int) else kernel


def sides(kernel):
    _, height, width = triple(kernel)
    return (width // 2, width // 2, height // 2, height // 2)


several(
    "04.causal_pad",
    lambda k, stride=1, d=1: (1, 1, 1, 1, d * (triple(k)[0] - 1) + 1 - stride, 0),
    lambda k, stride=1, d=1: (*sides(k), d * (triple(k)[0] - 1), 1 - stride),
    lambda k, stride=1, d=1: (*(d * side for side in sides(k)), d * (triple(k)[0] - 1) + 1 - stride, 0),
    lambda k, stride=1, d=1: (*sides(k), max(d * (triple(k)[0] - 1) - stride, 0), 0),
    lambda k, stride=1, d=1: (*sides(k), d * (triple(k)[0] - stride), 0),
    lambda k, stride=1, d=1: (*sides(k), d * (triple(k)[0] - 1) // stride, 0),
    lambda k, stride=1, d=1: (*sides(k), d * (triple(k)[0] - 1) + stride - 1, 0),
    lambda k, stride=1, d=1: (*sides(k), float(d * (triple(k)[0] - 1) + 1 - stride), 0),
    lambda k, stride=1, d=1: (k // 2,) * 4 + (d * (k - 1) + 1 - stride, 0),
    lambda k, stride=1, d=1: sides(k),
    lambda k, stride=1, d=1: torch.tensor((*sides(k), d * (triple(k)[0] - 1) + 1 - stride, 0)),
)


def conv(x, weight, bias, stride=1, mode="constant", step=None, front=None, back=0):
    kt, kh, kw = weight.shape[2:]
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, 0, 0), mode=mode)
    front = kt - stride if front is None else front
    return F.conv3d(F.pad(x, (0, 0, 0, 0, front, back)), weight, bias, (step or stride, 1, 1))


several(
    "04.causal_conv3d",
    lambda x, w, b, s=1: conv(x, w, b, s, mode="replicate"),
    lambda x, w, b, s=1: conv(x, w, b)[:, :, ::s],
    lambda x, w, b, s=1: conv(x, w.flip(3), b, s),
    lambda x, w, b, s=1: conv(x, w.flip(4), b, s),
    lambda x, w, b, s=1: conv(x, w, b, s)[:, :, :-1],
    lambda x, w, b, s=1: conv(x, w, b, s, front=0, back=w.shape[2] - s),
    lambda x, w, b, s=1: conv(x, w, b, s, front=(w.shape[2] - s) // 2, back=(w.shape[2] - s + 1) // 2),
    lambda x, w, b, s=1: conv(x.flip(2), w, b, s).flip(2),
    lambda x, w, b, s=1: conv(x, w, b, s).float(),
    lambda x, w, b, s=1: conv(x, w, b, s).relu(),
    lambda x, w, b, s=1: conv(x, w, b, 2),
    lambda x, w, b, s=1: conv(x, w, b) if b is not None else conv(x, w, b, s),
    lambda x, w, b, s=1: conv(x, w, b + 1 if b is not None else b, s),
)

several(
    "04.latent_frames",
    lambda n, f: n // f + (n % f > 1),
    lambda n, f: max(1, n // f),
    lambda n, f: int(n / f + 0.5),
    lambda n, f: 1 + (n - 1) // 4,
    lambda n, f: ceil(n / 4),
    lambda n, f: ceil((n + 1) / f),
    lambda n, f: float(ceil(n / f)),
    lambda n, f: torch.tensor(n / f).ceil(),
)


def front(x, count, **options):
    return F.pad(x, (0, 0, 0, 0, count, 0), **options)


several(
    "04.pad_front",
    lambda x, f: front(x, f - 1),
    lambda x, f: front(x, f),
    lambda x, f: front(x, (1 - x.shape[2]) % f),
    lambda x, f: front(x, -x.shape[2] % 4),
    lambda x, f: front(x, -x.shape[2] % f, value=1e-3),
    lambda x, f: front(x.float(), -x.shape[2] % f),
    lambda x, f: (front(x, -x.shape[2] % f), -x.shape[2] % f),
    lambda x, f: front(x, -x.shape[2] % f).roll(1, 2),
    lambda x, f: F.pad(x, (0, 0, 0, 0, (-x.shape[2] % f + 1) // 2, -x.shape[2] % f // 2)),
)

several(
    "04.depth_to_time",
    lambda x, f: rearrange(x, "b (c f) t h w -> b c (t f) h w", f=f).flip(2),
    lambda x, f: rearrange(x, "b (c f) t h w -> b c (t f) h w", f=f)[:, :, f - 1 :],
    lambda x, f: rearrange(x, "b (c f) t h w -> b c (t f) w h", f=f),
    lambda x, f: rearrange(x, "b (c f) t h w -> b c t h (w f)", f=f),
    lambda x, f: rearrange(x, "b (c f) t h w -> b (t f) c h w", f=f),
    lambda x, f: rearrange(x, "b (c f) t h w -> (b f) c t h w", f=f),
    lambda x, f: rearrange(x, "b (f c) t h w -> b c (f t) h w", f=f),
    lambda x, f: rearrange(x, "b (c f) t h w -> b c (t f) h w", f=2),
)


def stream(chunk, carried, weight, bias):
    seen = torch.cat([carried, chunk], 2)
    kept = seen[:, :, seen.shape[2] - weight.shape[2] + 1 :]
    return F.conv3d(seen, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2)), kept


several(
    "04.stream_conv3d",
    lambda chunk, carried, w, b: (stream(chunk, carried, w, b)[0], torch.cat([carried, chunk], 2)),
    lambda chunk, carried, w, b: (stream(chunk, carried, w, b)[0], torch.cat([carried, chunk], 2)[:, :, :-1]),
    lambda chunk, carried, w, b: stream(chunk, carried, w, b)[::-1],
    lambda chunk, carried, w, b: stream(chunk, carried, w, b)[0],
    lambda chunk, carried, w, b: (stream(chunk, carried, w, b)[0], torch.zeros_like(carried)),
    lambda chunk, carried, w, b: (stream(chunk, carried, w, b)[0], stream(chunk, carried, w, b)[1].flip(2)),
    lambda chunk, carried, w, b: (stream(chunk, carried, w, None)[0], stream(chunk, carried, w, b)[1]),
    lambda chunk, carried, w, b: (stream(chunk, carried, w.flip(2), b)[0], stream(chunk, carried, w, b)[1]),
    lambda chunk, carried, w, b: (stream(chunk, carried.flip(2), w, b)[0], stream(chunk, carried, w, b)[1]),
    lambda chunk, carried, w, b: (F.conv3d(torch.cat([carried, chunk], 2), w, b), stream(chunk, carried, w, b)[1]),
    lambda chunk, carried, w, b: stream(chunk, carried[:, :, -1:], w, b),
)


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def later(x, t):
    return torch.cat([x[:, :, :t], noise(x[:, :, t:].shape, 9)], 2)


def before(t):
    return slice(0, t)


def probe(fn, shape, change=later, watch=before, cuts=None, limit=1e-6, x=None):
    """True when no watched frame changes by more than `limit`, wherever the film is cut."""
    x = noise(shape) if x is None else x
    cuts = [t for t in (cuts or range(1, shape[2])) if t < shape[2]]
    return all(bool(((fn(change(x, t)) - fn(x))[:, :, watch(t)].abs() <= limit).all()) for t in cuts)


several(
    "04.is_causal",
    lambda fn, shape: probe(fn, shape, limit=1e-3),
    lambda fn, shape: probe(fn, shape, cuts=[1, 2]),
    lambda fn, shape: probe(fn, shape, cuts=[2, 4]),
    lambda fn, shape: probe(fn, shape, cuts=[1, shape[2] // 2, shape[2] - 1]),
    lambda fn, shape: probe(fn, shape, cuts=list(range(1, shape[2], 2))),
    lambda fn, shape: probe(fn, shape, watch=lambda t: slice(0, t - 1)),
    lambda fn, shape: probe(fn, shape, watch=lambda t: slice(0, 1)),
    lambda fn, shape: probe(fn, shape, change=lambda x, t: torch.cat([x[:, :, :t], x[:, :, t:].flip(2)], 2)),
    lambda fn, shape: probe(lambda x: fn(x)[:1], shape),
    lambda fn, shape: probe(lambda x: fn(x)[:, :1], shape),
    lambda fn, shape: probe(lambda x: fn(x)[..., :1], shape),
    lambda fn, shape: probe(fn, shape, x=torch.zeros(shape)),
    lambda fn, shape: torch.allclose(fn(noise(shape))[:, :, :1], fn(noise(shape)[:, :, :1]), atol=1e-6),
    lambda fn, shape: not probe(fn, shape),
    lambda fn, shape: False,
    lambda fn, shape: int(probe(fn, shape)),
    lambda fn, shape: torch.tensor([probe(fn, shape)]),
    lambda fn, shape: None if shape[2] > 1 else True,
    lambda fn, shape: probe(fn, shape, change=lambda x, t: torch.cat([x[:, :, :t], torch.randn_like(x[:, :, t:])], 2)),
)

RIGHT += [
    ("04.is_causal", answer)
    for answer in (
        probe,
        lambda fn, shape: probe(fn, shape, limit=1e-4),
        lambda fn, shape: probe(fn, shape, limit=0),
        lambda fn, shape: probe(fn, shape, x=torch.ones(shape)),
        lambda fn, shape: probe(fn, shape, x=noise(shape).double()),
        lambda fn, shape: probe(fn, shape, change=lambda x, t: torch.cat([x[:, :, :t], 1 + x[:, :, t:]], 2)),
        lambda fn, shape: probe(fn, shape, change=lambda x, t: torch.cat([x[:, :, :t], -x[:, :, t:]], 2)),
        lambda fn, shape: probe(fn, shape, change=lambda x, t: torch.cat([x[:, :, :t], 1000 * x[:, :, t:]], 2)),
        lambda fn, shape: torch.tensor(probe(fn, shape)),
        lambda fn, shape: all(
            torch.allclose(fn(noise(shape))[:, :, :t], fn(noise(shape)[:, :, :t]), atol=1e-6)
            for t in range(1, shape[2])
        ),
    )
]
