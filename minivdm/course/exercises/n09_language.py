"""Exercises of notebook 09 about language: what is a word, how far apart are two, how is a gap filled, whose is red?"""

import copy
import math

import torch
from einops import rearrange
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n09_language_mistakes as mistakes
from minivdm.course.exercises.n09_binding_mistakes import BINDING_ERRORS
from minivdm.course.inputs import randn

Shells = dict[str, tuple[str, str]]  # place -> (colour, shape)


def text_mask(lengths: Tensor, max_length: int) -> Tensor:
    return torch.arange(max_length) < lengths[:, None]


def relative_position_bias(query_length: int, key_length: int, table: Tensor, max_distance: int) -> Tensor:
    offset = torch.arange(key_length) - torch.arange(query_length)[:, None]
    half = len(table) // 2  # one half of the buckets for keys up to the query, one for those behind it
    exact = half // 2
    distance = offset.abs()
    octave = torch.log(distance.clamp(min=1).double() / exact) / math.log(max_distance / exact)
    far = (exact + (octave * (half - exact)).long()).clamp(max=half - 1)
    bucket = torch.where(distance < exact, distance, far) + half * (offset > 0)
    return rearrange(table[bucket], "query key heads -> heads query key")


def span_corruption(
    tokens: Tensor, starts: tuple[int, ...], lengths: tuple[int, ...], sentinels: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    inputs, targets, end = [], [], 0
    for start, length, sentinel in zip(starts, lengths, sentinels, strict=False):
        inputs += [tokens[end:start], torch.tensor([sentinel])]
        end = start + length
        targets += [torch.tensor([sentinel]), tokens[start:end]]
    return torch.cat([*inputs, tokens[end:]]), torch.cat([*targets, torch.tensor(sentinels[len(starts) :])])


def binding_errors(asked: Shells, seen: Shells) -> int:
    errors = 0
    for place, shell in asked.items():
        others = [other for there, other in asked.items() if there != place]
        found = seen.get(place, shell)  # a shell that is missing is not one that is mixed up
        errors += any(found[i] != shell[i] and found[i] in [other[i] for other in others] for i in (0, 1))
    return errors


def _mask_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"lengths": torch.tensor([3, 9, 1, 7]), "max_length": 9}, "four prompts, one of them full"),
        Case({"lengths": torch.tensor([5, 12, 2]), "max_length": 8}, "a prompt that is too long"),
        Case({"lengths": torch.tensor([4]), "max_length": 6}, "a single prompt"),
    ]


def _bias_cases(g: torch.Generator) -> list[Case]:
    """Lengths and distances at which no bucket begins on a whole number: there the last bit would decide."""

    def case(queries: int, keys: int, table: Tensor, max_distance: int, note: str) -> Case:
        args = {"query_length": queries, "key_length": keys, "table": table, "max_distance": max_distance}
        return Case(args, note)

    return [
        case(14, 14, randn(g, 32, 3), 128, "14 tokens, 32 buckets up to 128"),
        case(13, 29, randn(g, 16, 2, dtype=torch.float64), 20, "13 queries, 29 keys, 16 buckets up to 20, float64"),
        case(21, 6, randn(g, 8, 5), 10, "21 queries and 6 keys, 8 buckets up to 10"),
    ]


def _span_cases(g: torch.Generator) -> list[Case]:
    def case(
        length: int, starts: tuple[int, ...], lengths: tuple[int, ...], sentinels: tuple[int, ...], note: str
    ) -> Case:
        tokens = 3 + torch.randperm(90, generator=g)[:length]
        return Case({"tokens": tokens, "starts": starts, "lengths": lengths, "sentinels": sentinels}, note)

    return [
        case(12, (2, 7), (1, 3), (127, 126, 125), "two spans"),
        case(9, (4,), (2,), (99, 98), "one span"),
        case(17, (0, 5, 14), (2, 4, 3), (127, 126, 125, 124), "three spans, the first and the last at the ends"),
        case(11, (3, 5), (2, 1), (101, 103, 107), "two spans that touch"),
    ]


