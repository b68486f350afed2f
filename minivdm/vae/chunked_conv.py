"""3D convolution that works on a few channels at a time, equal to the whole one.

Two things stop a convolution of a large video. Kernels that index with 32-bit integers refuse tensors of more than 2³¹
elements; that is a *count*: 4 GiB in bfloat16, 8 GiB in float32, however much memory is free. And every convolution
needs scratch space beside its input and output. A convolution is linear in its channels, so both can be cut at will:

    y[o] = Σ_i conv(x[i], w[o, i]) + bias[o]        i: chunks of input channels, o: chunks of output channels

The idea is that of Open-Sora 2.0's ChannelChunkConv3d. Here the limit counts what the convolution reads *and* writes,
it may be set per layer, and every convolution that `nn.Conv3d` knows is accepted.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minivdm.errors import UserError

CONV3D_NUMEL_LIMIT = 2**31  # elements, not bytes: what a signed 32-bit integer can count

Triple = tuple[int, int, int]


def conv3d_output_numel(
    shape: Sequence[int],
    out_channels: int,
    kernel: Triple,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
) -> int:
    """How many elements a 3D convolution of an input of `shape` (B, C, T, H, W) writes, all samples together."""
    numel = shape[0] * out_channels
    for size, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True):
        numel *= (size + 2 * p - d * (k - 1) - 1) // s + 1
    return numel


def ceil_to_divisible(n: int, channels: int, *, divide: bool = True) -> int:
    """The smallest divisor of `channels` that is at least `n`; `channels` itself when n is larger.

    `divide=False` gives Open-Sora 2.0's number ceil(channels / (channels // n)), which often divides nothing: 6 chunks
    of 16 channels.
    """
    n = min(n, channels)
    if not divide:
        return -(-channels // (channels // n))
    return next(count for count in range(n, channels + 1) if channels % count == 0)


def num_chunks(numel: int, channels: int, limit: int) -> int:
    """Into how many equal chunks of channels a tensor of `numel` elements must be cut to have at most `limit` in each.

    Equal chunks, so that a kernel is planned for one shape only. When not even single channels keep to the limit the
    answer is `channels`.
    """
    return ceil_to_divisible(max(1, -(-numel // limit)), channels)


@dataclass(frozen=True)
class Geometry:
    """A convolution apart from its weights. `padding` may be "same" or "valid"; `mode` is the padding mode."""

    kernel: Triple
    stride: Triple = (1, 1, 1)
    padding: Triple | str = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    mode: str = "zeros"

    @property
    def margins(self) -> tuple[int, ...]:
        """What is padded, as `F.pad` wants it: left and right of W, of H, of T. An odd "same" adds one on the right."""
        if self.padding == "same":
            total = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
        else:
            total = [0, 0, 0] if self.padding == "valid" else [2 * p for p in self.padding]
        return tuple(side for both in reversed(total) for side in (both // 2, both - both // 2))

    def numel(self, shape: Sequence[int], out_channels: int) -> tuple[int, int]:
        """Elements that are read (padded, when padding makes a copy) and written for an input of `shape`."""
        w0, w1, h0, h1, t0, t1 = self.margins
        padded = (*shape[:2], shape[2] + t0 + t1, shape[3] + h0 + h1, shape[4] + w0 + w1)
        written = conv3d_output_numel(padded, out_channels, self.kernel, self.stride, dilation=self.dilation)
        return math.prod(shape if self.mode == "zeros" else padded), written

    def pad(self, x: Tensor) -> Tensor:
        """Paddings other than zeros, which the convolution does by itself."""
        return x if self.mode == "zeros" else F.pad(x, self.margins, mode=self.mode)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
        """One convolution of an input that went through `pad`."""
        padding = self.padding if self.mode == "zeros" else 0
        return F.conv3d(x, weight, bias, self.stride, padding, self.dilation, groups)


def conv3d_in_chunks(
    x: Tensor, weight: Tensor, bias: Tensor | None, n_in: int, n_out: int, geometry: Geometry | None = None
) -> Tensor:
    """A convolution as n_in · n_out small ones: summed over chunks of the input, side by side over chunks of output.

    x (B, C, T, H, W), weight (D, C, t, h, w) of one group, bias (D,) or None; n_in chunks of C, n_out chunks of D.
    Counts that do not divide give a smaller last chunk. Half precision is summed in float32.
    Returns (B, D, T', H', W').
    """
    geometry = geometry or Geometry(tuple(weight.shape[2:]))
    keep_graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    chunks, padded = x.chunk(n_in, dim=1), geometry.mode == "zeros"
    if keep_graph and not padded:  # what autograd keeps anyway should exist once, not once per chunk of the output
        chunks, padded = [geometry.pad(chunk) for chunk in chunks], True

    def sums() -> Iterator[Iterator[Tensor]]:
        """For every chunk of the output its terms, one for each chunk of the input, made when they are asked for."""
        biases = [None] * n_out if bias is None else bias.chunk(n_out)
        for rows, once in zip(weight.chunk(n_out), biases, strict=False):
            pairs = zip(chunks, rows.chunk(n_in, dim=1), strict=True)
            yield (
                geometry.convolve(x if padded else geometry.pad(x), w, None if i else once)
                for i, (x, w) in enumerate(pairs)
            )

    return side_by_side(sums(), len(weight), keep_graph)


def chunked_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int = 1, *, numel_limit: int
) -> Tensor:
    """A convolution in as few chunks as keep every small one to `numel_limit` elements read and written.

    x (B, C, T, H, W), weight (D, C / groups, t, h, w), bias (D,) or None. Where one channel alone passes the limit,
    channels go one by one. Equal to the plain convolution up to the rounding of sums in another order.
    """
    read, written = geometry.numel(x.shape, len(weight))
    if max(read, written) <= numel_limit:
        return geometry.convolve(geometry.pad(x), weight, bias, groups)
    if groups > 1:  # groups know nothing of each other: cut there first, and inside single ones if that is too little
        n = num_chunks(max(read, written), groups, numel_limit)
        biases = [None] * n if bias is None else bias.chunk(n)
        parts = zip(x.chunk(n, dim=1), weight.chunk(n), biases, strict=True)
        results = ([chunked_conv3d(*part, geometry, groups // n, numel_limit=numel_limit)] for part in parts)
        return side_by_side(results, len(weight), torch.is_grad_enabled())
    n_in, n_out = num_chunks(read, x.shape[1], numel_limit), num_chunks(written, len(weight), numel_limit)
    return conv3d_in_chunks(x, weight, bias, n_in, n_out, geometry)


class ChannelChunkConv3D(nn.Conv3d):
    """A drop-in `nn.Conv3d` that cuts its channels into chunks when its input or its output passes a limit.

    Weights, state dict, values and gradients are those of `nn.Conv3d`; layers without bias, groups, strides, dilations
    and all padding modes included.

    Args:
        numel_limit: most elements (all samples together) that one small convolution may read or write.
        gate: "both" looks at input and output and cuts into equal chunks, as few as possible. "upstream" cuts when and
            as Open-Sora 2.0 does: it looks at the input of one sample only, so that a large output passes whole.

    The other arguments are those of `nn.Conv3d`. Input (B, C, T, H, W) or (C, T, H, W). Raises UserError for a limit
    below 1, an unknown gate, and for groups or a padding by name with the gate "upstream", which knows neither.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple,
        stride: int | Triple = 1,
        padding: int | Triple | str = 0,
        dilation: int | Triple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        numel_limit: int = CONV3D_NUMEL_LIMIT,
        gate: Literal["both", "upstream"] = "both",
    ):
        check_limit(numel_limit)
        if gate not in ("both", "upstream"):
            raise UserError(f'gate {gate!r} is unknown: use "both", or "upstream" to cut as Open-Sora 2.0 does')
        if gate == "upstream" and (groups > 1 or isinstance(padding, str)):
            raise UserError('gate "upstream" knows no groups and no padding by name: use gate="both"')
        options = {"bias": bias, "padding_mode": padding_mode, "device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, **options)
        self.numel_limit, self.gate = numel_limit, gate

    @property
    def geometry(self) -> Geometry:
        """What the layer does apart from its weights."""
        return Geometry(self.kernel_size, self.stride, self.padding, self.dilation, self.padding_mode)

    def upstream_counts(self, shape: Sequence[int]) -> tuple[int, int]:
        """Into how many chunks Open-Sora 2.0 cuts input and output, once an input (B, C, T, H, W) passes its gate."""
        written = self.geometry.numel(shape, len(self.weight))[1]
        sides = ((math.prod(shape), shape[1]), (written, len(self.weight)))
        return tuple(ceil_to_divisible(-(-n // self.numel_limit), c, divide=False) for n, c in sides)

    def passes_gate(self, shape: Sequence[int]) -> bool:
        """Whether an input (B, C, T, H, W) is convolved in chunks."""
        if self.gate == "upstream":
            return math.prod(shape[1:]) >= self.numel_limit
        return max(self.geometry.numel(shape, len(self.weight))) > self.numel_limit

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = input if input.ndim == 5 else input[None]
        if not self.passes_gate(x.shape):
            return super()._conv_forward(input, weight, bias)
        if self.gate == "upstream":
            y = conv3d_in_chunks(x, weight, bias, *self.upstream_counts(x.shape), self.geometry)
        else:
            y = chunked_conv3d(x, weight, bias, self.geometry, self.groups, numel_limit=self.numel_limit)
        return y if input.ndim == 5 else y[0]


def chunk_convolutions(module: nn.Module, numel_limit: int = CONV3D_NUMEL_LIMIT) -> nn.Module:
    """Puts a ChannelChunkConv3D in the place of every `nn.Conv3d` inside `module`; weights stay the same objects.

    Changes `module` in place and returns it. Subclasses of `nn.Conv3d` are left alone.
    """
    check_limit(numel_limit)
    for parent in list(module.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is nn.Conv3d:
                chunked = ChannelChunkConv3D(
                    conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                    conv.groups, conv.bias is not None, conv.padding_mode, device="meta", numel_limit=numel_limit,
                )  # fmt: skip
                chunked.weight, chunked.bias = conv.weight, conv.bias
                setattr(parent, name, chunked.train(conv.training))
    return module


def check_limit(limit: int) -> None:
    """Raises UserError for what cannot be a number of elements."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UserError(f"numel_limit is {limit!r}: expected a whole number of elements, at least 1")


def summable(part: Tensor) -> Tensor:
    """Half precision as float32, so that a sum of many loses nothing."""
    return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part


def side_by_side(sums: Iterable[Iterable[Tensor]], channels: int, keep_graph: bool) -> Tensor:
    """Sums of terms (B, c, ...), joined along the channels to (B, channels, ...).

    Without a graph every sum grows in its place in the result, so that beside it one term exists at a time.
    """
    if keep_graph:
        return torch.cat([_total(iter(terms)) for terms in sums], dim=1)
    whole, start = None, 0
    for terms in sums:
        place = None
        for term in _in_float32(iter(terms)):
            if place is not None:
                place += term
            elif term.shape[1] == channels:
                whole = place = term
            else:
                whole = _room(term, channels) if whole is None else whole
                place = whole[:, start : start + term.shape[1]]
                place.copy_(term)
            del term  # before the next one is made
        start += place.shape[1]
        del terms
    return whole


def _in_float32(terms: Iterator[Tensor]) -> Iterator[Tensor]:
    """The terms, or in half precision their total alone: its sum is kept in float32, which the result is not."""
    first = next(terms)
    if summable(first) is not first:
        yield _total(itertools.chain([first], terms))
        return
    yield first
    del first
    yield from terms


def _total(terms: Iterator[Tensor]) -> Tensor:
    total = next(terms)
    dtype = total.dtype
    for term in terms:
        total = summable(total).add_(term)
    return total.to(dtype)


def _room(like: Tensor, channels: int) -> Tensor:
    """An empty (B, channels, ...) in the layout of `like`."""
    last = like.ndim == 5 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last_3d)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    size = (len(like), channels, *like.shape[2:])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)
