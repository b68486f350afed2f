"""A critic that gives one score to a whole film (after StyleGAN 2's; Open-Sora 1.2's `StyleGANDiscriminatorBlur`).

It shrinks by blurring first (Zhang 2019): taking every second pixel of a sparkling sky keeps or loses a star by luck,
and a critic that flickers when a film moves by one pixel is a poor teacher.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.discriminator import LEAK


class BlurPool3D(nn.Module):
    """Blur along all three axes, then keep every second value: (B, C, T, H, W), each axis halved and rounded up.

    size: of the filter, a row of binomial coefficients along each axis. The borders are reflected.
    """

    def __init__(self, channels: int, size: int = 3):
        super().__init__()
        row = torch.tensor([math.comb(size - 1, k) for k in range(size)], dtype=torch.float32)
        cube = torch.einsum("t,h,w->thw", row, row, row)
        self.register_buffer("filt", (cube / cube.sum()).expand(channels, 1, -1, -1, -1).clone())
        self.padding = ((size - 1) // 2, size // 2) * 3

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(F.pad(x, self.padding, mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class DownBlock(nn.Module):
    """Two convolutions with a blur between them, beside a blurred shortcut; their sum is divided by sqrt(2).

    (B, C, T, H, W) -> (B, out_channels, T/2, H/2, W/2), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, num_groups: int):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, in_channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(num_groups, in_channels)
        self.blur = BlurPool3D(in_channels)
        self.conv2 = nn.Conv3d(in_channels, out_channels, 1, bias=False)  # of the shortcut
        self.conv3 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        main = self.blur(F.leaky_relu(self.norm1(self.conv1(x)), LEAK))
        main = F.leaky_relu(self.norm2(self.conv3(main)), LEAK)
        return (self.conv2(self.blur(x)) + main) / math.sqrt(2)


class StyleDiscriminator3D(nn.Module):
    """(B, C, T, H, W) -> scores (B, 1).

    image_size (H, W) and num_frames are fixed, because the last layers see all that is left at once.
    filters, channel_multipliers: width of the stem, and of each block, which halves all three axes. num_groups: of
    every group norm.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (128, 128),
        num_frames: int = 17,
        in_channels: int = 3,
        filters: int = 128,
        channel_multipliers: Sequence[int] = (2, 4, 4, 4, 4),
        num_groups: int = 32,
    ):
        super().__init__()
        self.input_shape = (in_channels, num_frames, *image_size)
        self.conv1 = nn.Conv3d(in_channels, filters, 3, padding=1)
        widths = [filters, *(filters * times for times in channel_multipliers)]
        self.res_block_list = nn.ModuleList(
            DownBlock(before, after, num_groups) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.conv2 = nn.Conv3d(widths[-1], widths[-1], 3, padding=1)
        self.norm1 = nn.GroupNorm(num_groups, widths[-1])
        left = math.prod(-(-side // 2 ** len(channel_multipliers)) for side in (num_frames, *image_size))
        self.linear1 = nn.Linear(widths[-1] * left, widths[-1])
        self.linear2 = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.input_shape:
            raise UserError(f"this critic was built for films {('B', *self.input_shape)}, got {tuple(x.shape)}")
        x = F.leaky_relu(self.conv1(x), LEAK)
        for block in self.res_block_list:
            x = block(x)
        x = F.leaky_relu(self.norm1(self.conv2(x)), LEAK)
        return self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), LEAK))
