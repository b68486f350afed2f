"""CausalConv3d: a convolution in space and time that never looks ahead, and can be fed a clip in pieces.

All padding of the time axis goes in front, so that output frame t is made of input frames up to t. (MAGVIT-v2, Yu et
al. 2023, section 3.1; Open-Sora 1.2, `vae_temporal.py`, which this follows number by number.)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError

# What each convolution of a network remembers of the frames it has seen, while a clip streams through: its last few
# inputs, (B, C, time_pad, H, W). Start every clip with an empty one.
Tails = dict[nn.Module, Tensor]

# PyTorch leaves 3D convolutions in fp32 on a CPU to its slow kernel up to this many batch × channels × frames × rows.
SLOW_IN_3D = 20_480


def pad_at_dim(x: Tensor, pad: tuple[int, int], dim: int = -1, mode: str = "constant") -> Tensor:
    """Pad one axis of x: `pad` = (before, after) elements; negative numbers cut. mode as in `F.pad`."""
    axes_after = x.ndim - 1 - dim % x.ndim
    if mode != "constant":  # `F.pad` repeats or mirrors the last three axes of five, and wants all three named
        return F.pad(x, [*(0, 0) * axes_after, *pad, *(0, 0) * (x.ndim - 3 - axes_after)], mode=mode)
    return F.pad(x, (*(0, 0) * axes_after, *pad))


class CausalConv3d(nn.Module):
    """A 3D convolution whose output frame t depends on input frames 0..t only.

        conv = CausalConv3d(4, 8, 3)
        y = conv(x)                                  # (B, 4, T, H, W) -> (B, 8, T, H, W)
        tails = {}
        y = torch.cat([conv(piece, tails) for piece in x.split(5, dim=2)], dim=2)      # the same

    Args:
        chan_in, chan_out: channels.
        kernel_size: a number, or (time, height, width); height and width must be odd.
        pad_mode: what stands round the clip: "constant" (zeros), "replicate" or "reflect".
        strides: all three strides (time, height, width); `stride` alone sets that of time.
        dilation: of time only.
        bias: whether there is one.

    Height and width are padded by half the kernel on both sides. Time is padded by `dilation · (k - 1) + 1 - stride`
    frames, all in front: T frames become T // stride. (With stride 2 an even number is halved exactly; the last frame
    of an odd number would have no partner, and is ignored.)
    """

    def __init__(
        self,
        chan_in: int,
        chan_out: int,
        kernel_size: int | Sequence[int],
        pad_mode: str = "constant",
        strides: Sequence[int] | None = None,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else tuple(kernel_size)
        k_time, k_height, k_width = kernel
        assert k_height % 2 and k_width % 2, (
            f"kernel {kernel}: height and width must be odd, so that both sides are padded alike"
        )
        strides = (stride, 1, 1) if strides is None else tuple(strides)
        self.stride = strides[0]
        self.pad_mode = pad_mode
        self.time_pad = dilation * (k_time - 1) + 1 - self.stride
        self.conv = nn.Conv3d(
            chan_in,
            chan_out,
            kernel,
            stride=strides,
            dilation=(dilation, 1, 1),
            padding=(0, k_height // 2, k_width // 2),
            padding_mode="zeros" if pad_mode == "constant" else pad_mode,
            bias=bias,
        )

    def forward(self, x: Tensor, tails: Tails | None = None) -> Tensor:
        """x (B, C, T, H, W) -> (B, chan_out, T // stride, H', W').

        tails: None if x is a whole clip. Else x is the next piece of a clip, of any number of frames that `stride`
        divides, and `tails` is where this convolution finds the frames before it and leaves those after it.
        """
        if tails is not None and x.shape[2] % self.stride:
            raise UserError(f"a piece of {x.shape[2]} frames: send a multiple of {self.stride}, the stride in time")
        if tails is not None and self in tails:
            x = torch.cat([tails[self], x], dim=2)
        elif self.time_pad:
            x = pad_at_dim(x, (self.time_pad, 0), dim=2, mode=self.pad_mode)
        if tails is not None and self.time_pad > 0:
            # a copy: a view would keep the whole piece in memory
            tails[self] = x[:, :, x.shape[2] - self.time_pad :].clone()
        small = x.device.type == "cpu" and x.shape[:4].numel() <= SLOW_IN_3D and self.pad_mode == "constant"
        own = type(self.conv) is nn.Conv3d  # and not one in pieces that was put in its place
        return self._in_2d(x) if small and own else self.conv(x)

    def _in_2d(self, x: Tensor) -> Tensor:
        """`self.conv(x)`, as one 2D convolution: the frames under the kernel stand side by side as channels."""
        kernel, step = self.conv.kernel_size[0], self.conv.dilation[0]
        frames = x.shape[2] - step * (kernel - 1)
        under = [x[:, :, tap * step : tap * step + frames : self.stride] for tap in range(kernel)]
        folded = rearrange(under, "k b c t h w -> (b t) (c k) h w")
        weight = rearrange(self.conv.weight, "o c k h w -> o (c k) h w")
        out = F.conv2d(folded, weight, self.conv.bias, self.conv.stride[1:], self.conv.padding[1:])
        return rearrange(out, "(b t) c h w -> b c t h w", b=len(x))
