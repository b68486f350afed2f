"""TemporalVAE: the second stage, which shortens a clip of 2D latents in time.

Open-Sora 1.2's `VAE_Temporal`, with the names of its layers, so that its published weights load as they are. One thing
differs by default: upstream's GroupNorm takes its statistics over all frames of a clip, and so lets the future leak
into a network of causal convolutions. `norm="frame"` normalises every frame alone; then nothing looks ahead, and a clip
can be encoded and decoded piece by piece, in the memory of one piece. `norm="group"` is upstream's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.causal_conv import CausalConv3d, Tails, pad_at_dim
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.pieces import collect, frame_noise, latent_frames
from minivdm.vae.weights import SafeHubMixin


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


class TemporalVAE(nn.Module, SafeHubMixin):
    """A causal variational autoencoder of clips of 2D latents, which shortens them in time.

        vae = TemporalVAE(filters=32, channel_multipliers=(1, 1, 1), temporal_downsample=(True, True), num_groups=8)
        z = vae.encode(latents)                # (B, 4, 17, h, w) -> (B, 4, 5, h, w)
        latents = vae.decode(z, num_frames=17)

    A clip whose length the factor does not divide gets frames of zeros in front, and loses them again when it is
    decoded. One frame is a picture; 17 frames are 1 + 4·4, where the first latent frame holds the first frame alone.

    Args:
        config: a `TemporalVAEConfig`, or a dict of its fields; `fields` given by name replace single ones.

    `save_pretrained(folder)` and `TemporalVAE.from_pretrained(folder)` write and read `config.json` and safetensors.
    """

    def __init__(self, config: TemporalVAEConfig | dict | None = None, **fields):
        super().__init__()
        self.config = _config(config, fields)
        self._hub_mixin_config = asdict(self.config)
        self.time_downsample_factor = 2 ** sum(self.config.temporal_downsample)
        self.patch_size = (self.time_downsample_factor, 1, 1)
        latent, embed = self.config.latent_embed_dim, self.config.embed_dim
        self.encoder = Encoder(self.config)
        self.quant_conv = CausalConv3d(2 * latent, 2 * embed, 1)
        self.post_quant_conv = CausalConv3d(embed, latent, 1)
        self.decoder = Decoder(self.config)

    @property
    def last_layer(self) -> Tensor:
        """The decoder's last convolution, where the adaptive weight of an adversarial loss is measured."""
        return self.decoder.conv_out.conv.weight

    @property
    def streams(self) -> bool:
        """Whether a clip can be processed piece by piece: nothing looks ahead."""
        return self.config.norm == "frame"

    def get_latent_size(self, size: Sequence[int | None]) -> tuple[int | None, ...]:
        """(T, h, w) of a clip of 2D latents -> that of its latent; None stays None."""
        frames, *sides = size
        return (frames if frames is None else latent_frames(frames, self.time_downsample_factor), *sides)

    def encode(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_posterior: bool = False,
    ) -> Tensor | tuple[Tensor, DiagonalGaussianDistribution]:
        """A clip of 2D latents (B, in_out_channels, T, h, w) -> z (B, embed_dim, ceil(T / f), h, w).

        sample: draw z from the posterior, or take its mean.
        noise: what to draw with, shaped like z; else it comes from `generator`, frame after frame.
        return_posterior: return (z, posterior).
        """
        self._check(x, self.config.in_out_channels, "clip")
        posterior = self._posterior(pad_at_dim(x, (self._front(x.shape[2]), 0), dim=2))
        z = _draw(posterior, noise, generator) if sample else posterior.mode()
        return (z, posterior) if return_posterior else z

    def decode(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """z (B, embed_dim, T', h, w) -> a clip of 2D latents (B, in_out_channels, num_frames, h, w).

        num_frames: how many frames were encoded. T' does not tell: 17, 18, 19 and 20 frames all become 5.
        """
        self._check(z, self.config.embed_dim, "latent")
        self._check_frames(num_frames, z.shape[2])
        x = self.decoder(self.post_quant_conv(z))
        return x[:, :, self._front(num_frames) :]

    def forward(
        self,
        x: Tensor,
        sample_posterior: bool = True,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, DiagonalGaussianDistribution, Tensor]:
        """There and back: (reconstruction, posterior, z). Arguments as in `encode`."""
        z, posterior = self.encode(x, sample=sample_posterior, noise=noise, generator=generator, return_posterior=True)
        return self.decode(z, num_frames=x.shape[2]), posterior, z

    def encode_stream(
        self,
        pieces: Iterable[Tensor],
        num_frames: int,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """`encode` of a clip that arrives in pieces (B, in_out_channels, t, h, w) of any lengths t; yields pieces of z.

        num_frames: how many frames will come in all; the zeros in front depend on it. noise is for the whole z.
        """
        self._check_streams()
        factor, tails, front, done = self.time_downsample_factor, Tails(), self._front(num_frames), 0
        for x in collect(pieces, num_frames, first=factor - front, then=factor):
            self._check(x, self.config.in_out_channels, "clip")
            posterior = self._posterior(pad_at_dim(x, (front if done == 0 else 0, 0), dim=2), tails)
            here = slice(done, done + posterior.mean.shape[2])
            done = here.stop
            yield (
                _draw(posterior, noise if noise is None else noise[:, :, here], generator)
                if sample
                else posterior.mode()
            )

    def decode_stream(self, pieces: Iterable[Tensor], num_frames: int) -> Iterator[Tensor]:
        """`decode` of a z that arrives in pieces (B, embed_dim, t, h, w); yields frames as soon as they are known."""
        self._check_streams()
        self._check_frames(num_frames)
        tails, front, done = Tails(), self._front(num_frames), 0
        total = latent_frames(num_frames, self.time_downsample_factor)
        for z in collect(pieces, total, what="latent frames"):
            self._check(z, self.config.embed_dim, "latent")
            x = self.decoder(self.post_quant_conv(z), tails)
            yield x[:, :, front if done == 0 else 0 :]
            done += z.shape[2]

    def _posterior(self, x: Tensor, tails: Tails | None = None) -> DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(x, tails)))

    def _front(self, num_frames: int) -> int:
        """Frames of zeros in front of a clip."""
        return -num_frames % self.time_downsample_factor

    def _check(self, x: Tensor, channels: int, what: str) -> None:
        if x.ndim != 5 or x.shape[1] != channels or x.shape[2] == 0:
            raise UserError(f"{what} of shape {tuple(x.shape)}: expected (B, {channels}, T, h, w) with T from 1 on")

    def _check_frames(self, num_frames: int | None, found: int | None = None) -> None:
        factor = self.time_downsample_factor
        if num_frames is None:
            fits = "" if found is None else f": {(found - 1) * factor + 1} to {found * factor} would fit this latent"
            raise UserError(f"decode needs num_frames, the length of the clip that was encoded{fits}")
        expected = latent_frames(num_frames, factor)
        if found is not None and expected != found:
            raise UserError(
                f"num_frames {num_frames} belongs to {expected} latent frames, but there are {found}: "
                f"expected a num_frames from {(found - 1) * factor + 1} to {found * factor}"
            )

    def _check_streams(self) -> None:
        if not self.streams:
            raise UserError("norm='group' looks at all frames of a clip at once and cannot stream: use norm='frame'")


def _draw(posterior: DiagonalGaussianDistribution, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
    return posterior.sample(frame_noise(posterior.mean, generator) if noise is None else noise)


def _config(config: TemporalVAEConfig | dict | None, given: dict) -> TemporalVAEConfig:
    values = asdict(config) if isinstance(config, TemporalVAEConfig) else dict(config or {})
    values |= given
    known = [field.name for field in fields(TemporalVAEConfig)]
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"TemporalVAEConfig has no {', '.join(unknown)}: known are {', '.join(known)}")
    return TemporalVAEConfig(**values)
