"""Lesson 09's language as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minivdm.course.exercise import get
from minivdm.course.exercises.n09_language import relative_position_bias, span_corruption

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


several(
    "09.text_mask",
    lambda lengths, n: torch.arange(1, n + 1) < lengths[:, None],
    lambda lengths, n: torch.arange(n) < lengths.clamp(max=n - 1)[:, None],
    lambda lengths, n: torch.arange(n) == lengths[:, None] - 1,
    lambda lengths, n: torch.arange(n) < lengths[0],
    lambda lengths, n: torch.arange(n) < lengths.float().mean(),
    lambda lengths, n: (torch.arange(n) < lengths[:, None]).long(),
    lambda lengths, n: (torch.arange(n) < lengths[:, None]).tolist(),
    lambda lengths, n: torch.arange(n) < (lengths % n)[:, None],
    lambda lengths, n: torch.stack([torch.arange(n) < length for length in lengths.sort().values]),
    lambda lengths, n: (torch.arange(n) < lengths[:, None])[:, None, None],
    lambda lengths, n: torch.ones(len(lengths), n, dtype=torch.bool),
    lambda lengths, n: torch.rand(len(lengths), n) < 0.5,
    lambda lengths, n: nn.utils.rnn.pad_sequence([torch.ones(m, dtype=torch.bool) for m in lengths], True),
)

several(
    "09.relative_position_bias",
    lambda q, k, table, most: relative_position_bias(q, k, table, most)[None],
    lambda q, k, table, most: relative_position_bias(q, k, table, most + 1),
    lambda q, k, table, most: relative_position_bias(q, k, table, 128),
    lambda q, k, table, most: relative_position_bias(q, k, table, most) * table.shape[1] ** -0.5,
    lambda q, k, table, most: relative_position_bias(q, k, table, most).softmax(-1),
    lambda q, k, table, most: relative_position_bias(q, k, table, most).flip(0),
    lambda q, k, table, most: relative_position_bias(q, k, table.flip(0), most),
    lambda q, k, table, most: relative_position_bias(q, k, table, most).mean(0, keepdim=True),
    lambda q, k, table, most: relative_position_bias(q, q, table, most),
    lambda q, k, table, most: relative_position_bias(q, k, table.half(), most),
    lambda q, k, table, most: table[(torch.arange(k) - torch.arange(q)[:, None]).clamp(-8, 7) + 8].permute(2, 0, 1),
    lambda q, k, table, most: table[(torch.arange(k) - torch.arange(q)[:, None]).abs() % len(table)].permute(2, 0, 1),
)


@wrong("09.relative_position_bias")
def counted_from_the_end(query_length, key_length, table, max_distance):
    """The last query sits beside the last key, as when a decoder has read the others before."""
    longer = relative_position_bias(key_length, key_length, table, max_distance)
    return longer[:, -query_length:]


@wrong("09.relative_position_bias")
def rounds_up(query_length, key_length, table, max_distance):
    offset = torch.arange(key_length) - torch.arange(query_length)[:, None]
    half, n = len(table) // 2, offset.abs()
    exact = half // 2
    far = exact + (torch.log(n.clamp(min=1) / exact) / math.log(max_distance / exact) * (half - exact)).round().long()
    return table[torch.where(n < exact, n, far.clamp(max=half - 1)) + half * (offset > 0)].permute(2, 0, 1)


several(
    "09.span_corruption",
    lambda *args: span_corruption(*args)[::-1],
    lambda *args: span_corruption(*args)[0],
    lambda *args: tuple(part.tolist() for part in span_corruption(*args)),
    lambda *args: tuple(part[None] for part in span_corruption(*args)),
    lambda *args: tuple(part.float() for part in span_corruption(*args)),
    lambda *args: (F.pad(span_corruption(*args)[0], (0, 1), value=args[3][-1]), span_corruption(*args)[1]),
    lambda *args: (span_corruption(*args)[0][:-1], span_corruption(*args)[1]),
    lambda *args: (span_corruption(*args)[0], F.pad(span_corruption(*args)[1], (0, 1), value=1)),
    lambda tokens, starts, lengths, sentinels: span_corruption(tokens, starts, lengths, sentinels[::-1]),
    lambda tokens, starts, lengths, sentinels: span_corruption(tokens, starts, (1,) * len(starts), sentinels),
    lambda tokens, starts, lengths, sentinels: span_corruption(tokens, starts[:1], lengths[:1], sentinels[:2]),
    lambda tokens, starts, lengths, sentinels: span_corruption(
        tokens, tuple(start + 1 for start in starts), lengths, sentinels
    ),
    lambda tokens, starts, lengths, sentinels: span_corruption(
        tokens, starts, tuple(end - start for start, end in zip(starts, lengths, strict=True)), sentinels
    ),
    lambda tokens, starts, lengths, sentinels: span_corruption(
        tokens, starts, lengths, tuple(range(127, 127 - len(sentinels), -1))
    ),
)


@wrong("09.span_corruption")
def removes_by_value(tokens, starts, lengths, sentinels):
    inputs, targets = span_corruption(tokens, starts, lengths, sentinels)
    return torch.tensor([token for token in tokens.tolist() if token not in targets.tolist()]), targets


@wrong("09.span_corruption")
def keeps_the_length(tokens, starts, lengths, sentinels):
    inputs, targets = span_corruption(tokens, starts, lengths, sentinels)
    return F.pad(inputs, (0, len(tokens) - len(inputs))), targets


@wrong("09.span_corruption")
def joins_spans_that_touch(tokens, starts, lengths, sentinels):
    spans = []
    for start, length in zip(starts, lengths, strict=True):
        if spans and sum(spans[-1]) == start:
            spans[-1] = (spans[-1][0], spans[-1][1] + length)
        else:
            spans.append((start, length))
    return span_corruption(tokens, *zip(*spans, strict=True), sentinels[: len(spans) + 1])


def others(asked, place):
    return [shell for there, shell in asked.items() if there != place]


several(
    "09.binding_errors",
    lambda asked, seen: 0,
    lambda asked, seen: float(get("09.binding_errors").reference(asked, seen)),
    lambda asked, seen: get("09.binding_errors").reference(asked, seen) > 0,
    lambda asked, seen: get("09.binding_errors").reference(seen, asked),
    lambda asked, seen: get("09.binding_errors").reference(asked, seen) // 2,
    lambda asked, seen: get("09.binding_errors").reference(asked, seen) / len(asked),
    lambda asked, seen: [place for place in asked if seen.get(place) in others(asked, place)],
    lambda asked, seen: sum(asked.get(place) != shell for place, shell in seen.items()),
    lambda asked, seen: sum(sorted(asked.values()) == sorted(seen.values()) and asked != seen for _ in asked),
    lambda asked, seen: sum(a != b for a, b in zip(asked.values(), seen.values(), strict=False)),
    lambda asked, seen: sum(
        all(found != wanted for found, wanted in zip(seen.get(place, shell), shell, strict=True))
        for place, shell in asked.items()
    ),
    lambda asked, seen: sum(
        any(word in sum(others(asked, place), ()) for word in shell) for place, shell in seen.items()
    ),
)


@wrong("09.binding_errors")
def only_the_next_shell(asked, seen):
    """Looks at one other shell, where there may be two."""
    places = list(asked)
    errors = 0
    for number, place in enumerate(places):
        other, found = asked[places[number - 1]], seen.get(place, asked[place])
        errors += any(found[i] != asked[place][i] and found[i] == other[i] for i in range(2))
    return errors


@wrong("09.binding_errors")
def takes_what_was_seen_for_the_prompt(asked, seen):
    return sum(
        any(found != wanted and found in theirs for found, wanted, theirs in zip(
            seen[place], shell, zip(*others(seen, place), strict=True), strict=False))
        for place, shell in asked.items() if place in seen
    )  # fmt: skip


@right("09.text_mask")
def from_ones(lengths, max_length):
    rows = [F.pad(torch.ones(min(n, max_length)), (0, max(max_length - n, 0))) for n in lengths.tolist()]
    return torch.stack(rows) == 1
