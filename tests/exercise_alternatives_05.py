"""Right answers to the exercises of lesson 05 written in another way. Every one must pass its check."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn


def conv3d_output_numel(shape, out_channels, kernel, stride, padding, dilation):
    """Asks torch, on the device that computes nothing."""
    x = torch.empty(shape, device="meta")
    weight = torch.empty(out_channels, shape[1], *kernel, device="meta")
    return F.conv3d(x, weight, stride=stride, padding=padding, dilation=dilation).numel()


def conv3d_output_numel_loop(shape, out_channels, kernel, stride, padding, dilation):
    """Counts the windows one by one."""
    total = shape[0] * out_channels
    for axis in range(3):
        reach = dilation[axis] * (kernel[axis] - 1)
        starts = range(-padding[axis], shape[axis + 2] + padding[axis] - reach, stride[axis])
        total *= len(starts)
    return total


def num_chunks(numel, channels, limit):
    wanted = math.ceil(numel / limit)
    for n in range(wanted, channels):
        if n > 0 and channels % n == 0:
            return n
    return 1 if wanted <= 1 else channels


def num_chunks_sorted(numel, channels, limit):
    divisors = sorted({d for k in range(1, channels + 1) if channels % k == 0 for d in (k, channels // k)})
    return min((d for d in divisors if d * limit >= numel), default=max(divisors))


def chunked_conv3d(x, weight, bias, limit, padding):
    """One channel in, one channel out."""
    out = []
    for o in range(weight.shape[0]):
        total = 0 if bias is None else bias[o]
        for c in range(x.shape[1]):
            total = total + F.conv3d(x[:, c : c + 1], weight[o : o + 1, c : c + 1], padding=padding)
        out.append(total)
    return torch.cat(out, 1)


def chunked_conv3d_layers(x, weight, bias, limit, padding):
    """Layers of torch, into one tensor that is made first; the bias is its first value."""
    per_sample = F.conv3d(x[:1, :1], weight[:1, :1], padding=padding).shape[2:]
    out = x.new_zeros(len(x), len(weight), *per_sample)
    if bias is not None:
        out += bias.view(1, -1, 1, 1, 1)
    step_in = max(1, limit // (x.numel() // x.shape[1]))
    step_out = max(1, limit // (out.numel() // out.shape[1]))
    for o in range(0, len(weight), step_out):
        for c in range(0, x.shape[1], step_in):
            rows = weight[o : o + step_out, c : c + step_in]
            layer = nn.Conv3d(rows.shape[1], len(rows), rows.shape[2:], padding=padding, bias=False, device="meta")
            layer.weight = nn.Parameter(rows.clone())
            out[:, o : o + step_out] += layer(x[:, c : c + step_in]).detach()
    return out


def chunked_conv3d_samples(x, weight, bias, limit, padding):
    """Padded by hand, one sample at a time."""
    t, h, w = padding
    wide = F.pad(x, (w, w, h, h, t, t))
    samples = []
    for clip in wide:
        rows = [sum(torch.conv3d(clip[None, [c]], row[None, [c]]) for c in range(len(clip))) for row in weight]
        samples.append(torch.cat(rows, 1)[0])
    out = torch.stack(samples)
    return out if bias is None else out + rearrange(bias, "o -> o 1 1 1")


def pad_3x3x3(x):
    return F.pad(F.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate"), (1, 1, 1, 1), mode="constant", value=0)


def pad_3x3x3_index(x):
    b, c, t, h, w = x.shape
    out = torch.zeros(b, c, t + 2, h + 2, w + 2, dtype=x.dtype)
    for i in range(t + 2):
        out[:, :, i, 1:-1, 1:-1] = x[:, :, min(max(i - 1, 0), t - 1)]
    return out


def row_parallel_conv3d(x, weight, bias, ranks):
    """One grouped convolution: every rank is a group."""
    outputs = len(weight)
    stacked = rearrange(weight, "o (r c) t h w -> (r o) c t h w", r=ranks)
    partial = F.conv3d(x, stacked, groups=ranks)
    return reduce(partial, "b (r o) t h w -> b o t h w", "sum", r=ranks, o=outputs) + bias.view(-1, 1, 1, 1)


def row_parallel_conv3d_loop(x, weight, bias, ranks):
    """Rank 0 has the bias."""
    share = x.shape[1] // ranks
    out = None
    for rank in range(ranks):
        mine = slice(rank * share, (rank + 1) * share)
        partial = F.conv3d(x[:, mine], weight[:, mine], bias if rank == 0 else None)
        out = partial if out is None else out + partial
    return out


def row_parallel_conv3d_dealt(x, weight, bias, ranks):
    """Channels dealt out in turn, to x and weights alike, one clip at a time."""
    outputs = [sum(F.conv3d(clip[None, r::ranks], weight[:, r::ranks]) for r in range(ranks)) for clip in x]
    return torch.cat(outputs) + bias[None, :, None, None, None]


ALTERNATIVES = {
    "05.conv3d_output_numel": [conv3d_output_numel, conv3d_output_numel_loop],
    "05.num_chunks": [num_chunks, num_chunks_sorted],
    "05.chunked_conv3d": [chunked_conv3d, chunked_conv3d_layers, chunked_conv3d_samples],
    "05.pad_3x3x3": [pad_3x3x3, pad_3x3x3_index],
    "05.row_parallel_conv3d": [row_parallel_conv3d, row_parallel_conv3d_loop, row_parallel_conv3d_dealt],
}

# Lists of one length need no `strict`; channels + 1 divides nothing, and `channels` is what is left anyway.
EQUIVALENT = {
    "05.conv3d_output_numel": r"strict=False",
    "05.num_chunks": r"channels \+ [02]\)",
    "05.chunked_conv3d": r"strict=False",
    "05.row_parallel_conv3d": r"strict=False",
}
