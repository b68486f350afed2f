"""Wrong answers that newcomers really give about convolutions in parts, and what to say to each."""

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _parts(numel, channels, limit):
    return next((n for n in range(1, channels + 1) if channels % n == 0 and n * limit >= numel), channels)


def _written(x, weight, padding):
    sizes = [n + 2 * p - k + 1 for n, k, p in zip(x.shape[2:], weight.shape[2:], padding, strict=True)]
    return x.shape[0] * weight.shape[0] * sizes[0] * sizes[1] * sizes[2]


def _convolve(x, weight, padding, parts_in=1, parts_out=1, add=sum, join=torch.cat):
    """Without the bias."""
    outputs = []
    for rows in weight.chunk(parts_out):
        pairs = zip(x.chunk(parts_in, dim=1), rows.chunk(parts_in, dim=1), strict=True)
        outputs.append(add([F.conv3d(part, columns, padding=padding) for part, columns in pairs]))
    return join(outputs, 1)


def _chunked(x, weight, bias, limit, padding, split_in=True, split_out=True, times_bias=None, **how):
    parts_in = _parts(x.numel(), x.shape[1], limit) if split_in else 1
    parts_out = _parts(_written(x, weight, padding), weight.shape[0], limit) if split_out else 1
    out = _convolve(x, weight, padding, parts_in, parts_out, **how)
    times = times_bias(parts_in) if times_bias else 1
    return out if bias is None else out + times * bias[:, None, None, None]


