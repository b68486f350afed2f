"""Exercises of notebook 05: what a convolution writes, the same in parts, padding, and ranks that add up."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm.course.convolutions import split_over_ranks, within_limit
from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n05_counting_mistakes as counting_mistakes
from minivdm.course.exercises import n05_splitting_mistakes as splitting_mistakes
from minivdm.course.inputs import randn

Triple = tuple[int, int, int]


def conv3d_output_numel(
    shape: tuple[int, ...], out_channels: int, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple
) -> int:
    settings = zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings]
    return shape[0] * out_channels * math.prod(sizes)


def num_chunks(numel: int, channels: int, limit: int) -> int:
    enough = (n for n in range(1, channels + 1) if channels % n == 0 and numel <= n * limit)
    return next(enough, channels)


def chunked_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, limit: int, padding: Triple) -> Tensor:
    ones = (1, 1, 1)
    written = conv3d_output_numel(tuple(x.shape), weight.shape[0], tuple(weight.shape[2:]), ones, padding, ones)
    parts_in, parts_out = num_chunks(x.numel(), x.shape[1], limit), num_chunks(written, weight.shape[0], limit)
    outputs = []
    for rows in weight.chunk(parts_out):
        pairs = zip(x.chunk(parts_in, dim=1), rows.chunk(parts_in, dim=1), strict=True)
        outputs.append(sum(F.conv3d(part, columns, padding=padding) for part, columns in pairs))
    out = torch.cat(outputs, dim=1)
    return out if bias is None else out + bias[:, None, None, None]


def pad_3x3x3(x: Tensor) -> Tensor:
    wide = F.pad(x, (1, 1, 1, 1))
    return torch.cat([wide[:, :, :1], wide, wide[:, :, -1:]], dim=2)


def row_parallel_conv3d(x: Tensor, weight: Tensor, bias: Tensor, ranks: int) -> Tensor:
    pairs = zip(x.chunk(ranks, dim=1), weight.chunk(ranks, dim=1), strict=True)
    return sum(F.conv3d(part, columns) for part, columns in pairs) + bias[:, None, None, None]


def _count_cases(g: torch.Generator) -> list[Case]:
    def case(shape, out_channels, kernel, stride, padding, dilation, note: str) -> Case:
        settings = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        return Case({"shape": shape, "out_channels": out_channels, **settings}, note)

    ones, zeros = (1, 1, 1), (0, 0, 0)
    return [
        case((2, 3, 9, 16, 13), 5, (3, 5, 2), (1, 2, 3), (1, 2, 0), (2, 1, 4), "everything at once"),
        case((4, 6, 5, 8, 7), 9, (3, 2, 1), ones, zeros, ones, "no stride, padding or dilation"),
        case((1, 4, 6, 11, 8), 7, (1, 4, 3), (2, 3, 1), zeros, ones, "strides, one sample"),
        case((3, 8, 7, 6, 10), 2, (2, 3, 5), ones, (3, 1, 2), ones, "padding"),
        case((2, 5, 12, 9, 14), 3, (4, 2, 3), ones, zeros, (3, 2, 5), "dilation"),
    ]


def _chunk_cases(g: torch.Generator) -> list[Case]:
    def case(numel: int, channels: int, limit: int, note: str) -> Case:
        return Case({"numel": numel, "channels": channels, "limit": limit}, note)

    return [
        case(900, 12, 1000, "a tensor below the limit"),
        case(1000, 12, 1000, "a tensor of exactly the limit"),
        case(1001, 12, 1000, "one element too many"),
        case(5000, 12, 1000, "5 parts wanted of 12 channels"),
        case(6300, 12, 1000, "7 parts wanted of 12 channels"),
        case(2700, 10, 1000, "3 parts wanted of 10 channels"),
        case(1500, 7, 1000, "2 parts wanted of 7 channels"),
        case(9000, 6, 1000, "9 parts wanted of 6 channels"),
        case(1700, 1, 500, "one channel"),
        case(900, 2, 1000, "two channels below the limit"),
        case(3 * 2**31 + 1, 16, 2**31, "the limit of 2³¹"),
    ]


def _conv_cases(g: torch.Generator) -> list[Case]:
    """The note of a case names the tensor that is too large."""

    def case(
        shape: tuple[int, ...], kernel: tuple[int, ...], padding: Triple, limit: int, note: str, bias=True, **dtype
    ) -> Case:
        x, weight = randn(g, *shape, **dtype), randn(g, kernel[0], shape[1], *kernel[1:], **dtype)
        added = 3 * randn(g, kernel[0], **dtype) if bias else None
        return Case({"x": x, "weight": weight, "bias": added, "limit": limit, "padding": padding}, note)

    return [
        case((2, 6, 4, 7, 5), (8, 3, 1, 2), (1, 0, 1), 700, "input and output too large"),
        case((2, 6, 4, 7, 5), (8, 3, 1, 2), (1, 0, 1), 9000, "nothing too large"),
        case((1, 10, 4, 5, 6), (2, 3, 4, 1), (0, 1, 0), 420, "a large input, no bias", bias=False),
        case((3, 2, 5, 4, 7), (10, 2, 3, 1), (1, 1, 2), 2700, "a large output"),
        case((2, 7, 3, 6, 4), (5, 2, 1, 3), (0, 0, 1), 600, "numbers of channels that no cut divides"),
        case(
            (4, 3, 5, 2, 6), (2, 1, 2, 3), (2, 1, 0), 200, "single channels too large, in float64", dtype=torch.float64
        ),
        case((2, 9, 1, 8, 5), (6, 1, 3, 2), (0, 1, 1), 560, "no bias, both too large", bias=False),
    ]


def _pad_cases(g: torch.Generator) -> list[Case]:
    return [
        Case({"x": randn(g, 2, 3, 5, 4, 6)}, "a batch of videos"),
        Case({"x": randn(g, 1, 4, 1, 5, 3)}, "a single frame"),
        Case({"x": randn(g, 3, 1, 2, 6, 4, dtype=torch.float64)}, "two frames in float64"),
    ]


def _rank_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], kernel: tuple[int, ...], ranks: int, note: str, **dtype: torch.dtype) -> Case:
        x, weight = randn(g, *shape, **dtype), randn(g, kernel[0], shape[1], *kernel[1:], **dtype)
        return Case({"x": x, "weight": weight, "bias": 3 * randn(g, kernel[0], **dtype), "ranks": ranks}, note)

    return [
        case((2, 12, 5, 4, 6), (8, 3, 2, 1), 4, "4 ranks of 3 channels"),
        case((3, 6, 4, 7, 5), (4, 2, 3, 1), 2, "2 ranks of 3 channels in float64", dtype=torch.float64),
        case((1, 5, 3, 6, 4), (2, 1, 4, 3), 5, "5 ranks of one channel"),
        case((2, 3, 4, 5, 6), (7, 1, 2, 3), 1, "a single rank"),
    ]


EXERCISES = (
    Exercise(
        "05.conv3d_output_numel",
        conv3d_output_numel,
        _count_cases,
        counting_mistakes.OUTPUT_NUMEL,
        (
            "On each axis a window slides: count the places where it fits. A dilated window is longer than its "
            "kernel, padding makes the axis longer, a stride leaves places out. Then multiply everything that is "
            "written.",
            "n_out = ⌊(n + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1 per axis; B · out_channels · T_out "
            "· H_out · W_out",
            "`(n + 2 * p - d * (k - 1) - 1) // s + 1` for n, k, s, p, d of each axis, then "
            "`shape[0] * out_channels * math.prod(sizes)`",
        ),
    ),
    Exercise(
        "05.num_chunks",
        num_chunks,
        _chunk_cases,
        counting_mistakes.NUM_CHUNKS,
        (
            "Enough parts that each is small enough, and all parts equal: so their number must divide the channels. "
            "More parts than channels there cannot be.",
            "the smallest n with channels mod n = 0 and n ≥ ⌈numel / limit⌉; channels, if there is none",
            "`next((n for n in range(1, channels + 1) if channels % n == 0 and n * limit >= numel), channels)`",
        ),
    ),
    Exercise(
        "05.chunked_conv3d",
        chunked_conv3d,
        _conv_cases,
        splitting_mistakes.CHUNKED_CONV3D,
        (
            "A convolution adds over input channels: cut them, convolve each part with its own part of the weights, "
            "add. Its output channels have nothing to do with each other: cut the weights, put the results side by "
            "side. The bias belongs to the whole.",
            "out[o] = bias[o] + Σ over input parts of conv(x[part], weight[o, part]); the rows o in parts as well",
            "`sum(F.conv3d(a, w, padding=padding) for a, w in zip(x.chunk(n, 1), rows.chunk(n, 1)))` for each `rows` "
            "of `weight.chunk(m)`, then `torch.cat(outputs, 1)`, with n and m from your `num_chunks`",
        ),
        rule=within_limit,
    ),
    Exercise(
        "05.pad_3x3x3",
        pad_3x3x3,
        _pad_cases,
        counting_mistakes.PAD,
        (
            "Beyond the edge of the picture lies night: zeros. Before the first frame and after the last the film "
            "stands still: the same frame again.",
            "out = [first, x, last] along time, with one zero row above and below and one zero column left and right",
            "`wide = F.pad(x, (1, 1, 1, 1))`, then `torch.cat([wide[:, :, :1], wide, wide[:, :, -1:]], dim=2)`",
        ),
    ),
    Exercise(
        "05.row_parallel_conv3d",
        row_parallel_conv3d,
        _rank_cases,
        splitting_mistakes.ROW_PARALLEL,
        (
            "Each rank holds some of the input channels and the weights that belong to them. It computes a whole "
            "output that lacks the other ranks' share; adding all of them is the all-reduce. A bias on every rank "
            "would be added as often as there are ranks.",
            "out = bias + Σ_r conv(x[:, part r], weight[:, part r])",
            "`sum(F.conv3d(a, w) for a, w in zip(x.chunk(ranks, 1), weight.chunk(ranks, 1)))`, and then once "
            "`+ bias[:, None, None, None]`",
        ),
        rule=split_over_ranks,
    ),
)
