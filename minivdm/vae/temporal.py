"""TemporalVAE: the second stage, which shortens a clip of 2D latents in time.

Open-Sora 1.2's `VAE_Temporal`. One thing differs by default: upstream's GroupNorm takes its statistics over all frames
of a clip, and so lets the future leak into a network of causal convolutions. `norm="frame"` normalises every frame
alone; then nothing looks ahead, and a clip can be encoded and decoded piece by piece, in the memory of one piece.
`norm="group"` is upstream's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.causal_conv import CausalConv3d, Tails, pad_at_dim
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.pieces import FrameNoise, collect, latent_frames
from minivdm.vae.temporal_blocks import VAE_TEMPORAL_SD, Decoder, Encoder, TemporalVAEConfig, depth_to_time
from minivdm.weights import SafeHubMixin

__all__ = ["VAE_TEMPORAL_SD", "TemporalVAE", "TemporalVAEConfig", "depth_to_time"]


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
        if self.config.shortcut:
            joined = self.config.in_out_channels * self.time_downsample_factor
            self.shortcut_in, self.shortcut_out = nn.Conv3d(joined, embed, 1), nn.Conv3d(embed, joined, 1)
            nn.init.orthogonal_(self.shortcut_in.weight.data.flatten(1))
            self.shortcut_out.weight.data.copy_(self.shortcut_in.weight.data.transpose(0, 1))

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
        z = posterior.sample(FrameNoise(noise, generator)(posterior.mean)) if sample else posterior.mode()
        return (z, posterior) if return_posterior else z

    def decode(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """z (B, embed_dim, T', h, w) -> a clip of 2D latents (B, in_out_channels, num_frames, h, w).

        num_frames: how many frames were encoded. T' does not tell: 17, 18, 19 and 20 frames all become 5.
        """
        self._check(z, self.config.embed_dim, "latent")
        self._check_frames(num_frames, z.shape[2])
        return self._decoded(z)[:, :, self._front(num_frames) :]

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
        factor, front, tails = self.time_downsample_factor, self._front(num_frames), Tails()
        draw = FrameNoise(noise, generator)
        for x in collect(pieces, num_frames, first=factor - front, then=factor):
            self._check(x, self.config.in_out_channels, "clip")
            posterior = self._posterior(pad_at_dim(x, (0 if tails else front, 0), dim=2), tails)
            yield posterior.sample(draw(posterior.mean)) if sample else posterior.mode()

    def decode_stream(self, pieces: Iterable[Tensor], num_frames: int) -> Iterator[Tensor]:
        """`decode` of a z that arrives in pieces (B, embed_dim, t, h, w); yields frames as soon as they are known."""
        self._check_streams()
        self._check_frames(num_frames)
        tails, front = Tails(), self._front(num_frames)
        total = latent_frames(num_frames, self.time_downsample_factor)
        for z in collect(pieces, total, what="latent frames"):
            self._check(z, self.config.embed_dim, "latent")
            drop = 0 if tails else front
            yield self._decoded(z, tails)[:, :, drop:]

    def _posterior(self, x: Tensor, tails: Tails | None = None) -> DiagonalGaussianDistribution:
        moments = self.quant_conv(self.encoder(x, tails))
        if self.config.shortcut:
            mean, logvar = moments.chunk(2, dim=1)
            joined = rearrange(x, "b c (t f) h w -> b (c f) t h w", f=self.time_downsample_factor)
            moments = torch.cat([mean + self.shortcut_in(joined), logvar], dim=1)
        return DiagonalGaussianDistribution(moments)

    def _decoded(self, z: Tensor, tails: Tails | None = None) -> Tensor:
        x = self.decoder(self.post_quant_conv(z), tails)
        if self.config.shortcut:
            x = x + depth_to_time(self.shortcut_out(z), self.time_downsample_factor)
        return x

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


def _config(config: TemporalVAEConfig | dict | None, given: dict) -> TemporalVAEConfig:
    values = asdict(config) if isinstance(config, TemporalVAEConfig) else dict(config or {})
    values |= given
    known = [field.name for field in fields(TemporalVAEConfig)]
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"TemporalVAEConfig has no {', '.join(unknown)}: known are {', '.join(known)}")
    return TemporalVAEConfig(**values)