def _uneven(x, weight, bias, limit, padding):
    parts_in, parts_out = -(-x.numel() // limit), -(-_written(x, weight, padding) // limit)
    cuts_in, cuts_out = x.tensor_split(min(parts_in, x.shape[1]), 1), weight.tensor_split(min(parts_out, len(weight)))
    outputs = [
        sum(F.conv3d(a, w, padding=padding) for a, w in zip(cuts_in, rows.tensor_split(len(cuts_in), 1), strict=True))
        for rows in cuts_out
    ]
    out = torch.cat(outputs, 1)
    return out if bias is None else out + bias[:, None, None, None]


def _per_sample_limit(x, weight, bias, limit, padding):
    return _chunked(x, weight, bias, limit * len(x), padding)


CHUNKED_CONV3D = (
    Mistake(
        "whole",
        lambda x, weight, bias, limit, padding: F.conv3d(x, weight, bias, padding=padding),
        "The value is right, but you made one convolution of everything.",
        "That is the call for which the machine has no room: none may read or write more than `limit` elements.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "input split only",
        lambda *args: _chunked(*args, split_out=False),
        "You split the input channels, but the output is still written whole.",
        "Each of your parts writes all output channels, so parts of the input alone save nothing there.",
        "a convolution from 2 to 10 channels: which side is the large one?",
    ),
    Mistake(
        "output split only",
        lambda *args: _chunked(*args, split_in=False),
        "You split the output channels, but each part still reads the whole input.",
        "A convolution is a sum over input channels; a sum can be cut into several.",
        "a convolution from 10 to 2 channels: which side is the large one?",
    ),
    Mistake(
        "limit per sample",
        _per_sample_limit,
        "You counted the elements of one sample; with the batch your convolutions go over the limit.",
        "All samples lie in one tensor. Published code makes this mistake too.",
        "how many elements has a batch of 2, if a sample has 700?",
    ),
    Mistake(
        "unequal parts",
        _uneven,
        "You cut into ⌈numel / limit⌉ parts, and unequal ones: the largest is over the limit.",
        "Your `num_chunks` goes up to the next divisor, so that all parts are equal.",
        "into what parts do 10 channels fall when they are cut in 3?",
    ),
    Mistake(
        "bias in every part",
        lambda *args: _chunked(*args, times_bias=lambda parts: parts),
        "The bias is added once for every part of the input.",
        "The parts are added up, and the bias with them. It belongs to the whole sum: add it once.",
        "how many times does your loop over input channels add the bias?",
    ),
    Mistake(
        "bias forgotten",
        lambda x, weight, bias, *rest: _chunked(x, weight, None, *rest),
        "Right without a bias; with one, it is missing.",
        "Split or not, the result must equal `F.conv3d(x, weight, bias)`.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "bias assumed",
        lambda x, weight, bias, *rest: _chunked(x, weight, bias.clone(), *rest),
        "Right with a bias; without one (`bias` is None) your code stops.",
        "Layers before a normalisation often have none.",
        "what is `None[:, None]`?",
    ),
    Mistake(
        "last part only",
        lambda *args: _chunked(*args, add=lambda parts: parts[-1]),
        "Only the last part of the input arrives in your output.",
        "A loop that writes `out =` forgets what came before; the parts must be added.",
        "what does each output channel sum over?",
    ),
    Mistake(
        "input parts averaged",
        lambda *args: _chunked(*args, add=lambda parts: sum(parts) / len(parts)),
        "You average over the parts of the input.",
        "A convolution sums over its input channels, however they are cut.",
        "if each of two parts gives 1, what does the whole convolution give?",
    ),
    Mistake(
        "padding forgotten",
        lambda x, weight, bias, limit, padding: _chunked(x, weight, bias, limit, (0, 0, 0)),
        "Your output is smaller: `padding` never reached your convolutions.",
        "Every part is padded like the whole; zeros add nothing to a sum.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "input parts side by side",
        lambda *args: _chunked(*args, add=lambda parts: torch.cat(parts, 1)),
        "You put the results of the input parts side by side.",
        "Every one of them is a share of the same output channels: add them. Side by side go the output's parts.",
        "how many channels has your output, and how many rows has `weight`?",
    ),
)


def _ranked(x, weight, bias, ranks, add=sum, bias_of=lambda bias, ranks: bias):
    pairs = zip(x.chunk(ranks, dim=1), weight.chunk(ranks, dim=1), strict=True)
    return add([F.conv3d(part, columns) for part, columns in pairs]) + bias_of(bias, ranks)[:, None, None, None]


def _column_parallel(x, weight, bias, ranks):
    pairs = zip(weight.tensor_split(ranks), bias.tensor_split(ranks), strict=True)
    return torch.cat([F.conv3d(x, rows, share) for rows, share in pairs], 1)


def _strided(x, weight, bias, ranks):
    parts = [F.conv3d(x[:, r::ranks], columns) for r, columns in enumerate(weight.chunk(ranks, 1))]
    return sum(parts) + bias[:, None, None, None]


ROW_PARALLEL = (
    Mistake(
        "bias on every rank",
        lambda *args: _ranked(*args, bias_of=lambda bias, ranks: ranks * bias),
        "The bias is in your result as many times as there are ranks.",
        "Every rank that adds it puts it into the sum again. One rank adds it, or it is added after the all-reduce.",
        "what do 4 ranks make of a bias of 1, if x is 0?",
    ),
    Mistake(
        "whole",
        lambda x, weight, bias, ranks: F.conv3d(x, weight, bias),
        "The value is right, but your convolution reads all input channels at once.",
        "No rank has them all: that is why there are several.",
        "how many channels of x lie in the memory of one rank?",
    ),
    Mistake(
        "output channels split",
        _column_parallel,
        "The value is right, but this is the other cut: you split the output channels (column parallel).",
        "There every rank needs the whole input. Here each holds only some input channels, and results are added.",
        "how many channels of x does rank 0 need in your version?",
    ),
    Mistake(
        "bias forgotten",
        lambda *args: _ranked(*args, bias_of=lambda bias, ranks: 0 * bias),
        "The bias is missing.",
        "Added on every rank it is too much, left out it is too little: add it once.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "side by side",
        lambda *args: _ranked(*args, add=lambda parts: torch.cat(parts, 1), bias_of=lambda bias, n: bias.repeat(n)),
        "You put the ranks' outputs side by side: too many channels.",
        "Each rank's output is a share of all output channels. Shares are added; that is the all-reduce.",
        "how many output channels has the convolution of a single rank?",
    ),
    Mistake(
        "averaged",
        lambda *args: _ranked(*args, add=lambda parts: sum(parts) / len(parts)),
        "You average over the ranks.",
        "Gradients are averaged in data parallelism; here the ranks hold parts of one sum.",
        "if every rank's share is 1, what is the whole?",
    ),
    Mistake(
        "last rank only",
        lambda *args: _ranked(*args, add=lambda parts: parts[-1]),
        "Only the last rank's share arrives.",
        "A loop that writes `out =` forgets the ranks before; `+=` is the all-reduce.",
        "what does rank 0 contribute to your result?",
    ),
    Mistake(
        "channels dealt out like cards",
        _strided,
        "Rank r gets every ranks-th channel of x, but a block of neighbouring channels of the weights.",
        "A channel must meet its own weights: cut x and weight in the same way.",
        "which channels of `weight` belong to channel 1 of x?",
    ),
)