def _binding_cases(g: torch.Generator) -> list[Case]:
    def case(note: str, asked: Shells, seen: Shells) -> Case:
        return Case({"asked": asked, "seen": seen}, note, copy.deepcopy)

    two = {"high left": ("red", "peony"), "low right": ("blue", "ring")}
    three = {"high left": ("red", "peony"), "high right": ("red", "ring"), "low left": ("gold", "willow")}
    return [
        case("all as asked", two, dict(two)),
        case(
            "two shells that swapped their colours", two, {"high left": ("blue", "peony"), "low right": ("red", "ring")}
        ),
        case(
            "one shell that is a copy of the other", two, {"high left": ("blue", "ring"), "low right": ("blue", "ring")}
        ),
        case("a colour that nobody asked for", two, {"high left": ("green", "peony"), "low right": ("blue", "ring")}),
        case(
            "a borrowed shape in a strange colour", two, {"high left": ("green", "ring"), "low right": ("blue", "ring")}
        ),
        case(
            "two red ones asked for, one shell missing, one too many",
            three,
            {"high left": ("red", "willow"), "low left": ("gold", "willow"), "low right": ("red", "ring")},
        ),
        case(
            "three shells, of which two hold what belongs to others",
            three,
            {"high left": ("gold", "ring"), "high right": ("red", "ring"), "low left": ("red", "spiral")},
        ),
        case(
            "three shells, of which two took the colour of the third",
            {"high left": ("red", "peony"), "high right": ("blue", "ring"), "low left": ("gold", "willow")},
            {"high left": ("blue", "peony"), "high right": ("blue", "ring"), "low left": ("blue", "willow")},
        ),
        case("a lone shell in the wrong colour", {"low left": ("gold", "palm")}, {"low left": ("blue", "palm")}),
    ]


LANGUAGE = (
    Exercise(
        "09.text_mask",
        text_mask,
        _mask_cases,
        mistakes.TEXT_MASK,
        (
            "All prompts of a batch lie in one table, as wide as the longest may be. Number the columns from 0: which "
            "of them hold a word of this prompt?",
            "mask[b, i] = (i < lengths[b]), for i = 0 … max_length − 1",
            "`torch.arange(max_length) < lengths[:, None]`",
        ),
    ),
    Exercise(
        "09.relative_position_bias",
        relative_position_bias,
        _bias_cases,
        mistakes.RELATIVE_POSITION_BIAS,
        (
            "How far is this key from this query, and on which side? Lesson 07 turned that into a bucket. Here every "
            "bucket has a row in a table, with one number for each head.",
            "bias[h, i, j] = table[bucket(j − i), h], with as many buckets as the table has rows",
            "`bucket = relative_position_bucket(offset, len(table), max_distance)` of lesson 07 with "
            "`offset = torch.arange(key_length) - torch.arange(query_length)[:, None]`, then "
            "`table[bucket].permute(2, 0, 1)`",
        ),
    ),
    Exercise(
        "09.span_corruption",
        span_corruption,
        _span_cases,
        mistakes.SPAN_CORRUPTION,
        (
            "Cut pieces out of a sentence and leave a numbered gap for each. The input is what is left, with its gaps; "
            "the target lists what was cut, piece by piece, each behind the number of its gap.",
            "inputs = tokens with span k replaced by sentinel k; targets = s₀, span 0, s₁, span 1, …, and one sentinel "
            "more, which says that this was all",
            "for every span: `inputs += [tokens[end:start], sentinel]`, `targets += [sentinel, tokens[start:start + "
            "length]]`, `end = start + length`; after the loop `tokens[end:]` and the last sentinel",
        ),
        outputs=("inputs", "targets"),
    ),
    Exercise(
        "09.binding_errors",
        binding_errors,
        _binding_cases,
        BINDING_ERRORS,
        (
            "A film can hold all the right colours and shapes and still be wrong: on the wrong shells. Go from place "
            "to place: is something wrong here that would be right elsewhere?",
            "the number of places, asked for and seen, where the colour (or the shape) is not the one asked for here "
            "but is that of another shell of the prompt; a shell counts once",
            "`any(found[i] != shell[i] and found[i] in [other[i] for other in others] for i in range(2))` for each "
            "`place, shell` of `asked.items()` that is in `seen`",
        ),
    ),
)
