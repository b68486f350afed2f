"""Wrong answers that newcomers really give about the places of tokens and the price of attention."""

import torch
from einops import repeat

from minivdm.course.exercise import Mistake


def _waves(places, half, sine_first=True, woven=False, divisor=None):
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / (divisor or half))
    angles = places[:, None] * frequencies
    pair = [angles.sin(), angles.cos()] if sine_first else [angles.cos(), angles.sin()]
    return torch.stack(pair, 2).flatten(1) if woven else torch.cat(pair, 1)


def _places(count, scale, base_size, start=0):
    places = (start + torch.arange(count, dtype=torch.float64)) / scale
    return places if base_size is None else places * base_size / count


def _embedding(h, w, dim, scale, base_size, row_first=False, columns_outer=False, places=_places, **waves):
    by_column = _waves(places(w, scale, base_size), dim // 2, **waves)
    by_row = _waves(places(h, scale, base_size), dim // 2, **waves)
    pattern = ("w d -> (w h) d", "h d -> (w h) d") if columns_outer else ("w d -> (h w) d", "h d -> (h w) d")
    halves = [repeat(by_column, pattern[0], h=h), repeat(by_row, pattern[1], w=w)]
    return torch.cat(halves[::-1] if row_first else halves, 1)[None]


def _sides_exchanged(h, w, dim, scale, base_size):
    if base_size is None:
        return _embedding(h, w, dim, scale, None)
    columns, rows = torch.arange(w).double() * base_size / h, torch.arange(h).double() * base_size / w
    halves = _waves(columns / scale, dim // 2).repeat(h, 1), _waves(rows / scale, dim // 2).repeat_interleave(w, 0)
    return torch.cat(halves, 1)[None]


POSITIONS = (
    Mistake(
        "row first",
        lambda *args: _embedding(*args, row_first=True),
        "The halves have changed places: the row comes first in yours.",
        "Here the first half codes the column, the last the row; weights trained with one order fail with the other.",
        "along the first row of tokens, which half should change?",
    ),
    Mistake(
        "cosine first",
        lambda *args: _embedding(*args, sine_first=False),
        "Sine and cosine have changed places.",
        "Here each half is [sin, cos]; that of the timestep, in the same network, is [cos, sin].",
        "what are the numbers at column 0, row 0?",
    ),
    Mistake(
        "times the scale",
        lambda h, w, dim, scale, base_size: _embedding(h, w, dim, 1 / scale, base_size),
        "You multiply places by `scale`.",
        "A larger picture has more tokens of the same scene. Divided by the scale they keep to the same range.",
        "at twice the side (scale 2), which place should the token at column 10 have?",
    ),
    Mistake(
        "columns outer",
        lambda *args: _embedding(*args, columns_outer=True),
        "Your tokens run down the columns.",
        "The tokens of a frame are in rows: (h w), the column runs fastest. This goes unseen in square pictures.",
        "which token follows the one at row 0, column 0?",
    ),
    Mistake(
        "sides exchanged in base_size",
        _sides_exchanged,
        "You divide the columns by h and the rows by w.",
        "w columns share the length base_size, so each is base_size/w wide; each row is base_size/h high.",
        "how many columns are there, h or w?",
    ),
    Mistake(
        "base_size ignored",
        lambda h, w, dim, scale, base_size: _embedding(h, w, dim, scale, None),
        "Right where `base_size` is None only.",
        "With it, places run from 0 to base_size/scale whatever h and w are, so a wide film is stretched, not cut.",
        "which argument does your function never use?",
    ),
    Mistake(
        "None not provided for",
        lambda h, w, dim, scale, base_size: _embedding(h, w, dim, scale, 1.0 * base_size),
        "Your code stumbles where `base_size` is None.",
        "None means: count the tokens as they are. The factor is left out.",
        "which factor leaves a product as it is?",
    ),
    Mistake(
        "exponent over dim",
        lambda h, w, dim, scale, base_size: _embedding(h, w, dim, scale, base_size, divisor=dim),
        "Your frequencies fall half as fast as they should: you divide by dim.",
        "Each half is an embedding of its own, of width dim/2: 10000^(−2i/(dim/2)).",
        "how many features does the column have?",
    ),
    Mistake(
        "woven",
        lambda *args: _embedding(*args, woven=True),
        "The numbers are right, but sines and cosines alternate.",
        "In each half all sines come first, then all cosines.",
        "does a learnt matrix behind it care about the order, and do loaded weights?",
    ),
    Mistake(
        "counted from 1",
        lambda *args: _embedding(*args, places=lambda *place: _places(*place, start=1)),
        "Your first row and column are 1.",
        "They are indices, so the first is 0, at every scale.",
        "what is sin at the first place, if it is 0?",
    ),
    Mistake(
        "no batch axis",
        lambda *args: _embedding(*args)[0],
        "You return (h·w, dim).",
        "An axis of size 1 in front makes it fit a batch of tokens.",
        "which index adds an axis?",
    ),
)


def _both(frames, spatial, width, factorised, factorised_pairs, factor=2):
    pairs = factorised_pairs(frames, spatial) if factorised else (frames * spatial) ** 2
    return factor * pairs * width


COST = (
    Mistake(
        "one frame and one place only",
        lambda *args: _both(*args, lambda t, s: t**2 + s**2),
        "Factorised, you count attention in one frame and at one place: T² + S².",
        "There are T frames with S² pairs each, and S places with T² pairs each.",
        "how often is attention in space computed for a film of T frames?",
    ),
    Mistake(
        "attention in time forgotten",
        lambda *args: _both(*args, lambda t, s: t * s**2),
        "Factorised, you count attention in space only.",
        "Each place also looks along its T frames: S · T² pairs more.",
        "which of the two is dearer for a small, very long film?",
    ),
    Mistake(
        "one product",
        lambda *args: _both(*args, lambda t, s: t * s * (t + s), factor=1),
        "Your number is half of what it should be: you count one matrix product.",
        "q·kᵀ gives the weights, weights·v gives the answer; both have as many pairs and the width D.",
        "what is done with the weights after the softmax?",
    ),
    Mistake(
        "additions counted apart",
        lambda *args: _both(*args, lambda t, s: t * s * (t + s), factor=4),
        "Your number is twice what it should be.",
        "A multiplication and the addition of its result count as one here, a multiply-add; as FLOPs they are two.",
        "how many multiplications does a dot product of width D need?",
    ),
    Mistake(
        "linear in the tokens",
        lambda frames, spatial, width, factorised: 2 * (2 if factorised else 1) * frames * spatial * width,
        "Your cost grows like the number of tokens.",
        "Each token is compared with each it can see; that is why attention costs the square.",
        "how many pairs are there among 100 tokens?",
    ),
    Mistake(
        "width forgotten",
        lambda *args: _both(*args[:2], 1, args[3], lambda t, s: t * s * (t + s)),
        "You count the pairs, not the work for each.",
        "Each pair is a dot product over D features.",
        "which argument does your function never use?",
    ),
    Mistake(
        "width squared",
        lambda frames, spatial, width, factorised: _both(
            frames, spatial, width**2, factorised, lambda t, s: t * s * (t + s)
        ),
        "The width enters squared.",
        "D² belongs to the linear layers before and after; in attention itself each pair costs D.",
        "how long is the dot product of one query and one key?",
    ),
    Mistake(
        "factorised exchanged",
        lambda frames, spatial, width, factorised: _both(
            frames, spatial, width, not factorised, lambda t, s: t * s * (t + s)
        ),
        "You give the full cost where `factorised` is True, and the other way round.",
        "Factorised is the cheap one: T + S tokens seen instead of T·S.",
        "is your number smaller for factorised attention?",
    ),
)
