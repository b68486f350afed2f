"""Wrong answers that newcomers really give about hearing a prompt, and hearing none, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake


def _attend(q, k, v, mask, scale=None, dim=-1):
    """`mask` is added to the scores."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax(q @ k.transpose(-2, -1) * scale + mask, dim) @ v


def _added(mask):
    return torch.zeros(mask.shape).masked_fill(~mask, -math.inf)[:, None, None]


def _scores_times_mask(q, k, v, mask):
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 * mask[:, None, None], -1) @ v


MASKED_CROSS_ATTENTION = (
    Mistake(
        "no mask",
        lambda q, k, v, mask: _attend(q, k, v, 0),
        "Your attention listens to the padding: `mask` changes nothing.",
        "A pad is a vector like any other, and its key is not zero: unmasked, a short prompt is drowned by padding.",
        "how many of 300 tokens are words in “a red ring”?",
    ),
    Mistake(
        "mask upside down",
        lambda q, k, v, mask: _attend(q, k, v, _added(~mask)),
        "Your attention hears the padding and ignores the words: the mask is upside down.",
        "True = a real token. What gets −∞ is where the mask is False.",
        "which tokens should the film obey?",
    ),
    Mistake(
        "mask added as a number",
        lambda q, k, v, mask: _attend(q, k, v, mask.float()[:, None, None]),
        "You add the mask itself: 1 to the words' scores and 0 to the padding's.",
        "That favours words a little and forbids nothing. Forbidden is −∞, since e^(−∞) is 0.",
        "what share does a token with score 0 get from a softmax?",
    ),
    Mistake(
        "scores times mask",
        _scores_times_mask,
        "You multiply the scores by the mask, so the padding has score 0.",
        "A score of 0 is no share of 0: e⁰ is 1, more than a word with a negative score gets.",
        "which score makes the softmax give nothing?",
    ),
    Mistake(
        "masked after the softmax",
        lambda q, k, v, mask: _attend(q, k, v * mask[:, None, :, None], 0),
        "The padding says nothing in your version, but keeps its share: the words' shares no longer sum to 1.",
        "The mask must act before the softmax, so that all of the attention is shared among the words.",
        "how loud is a prompt of 2 words among 298 silent pads?",
    ),
    Mistake(
        "softmax over queries",
        lambda q, k, v, mask: _attend(q, k, v, _added(mask), dim=-2),
        "Your weights add up to 1 over the places of the film, and padding gives 0/0.",
        "Each place shares its attention among the words: the sum over the last axis is 1.",
        "in scores (…, query, key), which axis is being averaged away by `@ v`?",
    ),
    Mistake(
        "one mask for all",
        lambda q, k, v, mask: _attend(q, k, v, _added(mask)[:1]),
        "You use the first prompt's mask for the whole batch.",
        "Each prompt has its own length: `mask[:, None, None, :]` keeps the batch axis where it is.",
        "what would a long prompt lose beside a short one?",
    ),
    Mistake(
        "scale forgotten",
        lambda q, k, v, mask: _attend(q, k, v, _added(mask), scale=1.0),
        "Your scores are too large by √d: the scale is missing.",
        "A sum of d products grows like √d. Unscaled, the softmax picks one word and stops learning.",
        "what is the variance of a dot product of two standard normal vectors of width d?",
    ),
    Mistake(
        "1/d for 1/√d",
        lambda q, k, v, mask: _attend(q, k, v, _added(mask), scale=1 / q.shape[-1]),
        "You divide by d instead of √d, so all words are nearly equally loud.",
        "Variance d means a typical size of √d.",
        "which divisor gives scores of variance 1?",
    ),
)


def _keep_or_null(y, null, drop):
    return torch.where(drop[:, None, None], null, y)


def _first_token_only(y, null, drop):
    out = y.clone()
    out[drop, 0] = null[0]
    return out


def _average_word(y, null, drop):
    return torch.where(drop[:, None, None], null.mean(0), y)


NULL_DROPOUT = (
    Mistake(
        "kept and dropped exchanged",
        lambda y, null, drop: _keep_or_null(y, null, ~drop),
        "You dropped the captions that should be kept, and kept the others.",
        "`drop` is True where the caption is taken away.",
        "in `torch.where(drop, a, b)`, which of the two is for the dropped?",
    ),
    Mistake(
        "null detached",
        lambda y, null, drop: _keep_or_null(y, null.detach(), drop),
        "The numbers are right, but no gradient reaches `null`: it was cut off (`detach`, `.data`, `no_grad`).",
        "The null text is learnt like any weight; cut off, it stays the noise that it began as.",
        "what would guidance subtract if `null` never learnt what no text means?",
    ),
    Mistake(
        "zeros for null",
        lambda y, null, drop: _keep_or_null(y, 0 * null.detach(), drop),
        "Your dropped captions are zeros: `null` is not used.",
        "Zeros are an embedding like any other, chosen by nobody. `null` is one that the network learns.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "all or none",
        lambda y, null, drop: _keep_or_null(y, null, drop.any().expand(len(y))),
        "One dropped caption makes you drop the whole batch.",
        "Each caption is dropped or kept for itself; a batch holds some of both.",
        "what shape lets a (B,) decision meet a (B, L, D) batch?",
    ),
    Mistake(
        "null added",
        lambda y, null, drop: y + drop[:, None, None] * null,
        "You add `null` to the dropped captions, whose words are still in there.",
        "Dropped means replaced: nothing of the caption may be left.",
        "could the network still read the words behind your null text?",
    ),
    Mistake(
        "scaled as by dropout",
        lambda y, null, drop: _keep_or_null(y / (1 - drop.double().mean()).clamp(min=0.5), null, drop),
        "You made the kept captions larger, as `nn.Dropout` does.",
        "`nn.Dropout` removes numbers and makes up for the loss. Here whole captions are replaced; the others stay.",
        "how large are the captions of a batch at generation time?",
    ),
    Mistake(
        "first token only",
        _first_token_only,
        "You replaced the first token of the dropped captions and left the other words.",
        "Cross-attention reads all tokens; every one of them must be null's.",
        "which words does the network still hear?",
    ),
    Mistake(
        "one null token for all",
        _average_word,
        "You put one and the same vector, the mean of `null`, at every token.",
        "`null` has a row for every token, (L, D), as a caption has.",
        "what does averaging over the tokens do to the gradient of each of them?",
    ),
)
