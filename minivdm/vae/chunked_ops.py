"""Padding, resizing and pooling a few channels at a time, for tensors past the reach of 32-bit kernels.

These act on every channel alone, so chunks of channels give exactly the whole result. Without gradients every chunk is
written into its place at once, and only one chunk exists beside the result.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minivdm.errors import UserError
from minivdm.vae.chunked_conv import CONV3D_NUMEL_LIMIT, ChannelChunkConv3D, check_limit, num_chunks, side_by_side

PAD_NUMEL_LIMIT = 2**30  # elements; padding makes two copies, so it is cut earlier than a convolution


def pad_for_conv3d(
    x: Tensor,
    width: int,
    height: int,
    time: int,
    *,
    numel_limit: int = PAD_NUMEL_LIMIT,
    compile: bool = False,
) -> Tensor:
    """Zeros around the picture, then the first and the last frame repeated.

    Args:
        x: (B, C, T, H, W).
        width, height, time: how much is added on *each* side. Both ends of time, so this padding is not causal.
        numel_limit: channels are padded in chunks whose results have at most so many elements.
        compile: fuse both paddings with `torch.compile` (it takes a while the first time, and needs a C++ compiler).

    Returns (B, C, T + 2·time, H + 2·height, W + 2·width).
    """
    pad = _compiled_pad() if compile else _pad
    result = x.shape[:2].numel() * (x.shape[2] + 2 * time) * (x.shape[3] + 2 * height) * (x.shape[4] + 2 * width)
    return _over_channels(lambda part: pad(part, width, height, time), x, result, numel_limit)


def pad_for_conv3d_kernel_3x3x3(x: Tensor, *, numel_limit: int = PAD_NUMEL_LIMIT, compile: bool = False) -> Tensor:
    """One pixel of zeros around, one frame repeated at both ends: (B, C, T, H, W) -> (B, C, T + 2, H + 2, W + 2)."""
    return pad_for_conv3d(x, 1, 1, 1, numel_limit=numel_limit, compile=compile)


class PadConv3D(nn.Module):
    """`pad_for_conv3d` by half the kernel, then a convolution without padding, both in chunks where they are too large.

    Keeps the size of the clip. `kernel_size` is odd, the same for time, height and width; UserError otherwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        bias: bool = True,
        numel_limit: int = CONV3D_NUMEL_LIMIT,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(f"kernel_size is {kernel_size}: an odd one is needed to pad both sides by the same")
        self.margin = kernel_size // 2
        self.conv = ChannelChunkConv3D(in_channels, out_channels, kernel_size, bias=bias, numel_limit=numel_limit)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, D, T, H, W)."""
        limit = min(self.conv.numel_limit, PAD_NUMEL_LIMIT)
        if self.margin:
            x = pad_for_conv3d(x, self.margin, self.margin, self.margin, numel_limit=limit)
        return self.conv(x)


def chunked_interpolate(
    x: Tensor, scale_factor: float | tuple[float, ...], mode: str = "nearest", *, numel_limit: int = CONV3D_NUMEL_LIMIT
) -> Tensor:
    """`F.interpolate` of (B, C, ...) in chunks of channels whose results have at most `numel_limit` elements."""
    factors = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * (x.ndim - 2)
    result = math.ceil(x.numel() * max(1.0, math.prod(factors)))
    resize = functools.partial(F.interpolate, scale_factor=scale_factor, mode=mode)
    return _over_channels(resize, x, result, numel_limit)


def chunked_avg_pool1d(
    x: Tensor, kernel_size: int, stride: int | None = None, *, numel_limit: int = CONV3D_NUMEL_LIMIT
) -> Tensor:
    """`F.avg_pool1d` of (B, C, L) in chunks of channels that have at most `numel_limit` elements."""
    return _over_channels(lambda part: F.avg_pool1d(part, kernel_size, stride), x, x.numel(), numel_limit)


def _pad(x: Tensor, width: int, height: int, time: int) -> Tensor:
    x = F.pad(x, (width, width, height, height))
    return F.pad(x, (0, 0, 0, 0, time, time), mode="replicate") if time else x


@functools.cache
def _compiled_pad() -> Callable[[Tensor, int, int, int], Tensor]:
    return torch.compile(_pad, mode="max-autotune-no-cudagraphs", dynamic=True)


def _over_channels(function: Callable[[Tensor], Tensor], x: Tensor, numel: int, limit: int) -> Tensor:
    """`function` of chunks of channels, so that `numel`, the larger of input and result, keeps to `limit` in each."""
    check_limit(limit)
    n = num_chunks(numel, x.shape[1], limit)
    keep_graph = torch.is_grad_enabled() and x.requires_grad
    return side_by_side(([function(part)] for part in x.chunk(n, dim=1)), x.shape[1], keep_graph)
