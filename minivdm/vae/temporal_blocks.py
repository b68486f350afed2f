"""The sizes and the layers of a `TemporalVAE`: norm, residual block, encoder, decoder.

Open-Sora 1.2's `vae_temporal.py`, with the names of its layers, so that its published weights load as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.causal_conv import CausalConv3d, Tails


@dataclass(frozen=True)
class TemporalVAEConfig:
    """Sizes of a `TemporalVAE`. The defaults are Open-Sora 1.2's class: 298 million parameters, 4× fewer frames.

    in_out_channels: channels of the 2D latents that go in and come out.
    latent_embed_dim, embed_dim: channels at the narrowest place, before and after `quant_conv`; z has embed_dim.
    filters, channel_multipliers: the widths of the levels are `filters · channel_multipliers[i]`.
    num_res_blocks: residual blocks per level, and once more in the middle.
    temporal_downsample: for each step from one level to the next, whether it halves the number of frames.
    num_groups: groups of every normalisation; must divide every width.
    norm: "frame" takes statistics of each frame alone, "group" of the whole clip.
    shortcut: a linear map past the encoder and one past the decoder, so that these have only to learn what a linear map
        cannot do (Chen et al. 2024, DC-AE). A small VAE without it stays below what a matrix can do.
    """

    in_out_channels: int = 4
    latent_embed_dim: int = 4
    embed_dim: int = 4
    filters: int = 128
    num_res_blocks: int = 4
    channel_multipliers: Sequence[int] = (1, 2, 2, 4)
    temporal_downsample: Sequence[bool] = (True, True, False)
    num_groups: int = 32
    norm: Literal["frame", "group"] = "frame"
    shortcut: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        object.__setattr__(self, "temporal_downsample", tuple(bool(down) for down in self.temporal_downsample))
        names = ("in_out_channels", "latent_embed_dim", "embed_dim", "filters", "num_res_blocks", "num_groups")
        multipliers = [("every channel_multipliers", value) for value in self.channel_multipliers]
        for name, value in [*((name, getattr(self, name)) for name in names), *multipliers]:
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}: expected a whole number from 1 on")
        levels, steps = len(self.channel_multipliers), len(self.temporal_downsample)
        if steps != levels - 1:
            raise UserError(
                f"temporal_downsample has {steps} entries for the {levels} levels of channel_multipliers: "
                f"expected {levels - 1}, one for each step from a level to the next"
            )
        for width in self.widths:
            if width % self.num_groups:
                raise UserError(f"num_groups {self.num_groups} does not divide a level's width of {width} channels")
        if self.norm not in ("frame", "group"):
            raise UserError(f"norm is {self.norm!r}: expected 'frame' or 'group'")

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.filters * multiplier for multiplier in self.channel_multipliers]


# The one whose weights Open-Sora 1.2 published: 310 million parameters.
VAE_TEMPORAL_SD = TemporalVAEConfig(temporal_downsample=(False, True, True), norm="group")


class Norm(nn.GroupNorm):
    """GroupNorm and SiLU, (B, C, T, H, W) -> the same; over each frame alone, or over all of them."""

    def __init__(self, config: TemporalVAEConfig, channels: int):
        super().__init__(config.num_groups, channels)
        self.each_frame = config.norm == "frame"

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        if self.each_frame:
            x = rearrange(x, "b c t h w -> (b t) c h w")
        x = F.silu(super().forward(x), inplace=not torch.is_grad_enabled())
        return rearrange(x, "(b t) c h w -> b c t h w", b=batch) if self.each_frame else x


class ResBlock(nn.Module):
    """Twice norm, SiLU and causal convolution, added to the input: (B, C_in, T, H, W) -> (B, C_out, T, H, W)."""

    def __init__(self, config: TemporalVAEConfig, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = Norm(config, channels_in)
        self.conv1 = CausalConv3d(channels_in, channels_out, 3, bias=False)
        self.norm2 = Norm(config, channels_out)
        self.conv2 = CausalConv3d(channels_out, channels_out, 3, bias=False)
        # the way round needs weights only where the width changes
        self.conv3 = CausalConv3d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor, tails: Tails | None = None) -> Tensor:
        h = self.conv1(self.norm1(x), tails)
        h = self.conv2(self.norm2(h), tails)
        return h + (x if self.conv3 is None else self.conv3(x))


class Chain(nn.ModuleList):
    """Residual blocks one after the other."""

    def __init__(self, config: TemporalVAEConfig, channels_in: int, channels_out: int):
        widths = [channels_in, *[channels_out] * config.num_res_blocks]
        super().__init__(ResBlock(config, *pair) for pair in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor, tails: Tails | None = None) -> Tensor:
        for block in self:
            x = block(x, tails)
        return x


class Encoder(nn.Module):
    """(B, in_out_channels, T, h, w) -> (B, 2·latent_embed_dim, T/f, h, w)."""

    def __init__(self, config: TemporalVAEConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = CausalConv3d(config.in_out_channels, config.filters, 3, bias=False)
        inputs = [config.filters, *widths]
        self.block_res_blocks = nn.ModuleList(Chain(config, *pair) for pair in zip(inputs, widths, strict=False))
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, strides=(2, 1, 1)) if down else nn.Identity()
            for width, down in zip(widths, config.temporal_downsample, strict=False)
        )
        self.res_blocks = Chain(config, widths[-1], widths[-1])
        self.norm1 = Norm(config, widths[-1])
        self.conv2 = CausalConv3d(widths[-1], 2 * config.latent_embed_dim, 1)

    def forward(self, x: Tensor, tails: Tails | None = None) -> Tensor:
        x = self.conv_in(x, tails)
        for i, blocks in enumerate(self.block_res_blocks):
            x = blocks(x, tails)
            if i < len(self.conv_blocks) and isinstance(self.conv_blocks[i], CausalConv3d):
                x = self.conv_blocks[i](x, tails)
        return self.conv2(self.norm1(self.res_blocks(x, tails)))


class Decoder(nn.Module):
    """(B, latent_embed_dim, T/f, h, w) -> (B, in_out_channels, T, h, w): the encoder turned round."""

    def __init__(self, config: TemporalVAEConfig):
        super().__init__()
        widths = config.widths
        self.conv1 = CausalConv3d(config.latent_embed_dim, widths[-1], 3)
        self.res_blocks = Chain(config, widths[-1], widths[-1])
        inputs = [*widths[1:], widths[-1]]
        self.block_res_blocks = nn.ModuleList(Chain(config, *pair) for pair in zip(inputs, widths, strict=True))
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3) if down else nn.Identity()
            for width, down in zip(widths[1:], config.temporal_downsample, strict=True)
        )
        self.norm1 = Norm(config, widths[0])
        self.conv_out = CausalConv3d(widths[0], config.in_out_channels, 3)

    def forward(self, z: Tensor, tails: Tails | None = None) -> Tensor:
        x = self.res_blocks(self.conv1(z, tails), tails)
        for i in reversed(range(len(self.block_res_blocks))):
            x = self.block_res_blocks[i](x, tails)
            if i > 0 and isinstance(self.conv_blocks[i - 1], CausalConv3d):
                x = depth_to_time(self.conv_blocks[i - 1](x, tails), 2)
        return self.conv_out(self.norm1(x), tails)


def depth_to_time(x: Tensor, factor: int) -> Tensor:
    """(B, C·factor, T, H, W) -> (B, C, T·factor, H, W): neighbouring channels become neighbouring frames."""
    return rearrange(x, "b (c f) t h w -> b c (t f) h w", f=factor)
