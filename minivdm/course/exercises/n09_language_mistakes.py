"""Wrong answers that newcomers really give about words, distances and gaps, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake


def _columns(max_length):
    return torch.arange(max_length)


TEXT_MASK = (
    Mistake(
        "one token too many",
        lambda lengths, max_length: _columns(max_length) <= lengths[:, None],
        "Each row of your mask has one True too many: a pad counts as a word.",
        "Columns are numbered from 0, so a prompt of 3 tokens fills columns 0, 1 and 2.",
        "is column 3 a word of a prompt of length 3?",
    ),
    Mistake(
        "one token too few",
        lambda lengths, max_length: _columns(max_length) < lengths[:, None] - 1,
        "Each row of your mask has one True too few: the last word is never heard.",
        "A length counts tokens, from 1; columns are numbered from 0. `i < length` needs no correction.",
        "how many True does your row have for a prompt of one token?",
    ),
    Mistake(
        "True means padding",
        lambda lengths, max_length: _columns(max_length) >= lengths[:, None],
        "Your mask is the exact opposite: True where the padding is.",
        "Libraries differ here; in this course True = a real token, one that may be heard.",
        "which tokens should the film obey?",
    ),
    Mistake(
        "padding in front",
        lambda lengths, max_length: _columns(max_length) >= max_length - lengths[:, None],
        "The rows have the right number of True, at the wrong end.",
        "This tokenizer writes the words first and pads behind them.",
        "at which end of the row does your prompt begin?",
    ),
    Mistake(
        "a row per position",
        lambda lengths, max_length: _columns(max_length)[:, None] < lengths,
        "Your mask lies on its side: (max_length, B) instead of (B, max_length).",
        "One row per prompt: `lengths` needs a new last axis, the positions stay a row.",
        "in `a[:, None] < b`, which of the two runs along the columns?",
    ),
    Mistake(
        "as wide as the longest prompt",
        lambda lengths, max_length: _columns(int(lengths.max())) < lengths[:, None],
        "Your mask is as wide as the longest prompt of this batch.",
        "The embeddings are always `max_length` wide, and so is their mask; a prompt that was too long was cut there.",
        "what would the mask's width be beside 300 embeddings and a prompt of 12 tokens?",
    ),
    Mistake(
        "zeros and ones",
        lambda lengths, max_length: (_columns(max_length) < lengths[:, None]).float(),
        "The pattern is right, but these are floats.",
        "A mask is a question of yes or no. As a float it would be added to the scores by some attention functions.",
        "what would adding 1 to the words and 0 to the padding forbid?",
    ),
    Mistake(
        "zeros and minus infinities",
        lambda lengths, max_length: torch.zeros(len(lengths), max_length).masked_fill(
            _columns(max_length) >= lengths[:, None], -math.inf
        ),
        "You made what is added to scores: 0 for words and −∞ for padding.",
        "That is the next step, in attention. The mask itself says True or False, and other parts use it too.",
        "how would you count the words of a prompt with your mask?",
    ),
    Mistake(
        "a long prompt has negative padding",
        lambda lengths, max_length: torch.stack(
            [torch.cat([torch.ones(n), torch.zeros(max_length - n)]).bool() for n in lengths.tolist()]
        ),
        "Your function breaks when a prompt is longer than `max_length`.",
        "Such a prompt was cut: it fills its row, and there is no padding left to make.",
        "what is `max_length - length` for a prompt of 12 tokens in a table of 8?",
    ),
)


def _offsets(queries, keys):
    return torch.arange(keys) - torch.arange(queries)[:, None]


def _buckets(offset, half, max_distance):
    exact, distance = half // 2, offset.abs()
    octave = torch.log(distance.clamp(min=1).double() / exact) / math.log(max_distance / exact)
    return torch.where(distance < exact, distance, (exact + (octave * (half - exact)).long()).clamp(max=half - 1))


def _bias(queries, keys, table, max_distance, turn=1, num_buckets=None):
    offset = turn * _offsets(queries, keys)
    half = (num_buckets or len(table)) // 2
    return table[_buckets(offset, half, max_distance) + half * (offset > 0)].permute(2, 0, 1)


def _of_a_decoder(queries, keys, table, max_distance):
    return table[_buckets(_offsets(queries, keys).clamp(max=0), len(table), max_distance)].permute(2, 0, 1)


def _without_sides(queries, keys, table, max_distance):
    return table[_buckets(_offsets(queries, keys), len(table) // 2, max_distance)].permute(2, 0, 1)


def _no_logarithm(queries, keys, table, max_distance):
    offset, half = _offsets(queries, keys), len(table) // 2
    return table[offset.abs().clamp(max=half - 1) + half * (offset > 0)].permute(2, 0, 1)


RELATIVE_POSITION_BIAS = (
    Mistake(
        "query minus key",
        lambda *args: _bias(*args, turn=-1),
        "Before and after have changed places in your bias.",
        "The offset is key position − query position: positive for a word that comes later.",
        "word 3 looks at word 5: what is the offset?",
    ),
    Mistake(
        "heads last",
        lambda *args: _bias(*args).permute(1, 2, 0),
        "Your bias has its heads last: (query, key, heads).",
        "It is added to scores (B, heads, query, key), so the heads must come first.",
        "which axis of the scores would your last axis meet?",
    ),
    Mistake(
        "key before query",
        lambda *args: _bias(*args).transpose(1, 2),
        "Your bias stands on its side: [key, query] instead of [query, key].",
        "Row i belongs to the word that asks, column j to the word that is asked.",
        "would you have noticed with as many queries as keys?",
    ),
    Mistake(
        "buckets of a decoder",
        _of_a_decoder,
        "You give all buckets to earlier words, and all later words share bucket 0.",
        "That is right where a word may not look ahead. An encoder reads the whole sentence: half of the buckets each.",
        "in “a red ring after a blue palm”, which word must look ahead?",
    ),
    Mistake(
        "direction lost",
        _without_sides,
        "Words before and words behind share their buckets in your bias.",
        "Then “red ring, blue palm” and “palm blue, ring red” have the same bias everywhere.",
        "which half of the table's rows does your function never read?",
    ),
    Mistake(
        "lesson 07's default distance",
        lambda queries, keys, table, max_distance: _bias(queries, keys, table, 32),
        "Near words are right, far ones sit in the wrong bucket: your largest distance is always 32.",
        "32 was lesson 07's default, for the frames of a clip. Sentences are longer; hand `max_distance` on.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "lesson 07's default buckets",
        lambda queries, keys, table, max_distance: _bias(queries, keys, table, max_distance, num_buckets=32),
        "You count on 32 buckets, whatever the table holds, and run past its end.",
        "There are as many buckets as the table has rows: hand `len(table)` on.",
        "which row does a table of 8 have for bucket 16?",
    ),
    Mistake(
        "no logarithm",
        _no_logarithm,
        "Near words are right; far ones have a bucket each until you run out.",
        "From a quarter of the buckets on they grow wider, so that a few of them reach `max_distance`.",
        "what has `max_distance` to say in your function?",
    ),
)


def _corrupt(tokens, starts, lengths, sentinels, *, gap=None, piece=None, last=True, drift=False, stretch=0):
    tokens, sentinels = tokens.tolist(), list(sentinels)
    inputs, targets = list(tokens), []
    for k, (start, length) in reversed(list(enumerate(zip(starts, lengths, strict=True)))):
        length += stretch
        inputs[start : start + length] = gap(sentinels[k], length) if gap else [sentinels[k]]
        span = tokens[start : start + length]
        targets = (piece(sentinels[k], span) if piece else [sentinels[k], *span]) + targets
    return torch.tensor(inputs), torch.tensor(targets + sentinels[len(starts) :] * last)


def _shifting(tokens, starts, lengths, sentinels):
    inputs = tokens.tolist()
    for start, length, sentinel in zip(starts, lengths, sentinels, strict=False):
        inputs[start : start + length] = [sentinel]
    return torch.tensor(inputs), _corrupt(tokens, starts, lengths, sentinels)[1]


SPAN_CORRUPTION = (
    Mistake(
        "a gap without a sentinel",
        lambda *args: _corrupt(*args, gap=lambda sentinel, length: []),
        "Your inputs have no sentinels: the pieces are gone without a trace.",
        "A sentinel stands where a piece was cut out, so that the encoder knows where something is missing.",
        "how would you know which gap a piece of the target belongs to?",
    ),
    Mistake(
        "a sentinel for every token",
        lambda *args: _corrupt(*args, gap=lambda sentinel, length: [sentinel] * length),
        "You replace every cut token by a sentinel of its own.",
        "T5 replaces a whole span by one sentinel; how many words are missing is for the model to find out.",
        "how long are the inputs of 12 tokens with a span of 3 cut out?",
    ),
    Mistake(
        "no final sentinel",
        lambda *args: _corrupt(*args, last=False),
        "The inputs are right; your targets lack the last sentinel.",
        "One sentinel more than there are spans closes the list: it says that no piece follows.",
        "how does the decoder learn to stop after the last piece?",
    ),
    Mistake(
        "the whole sentence as target",
        lambda tokens, *rest: (_corrupt(tokens, *rest)[0], tokens.clone()),
        "Your target is the whole sentence.",
        "T5 asks only for what was cut out: shorter targets, and nothing to be had by copying.",
        "what part of your target can be copied from the input?",
    ),
    Mistake(
        "the same sentinel everywhere",
        lambda tokens, starts, lengths, sentinels: _corrupt(
            tokens, starts, lengths, (sentinels[0],) * len(starts) + sentinels[len(starts) :]
        ),
        "Every span of yours has the first sentinel.",
        "The sentinels are numbered so that gap and piece can be matched: span k has sentinel k.",
        "which piece goes into which gap when all gaps look alike?",
    ),
    Mistake(
        "sentinels behind their pieces",
        lambda *args: _corrupt(*args, piece=lambda sentinel, span: [*span, sentinel]),
        "In your targets each sentinel comes after its piece.",
        "The decoder writes from left to right: first which gap, then what was in it.",
        "what should the decoder write first, the question or the answer?",
    ),
    Mistake(
        "cut from a sentence already shortened",
        _shifting,
        "Your first gap is right, the later ones sit too far right in the inputs.",
        "`starts` count in the whole sentence. Once a span has become a single sentinel, all behind it has moved left.",
        "where does token 7 lie after a span of 3 before it became one sentinel?",
    ),
    Mistake(
        "one token too long",
        lambda *args: _corrupt(*args, stretch=1),
        "Each of your spans takes one token too many.",
        "A span of `length` tokens ends before `start + length`: slices leave their end out.",
        "which tokens are `tokens[4:4 + 2]`?",
    ),
)
