"""Wrong answers that newcomers really give about attention over time, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake


def _attention(q, k, v, bias, scale=None, dim=-1):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax(q @ k.transpose(-2, -1) * scale + bias, dim) @ v


TEMPORAL_ATTENTION = (
    Mistake(
        "scale forgotten",
        lambda q, k, v, bias: _attention(q, k, v, bias, scale=1.0),
        "Your scores are too large by √d: the scale is missing.",
        "A sum of d products grows like √d. Unscaled, the softmax picks one frame and stops learning.",
        "what is the variance of a dot product of two standard normal vectors of width d?",
    ),
    Mistake(
        "1/d for 1/√d",
        lambda q, k, v, bias: _attention(q, k, v, bias, scale=1 / q.shape[-1]),
        "You divide by d instead of √d, so all frames look nearly alike.",
        "Variance d means a typical size of √d.",
        "which divisor gives scores of variance 1?",
    ),
    Mistake(
        "bias scaled too",
        lambda q, k, v, bias: _attention(q, k, v, bias * q.shape[-1] ** -0.5),
        "You added the bias before scaling, so it was scaled as well.",
        "The scale tames the dot product. The bias is learnt at the size it should have: scale first, then add.",
        "what would a learnt bias of 8 count for in your version with d = 64?",
    ),
    Mistake(
        "bias forgotten",
        lambda q, k, v, bias: _attention(q, k, v, 0 * bias),
        "Your attention ignores `bias`.",
        "Without it the frames are a bag without order: shuffle them and the output shuffles along.",
        "how would your function know which frame comes first?",
    ),
    Mistake(
        "softmax over queries",
        lambda q, k, v, bias: _attention(q, k, v, bias, dim=-2),
        "Your weights add up to 1 over the queries.",
        "Each query shares its attention among the keys: the sum over the last axis is 1.",
        "in scores (…, query, key), which axis is being averaged away by `@ v`?",
    ),
    Mistake(
        "bias transposed",
        lambda q, k, v, bias: _attention(q, k, v, bias.transpose(-2, -1)),
        "The bias stands on its side: [key, query] instead of [query, key].",
        "Past and future have changed places.",
        "would you have noticed if the bias were symmetric?",
    ),
    Mistake(
        "keys not transposed",
        lambda q, k, v, bias: _attention(k, q, v, bias),
        "Query and key have changed places in your scores.",
        "Row i of the scores belongs to the frame that asks, column j to the frame that is asked.",
        "in `einsum`, which letter of the result comes from q?",
    ),
    Mistake(
        "no softmax",
        lambda q, k, v, bias: (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias) @ v,
        "You multiplied the raw scores with v.",
        "Softmax turns scores into weights: none negative, sum 1.",
        "what would a weight of −2 for a frame mean?",
    ),
)


def _bucket(rel, half, max_distance, capped=True, future=lambda rel: rel > 0):
    exact = half // 2
    n = rel.abs()
    far = exact + (torch.log(n.clamp(min=1).double() / exact) / math.log(max_distance / exact) * (half - exact)).long()
    return torch.where(n < exact, n, far.clamp(max=half - 1) if capped else far) + half * future(rel)


def _from_now_on(rel):
    return rel >= 0


def _one_sided(rel, num_buckets=32, max_distance=32):
    return _bucket(rel.clamp(max=0), num_buckets, max_distance)


def _linear(rel, num_buckets=32, max_distance=32):
    return rel.abs().clamp(max=num_buckets // 2 - 1) + num_buckets // 2 * (rel > 0)


RELATIVE_POSITION_BUCKET = (
    Mistake(
        "past and future swapped",
        lambda rel, num_buckets=32, max_distance=32: _bucket(-rel, num_buckets // 2, max_distance),
        "The halves have changed places: your upper half holds the past.",
        "rel = key position − query position, so rel > 0 is a key in the future, and the future has the upper half.",
        "query 3 looks at key 5: what is rel?",
    ),
    Mistake(
        "0 counted as future",
        lambda rel, num_buckets=32, max_distance=32: _bucket(rel, num_buckets // 2, max_distance, future=_from_now_on),
        "Everything is right except rel = 0, which you put into the upper half.",
        "The frame itself is not in its own future: bucket 0.",
        "is your comparison > or ≥?",
    ),
    Mistake(
        "one side only",
        _one_sided,
        "You give all buckets to the past, and the whole future shares bucket 0.",
        "That is right for a language model that may not look ahead. Our frames see both ways, half of the buckets "
        "each.",
        "should a frame treat “one later” and “ten later” alike?",
    ),
    Mistake(
        "direction lost",
        lambda rel, num_buckets=32, max_distance=32: _bucket(-rel.abs(), num_buckets // 2, max_distance),
        "Past and future share their buckets in your version.",
        "A rocket rises before it bursts; with the absolute value alone a film and its reversal look the same.",
        "which half of the buckets does your function never return?",
    ),
    Mistake(
        "no logarithm",
        _linear,
        "Near offsets are right; far ones have a bucket each until you run out.",
        "From `exact` on, the buckets grow wider like the logarithm, so that a few of them reach `max_distance`.",
        "what has `max_distance` to say in your function?",
    ),
    Mistake(
        "not capped",
        lambda rel, num_buckets=32, max_distance=32: _bucket(rel, num_buckets // 2, max_distance, capped=False),
        "Offsets beyond `max_distance` run past the end of their half, into buckets of others.",
        "All that is farther than `max_distance` shares the last bucket, half − 1.",
        "what happens when a bucket number is used as an index into a table of `num_buckets` rows?",
    ),
    Mistake(
        "max_distance hard-coded",
        lambda rel, num_buckets=32, max_distance=32: _bucket(rel, num_buckets // 2, 32),
        "Right up to a distance of 32, whatever `max_distance` says.",
        "32 is only the default; the last bucket begins where the caller wants it.",
        "which of the arguments does your function never use?",
    ),
)


def _interleave(a, b):
    return torch.stack([a, b], -1).flatten(-2)


def _halves(x, freqs):
    a, b = x.chunk(2, -1)
    return torch.cat([a * freqs.cos() - b * freqs.sin(), a * freqs.sin() + b * freqs.cos()], -1)


def _angles_by_halves(x, freqs):
    angles = torch.cat([freqs, freqs], -1)
    turned = _interleave(-x[..., 1::2], x[..., 0::2])
    return x * angles.cos() + turned * angles.sin()


def _no_minus(x, freqs):
    a, b = x[..., 0::2], x[..., 1::2]
    return _interleave(a * freqs.cos() + b * freqs.sin(), a * freqs.sin() + b * freqs.cos())


def _pairs_not_woven(x, freqs):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.cat([a * freqs.cos() - b * freqs.sin(), a * freqs.sin() + b * freqs.cos()], -1)


def _turn(x, freqs):
    a, b = x[..., 0::2], x[..., 1::2]
    return _interleave(a * freqs.cos() - b * freqs.sin(), a * freqs.sin() + b * freqs.cos())


ROTATE = (
    Mistake(
        "halves as pairs",
        _halves,
        "You paired channel i with channel i + d/2.",
        "Both pairings are in use (and weights trained with one fail with the other); here neighbours (2i, 2i + 1) "
        "are a pair.",
        "which channel turns together with channel 0?",
    ),
    Mistake(
        "turned the other way",
        lambda x, freqs: _turn(x, -freqs),
        "You turn clockwise: the signs of the two sines are exchanged.",
        "A positive angle turns the first axis towards the second: (1, 0) becomes (cos θ, sin θ).",
        "where does your function send (1, 0) for θ = π/2?",
    ),
    Mistake(
        "minus forgotten",
        _no_minus,
        "Both sine terms are added: this is not a rotation.",
        "A rotation keeps lengths, and for that one of the two needs a minus: a·cos θ − b·sin θ.",
        "is the length of a pair the same before and after your function?",
    ),
    Mistake(
        "angles laid out by halves",
        _angles_by_halves,
        "You repeat the angles as [θ0, θ1, …, θ0, θ1, …] while the pairs are neighbours.",
        "Both channels of a pair need the same angle: [θ0, θ0, θ1, θ1, …] (`repeat_interleave`).",
        "which angle do your channels 0 and 1 get?",
    ),
    Mistake(
        "pairs not woven back",
        _pairs_not_woven,
        "All numbers are right, but first all even channels stand there and then all odd ones.",
        "Pair i must go back to where it came from: channels 2i and 2i + 1.",
        "what does stacking on a new last axis and flattening do to the order?",
    ),
    Mistake(
        "cosine only",
        lambda x, freqs: x * freqs.cos().repeat_interleave(2, -1),
        "You multiply by the cosine and leave out the sine.",
        "That shrinks the pair instead of turning it: the other channel's share is missing.",
        "what becomes of (1, 0) at θ = π/2 in your version?",
    ),
)

FOCUS_PRESENT_MASK = (
    Mistake(
        "the other clips focused",
        lambda focus, n: torch.eye(n, dtype=torch.bool) | focus[:, None, None],
        "The roles are exchanged: your focused clips see everything and the others only themselves.",
        "Focused on the present means: each frame for itself.",
        "which clips are the still pictures, those with focus True or False?",
    ),
    Mistake(
        "True means blocked",
        lambda focus, n: ~torch.eye(n, dtype=torch.bool) & focus[:, None, None],
        "Your mask is the exact opposite: True where a frame may not attend.",
        "Libraries differ here; in this course True = may attend.",
        "in a focused clip, should the diagonal be True or False?",
    ),
    Mistake(
        "one decision for the whole batch",
        lambda focus, n: (torch.eye(n, dtype=torch.bool) | ~focus.any()).expand(len(focus), n, n),
        "One focused clip makes your whole batch focused.",
        "Each clip decides for itself; that is how pictures and films train together in one batch.",
        "what shape lets a (B,) decision meet a (T, T) mask?",
    ),
    Mistake(
        "identity for all",
        lambda focus, n: torch.eye(n, dtype=torch.bool).expand(len(focus), n, n),
        "You return the identity for every clip.",
        "Clips without focus are films: all their frames may see each other.",
        "could a network with this mask ever learn motion?",
    ),
    Mistake(
        "causal",
        lambda focus, n: torch.ones(n, n, dtype=torch.bool).tril() | ~focus[:, None, None],
        "In your focused clips a frame sees the past as well.",
        "That is a causal mask. Focused frames see nothing but themselves, as if each were a picture of its own.",
        "which of your entries off the diagonal should be True?",
    ),
    Mistake(
        "zeros and ones",
        lambda focus, n: (torch.eye(n, dtype=torch.bool) | ~focus[:, None, None]).float(),
        "The pattern is right, but these are floats.",
        "A mask is a question of yes or no. As a float it would be added to the scores by some attention functions.",
        "what would adding 1 to allowed scores and 0 to forbidden ones forbid?",
    ),
)
