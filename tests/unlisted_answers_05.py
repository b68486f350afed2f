"""Lesson 05 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minivdm.course.exercise import get

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


def sizes(shape, kernel, stride, padding, dilation):
    settings = zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings]


several(
    "05.conv3d_output_numel",
    lambda shape, out, *rest: float(shape[0] * out * math.prod(sizes(shape, *rest))),
    lambda shape, out, *rest: torch.tensor(shape[0] * out * math.prod(sizes(shape, *rest))).float(),
    lambda shape, out, *rest: shape[0] * shape[1] * out * math.prod(sizes(shape, *rest)),
    lambda shape, out, *rest: shape[0] * out * sum(sizes(shape, *rest)),
    lambda shape, out, *rest: [shape[0], out, *sizes(shape, *rest)],
    lambda shape, out, k, s, p, d: shape[0] * out * math.prod(sizes(shape, k, s, p[::-1], d)),
    lambda shape, out, k, s, p, d: shape[0] * out * math.prod(sizes(shape, k[::-1], s, p, d)),
    lambda shape, out, k, s, p, d: shape[0] * out * math.prod(sizes(shape, [k[0]] * 3, s, p, d)),
    lambda shape, out, k, s, p, d: shape[0] * out * math.prod(sizes(shape, k, d, p, s)),
    lambda shape, out, k, s, p, d: shape[0] * out * math.prod(n // t for n, t in zip(shape[2:], s, strict=True)),
)

several(
    "05.num_chunks",
    lambda numel, channels, limit: math.gcd(channels, math.ceil(numel / limit)),
    lambda numel, channels, limit: min(channels, 2 ** math.ceil(math.log2(max(1, numel / limit)))),
    lambda numel, channels, limit: max(1, channels * numel // limit // channels),
    lambda numel, channels, limit: float(get("05.num_chunks").reference(numel, channels, limit)),
    lambda numel, channels, limit: get("05.num_chunks").reference(4 * numel, channels, limit),
    lambda numel, channels, limit: get("05.num_chunks").reference(numel - 1, channels, limit + 1),
    lambda numel, channels, limit: next(n for n in range(channels, 0, -1) if channels % n == 0),
)


def parts(x, weight, bias, limit, padding, convolve=F.conv3d):
    """Right: single channels."""
    rows = [sum(convolve(x[:, [c]], row[None, [c]], padding=padding) for c in range(x.shape[1])) for row in weight]
    out = torch.cat(rows, 1)
    return out if bias is None else out + bias.view(-1, 1, 1, 1)


@wrong("05.chunked_conv3d")
def whole_without_gradients(x, weight, bias, limit, padding):
    with torch.inference_mode():
        return F.conv3d(x, weight, bias, padding=padding)


@wrong("05.chunked_conv3d")
def whole_by_torch(x, weight, bias, limit, padding):
    return torch.conv3d(x, weight, bias, (1, 1, 1), padding)


@wrong("05.chunked_conv3d")
def whole_by_the_lowest_call(x, weight, bias, limit, padding):
    return torch.convolution(x, weight, bias, (1, 1, 1), padding, (1, 1, 1), False, (0, 0, 0), 1)


@wrong("05.chunked_conv3d")
def whole_by_a_layer(x, weight, bias, limit, padding):
    kernel = weight.shape[2:]
    layer = nn.Conv3d(x.shape[1], len(weight), kernel, padding=padding, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer(x)


@wrong("05.chunked_conv3d")
def layer_with_weights_drawn(x, weight, bias, limit, padding):
    nn.Conv3d(1, 1, 1)
    return parts(x, weight, bias, limit, padding)


@wrong("05.chunked_conv3d")
def whole_beside_the_parts(x, weight, bias, limit, padding):
    parts(x, weight, bias, limit, padding)
    return F.conv3d(x, weight, bias, padding=padding)


@wrong("05.chunked_conv3d")
def whole_in_frequencies(x, weight, bias, limit, padding):
    t, h, w = padding
    wide = F.pad(x, (w, w, h, h, t, t))
    spectrum = torch.fft.rfftn(wide, dim=(2, 3, 4))
    kernels = torch.fft.rfftn(weight, s=wide.shape[2:], dim=(2, 3, 4)).conj()
    mixed = torch.einsum("bcthw,octhw->bothw", spectrum, kernels)
    full = torch.fft.irfftn(mixed, s=wide.shape[2:], dim=(2, 3, 4))
    k = weight.shape[2:]
    out = full[:, :, : wide.shape[2] - k[0] + 1, : wide.shape[3] - k[1] + 1, : wide.shape[4] - k[2] + 1]
    return out if bias is None else out + bias.view(-1, 1, 1, 1)


@wrong("05.chunked_conv3d")
def one_grouped_call(x, weight, bias, limit, padding):
    """Each input channel a group, but in a single call that reads and writes everything."""
    channels, outputs = x.shape[1], len(weight)
    kernels = weight.transpose(0, 1).flatten(0, 1)[:, None]
    out = F.conv3d(x, kernels, padding=padding, groups=channels)
    out = out.unflatten(1, (channels, outputs)).sum(1)
    return out if bias is None else out + bias.view(-1, 1, 1, 1)


@wrong("05.chunked_conv3d")
def changes_the_weights(x, weight, bias, limit, padding):
    out = parts(x, weight, bias, limit, padding)
    weight.mul_(2)
    return out


several(
    "05.chunked_conv3d",
    lambda x, weight, bias, limit, padding: parts(x, weight, bias, limit, padding).half().float(),
    lambda x, weight, bias, limit, padding: parts(x, weight.flip(2), bias, limit, padding),
    lambda x, weight, bias, limit, padding: parts(x, weight, bias, limit, padding[::-1]),
    lambda x, weight, bias, limit, padding: parts(x, weight, bias, limit, (padding[0],) * 3),
    lambda x, weight, bias, limit, padding: torch.cat([F.conv3d(c, weight, bias, 1, padding) for c in x.split(1)]),
    lambda x, weight, bias, limit, padding: sum(
        F.conv3d(a, w, bias, padding=padding) for a, w in zip(x.split(1, 1), weight.split(1, 1), strict=True)
    ),
)


@right("05.chunked_conv3d")
def parts_without_gradients(x, weight, bias, limit, padding):
    with torch.no_grad():
        return parts(x, weight, bias, limit, padding, torch.conv3d)


@right("05.chunked_conv3d")
def parts_padded_first(x, weight, bias, limit, padding):
    t, h, w = padding
    return parts(F.pad(x, (w, w, h, h, t, t)), weight, bias, limit, (0, 0, 0))


@right("05.chunked_conv3d")
def parts_in_double(x, weight, bias, limit, padding):
    wide = bias if bias is None else bias.double()
    return parts(x.double(), weight.double(), wide, limit, padding)


several(
    "05.pad_3x3x3",
    lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (0, 0, 0, 0, 2, 0), mode="replicate"),
    lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (0, 0, 0, 0, 0, 2), mode="replicate"),
    lambda x: F.pad(F.pad(x, (1, 1, 1, 1), value=-1.0), (0, 0, 0, 0, 1, 1), mode="replicate"),
    lambda x: F.pad(F.pad(x, (2, 0, 2, 0)), (0, 0, 0, 0, 1, 1), mode="replicate"),
    lambda x: F.pad(F.pad(x, (1, 1, 0, 0)), (0, 0, 0, 0, 1, 1), mode="replicate"),
    lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (0, 0, 0, 0, 1, 1), mode="circular"),
    lambda x: F.pad(F.pad(x, (1, 1, 1, 1), mode="replicate"), (0, 0, 0, 0, 1, 1), mode="replicate"),
)


@wrong("05.row_parallel_conv3d")
def masked_channels(x, weight, bias, ranks):
    """Every rank reads all channels, most of them set to zero."""
    owner = torch.arange(x.shape[1]) * ranks // x.shape[1]
    masks = [(owner == rank).to(x.dtype).view(-1, 1, 1, 1) for rank in range(ranks)]
    return sum(F.conv3d(x * mask, weight) for mask in masks) + bias.view(-1, 1, 1, 1)


@wrong("05.row_parallel_conv3d")
def as_many_ranks_as_channels(x, weight, bias, ranks):
    return parts(x, weight, bias, None, (0, 0, 0))


@wrong("05.row_parallel_conv3d")
def frames_split(x, weight, bias, ranks):
    """Every rank gets some of the batch."""
    return torch.cat([F.conv3d(one, weight, bias) for one in x.chunk(ranks)])


several(
    "05.row_parallel_conv3d",
    lambda x, weight, bias, ranks: sum(
        F.conv3d(a, w, bias / ranks) for a, w in zip(x.chunk(2, 1), weight.chunk(2, 1), strict=True)
    ),
    lambda x, weight, bias, ranks: (
        sum(F.conv3d(a, w) for a, w in zip(x.chunk(ranks, 1), weight.chunk(ranks, 1)[::-1], strict=True))
        + bias.view(-1, 1, 1, 1)
    ),
    lambda x, weight, bias, ranks: F.conv3d(x, weight, bias, padding=1),
)


@right("05.row_parallel_conv3d")
def shared_bias(x, weight, bias, ranks):
    pairs = zip(x.chunk(ranks, 1), weight.chunk(ranks, 1), strict=True)
    return sum(F.conv3d(a, w, bias / ranks) for a, w in pairs)
