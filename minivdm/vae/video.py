"""VideoAutoencoder: a 2D autoencoder for every frame, then a temporal one along the clip.

Open-Sora 1.2's `VideoAutoencoderPipeline`: frames go through the 2D VAE in micro-batches, the clip of their latents
through the temporal VAE whole or in pieces of `micro_frame_size` frames that know nothing of each other. Ours can do a
third thing: process piece after piece with the state of the convolutions carried over, which gives the result of the
whole clip in the memory of one piece (`encode_stream`, `decode_stream`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.pieces import FrameNoise, collect
from minivdm.vae.temporal import TemporalVAE
from minivdm.weights import read_config


class VideoAutoencoder(nn.Module):
    """Clips (B, 3, T, H, W) in [-1, 1] to latents z (B, C, T', h, w) and back.

        vae = VideoAutoencoder(AutoEncoder2D.from_pretrained(a), TemporalVAE.from_pretrained(b), micro_batch_size=4)
        z = vae.encode(video)                          # (1, 3, 17, 32, 32) -> (1, 4, 5, 8, 8)
        video = vae.decode(z, num_frames=17)
        for frames in vae.decode_stream(z.split(1, dim=2), num_frames=17):
            show(frames)                               # (1, 3, 1, 32, 32), then (1, 3, 4, 32, 32), ...

    A picture is a clip of one frame; (B, 3, H, W) is accepted as such.

    Args:
        vae2d: the autoencoder of single frames.
        temporal: the one along the clip; without one T' is T.
        micro_frame_size: the temporal VAE takes a clip in pieces of so many frames, each on its own; None: in one.
        micro_batch_size: how many frames the 2D VAE takes at a time; None: all. It changes memory, not results.
        shift, scale: z = (latent - shift) / scale; a number, or one per channel.
        freeze_2d: keep the weights of the 2D VAE from training.
    """

    def __init__(
        self,
        vae2d: AutoEncoder2D,
        temporal: TemporalVAE | None = None,
        micro_frame_size: int | None = None,
        micro_batch_size: int | None = None,
        shift: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
        freeze_2d: bool = True,
    ):
        super().__init__()
        for name, size in (("micro_frame_size", micro_frame_size), ("micro_batch_size", micro_batch_size)):
            if size is not None and size < 1:
                raise UserError(f"{name} is {size}: expected None or a number from 1 on")
        if temporal is not None and temporal.config.in_out_channels != vae2d.config.z_channels:
            raise UserError(
                f"the temporal VAE takes latents of {temporal.config.in_out_channels} channels, "
                f"but those of the 2D VAE have {vae2d.config.z_channels}: choose two that belong together"
            )
        self.vae2d, self.temporal = vae2d, temporal
        self.micro_frame_size, self.micro_batch_size = micro_frame_size, micro_batch_size
        self.freeze_2d = freeze_2d
        if freeze_2d:
            vae2d.requires_grad_(False)
        self.channels = vae2d.config.z_channels if temporal is None else temporal.config.embed_dim
        self.register_buffer("shift", _per_channel("shift", shift, self.channels))
        self.register_buffer("scale", _per_channel("scale", scale, self.channels))

    @property
    def last_layer(self) -> Tensor:
        """The last convolution that trains, where the adaptive weight of an adversarial loss is measured."""
        return self.temporal.last_layer if self.freeze_2d and self.temporal is not None else self.vae2d.last_layer

    def get_latent_size(self, size: Sequence[int | None]) -> tuple[int | None, ...]:
        """(T, H, W) of a clip -> (T', h, w) of its latent; None stays None."""
        frames, *sides = size
        if frames is not None and frames < 1:
            raise UserError(f"a clip of {frames} frames: expected at least 1")
        if self.temporal is not None and frames is not None:
            frames = sum(self.temporal.get_latent_size((length, None, None))[0] for length in self._lengths(frames))
        return (frames, *self.vae2d.get_latent_size(sides))

    def encode(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        sample_frames: bool = False,
        noise_frames: Tensor | None = None,
        return_posterior: bool = False,
    ) -> Tensor | tuple[Tensor, DiagonalGaussianDistribution]:
        """A clip (B, 3, T, H, W) or pictures (B, 3, H, W), in [-1, 1] -> z (B, channels, T', h, w).

        sample: draw z from the posterior, or take its mean.
        noise: what to draw with, shaped like z; else it comes from `generator`, frame after frame.
        sample_frames: draw the 2D latents too, as upstream does, with `noise_frames` (B, z_channels, T, h, w). The mean
            is the better input: what is drawn here is noise that the temporal VAE can only keep.
        return_posterior: return (z, posterior), the posterior of the latent before shift and scale.
        """
        if x.ndim == 4:
            x = rearrange(x, "b c h w -> b c 1 h w")
        if x.ndim != 5:
            raise UserError(f"clip of shape {tuple(x.shape)}: expected (B, 3, T, H, W), or pictures (B, 3, H, W)")
        self.get_latent_size(x.shape[2:])
        draw, draw_frames = FrameNoise(noise, generator), FrameNoise(noise_frames, generator)
        if self.temporal is None:
            latents, posterior = self._encode_frames(x, draw if sample else None)
        else:
            frames = self._encode_frames(x, draw_frames if sample_frames else None)[0]
            pieces = frames.split(self._lengths(frames.shape[2]), dim=2)
            moments = [self.temporal.encode(piece, sample=False, return_posterior=True)[1].moments for piece in pieces]
            posterior = DiagonalGaussianDistribution(torch.cat(moments, dim=2))
            latents = posterior.sample(draw(posterior.mean)) if sample else posterior.mode()
        z = (latents - self.shift) / self.scale
        return (z, posterior) if return_posterior else z

    def decode(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """z (B, channels, T', h, w) -> the clip (B, 3, num_frames, H, W), about in [-1, 1] (not clamped).

        num_frames: how many frames were encoded. T' does not tell: 17, 18, 19 and 20 frames all become 5.
        """
        if z.ndim != 5 or z.shape[1] != self.channels:
            raise UserError(f"latent of shape {tuple(z.shape)}: expected (B, {self.channels}, T', h, w)")
        self._check_frames(num_frames, z.shape[2])
        latents = z * self.scale + self.shift
        if self.temporal is not None:
            latents = torch.cat(list(self.decode_pieces([latents], num_frames)), dim=2)
        return self._decode_frames(latents)

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, DiagonalGaussianDistribution, Tensor]:
        """There and back: (reconstruction, posterior, z). Arguments as in `encode`."""
        z, posterior = self.encode(x, sample=sample, noise=noise, generator=generator, return_posterior=True)
        return self.decode(z, num_frames=x.shape[2] if x.ndim == 5 else 1), posterior, z

    def encode_stream(
        self,
        pieces: Iterable[Tensor],
        num_frames: int | None = None,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """`encode` of a clip that arrives in pieces (B, 3, t, H, W) of any lengths; yields pieces of z.

        Equal to `encode` of the whole, also in what `generator` draws, in the memory of one piece.

        num_frames: how many frames will come in all, since the temporal VAE wants the padding in front. If it is None,
            a list of pieces is counted. noise is for the whole z.
        """
        if num_frames is None:
            if not isinstance(pieces, Sequence):
                raise UserError("encode_stream needs num_frames, the length of the clip, or a list of its pieces")
            num_frames = sum(piece.shape[2] for piece in pieces)
        draw = FrameNoise(noise, generator) if sample else None
        if self.temporal is None:
            stream = (self._encode_frames(piece, draw)[0] for piece in collect(pieces, num_frames))
        else:
            frames = (self._encode_frames(piece)[0] for piece in pieces)
            if self.micro_frame_size is None:
                options = {"sample": sample, "noise": noise, "generator": generator}
                stream = self.temporal.encode_stream(frames, num_frames, **options)
            else:
                stream = self._encode_pieces(frames, num_frames, draw)
        for latents in stream:
            yield (latents - self.shift) / self.scale

    def decode_stream(self, pieces: Iterable[Tensor], num_frames: int) -> Iterator[Tensor]:
        """`decode` of a z that arrives in pieces (B, channels, t, h, w); yields frames as soon as they are known.

        Equal to `decode` of the whole, in the memory of one piece; pieces of one latent frame take the least.
        """
        self._check_frames(num_frames)
        latents = (piece * self.scale + self.shift for piece in pieces)
        if self.temporal is None:
            frames = collect(latents, num_frames, what="latent frames")
        elif self.micro_frame_size is None:
            frames = self.temporal.decode_stream(latents, num_frames)
        else:
            frames = self.decode_pieces(latents, num_frames)
        for piece in frames:
            yield self._decode_frames(piece)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `vae2d/` and `temporal/`, each with config.json and safetensors, and config.json of the whole."""
        folder = Path(folder)
        self.vae2d.save_pretrained(folder / "vae2d")
        if self.temporal is not None:
            self.temporal.save_pretrained(folder / "temporal")
        settings = {"temporal": self.temporal is not None, "freeze_2d": self.freeze_2d}
        settings |= {"micro_frame_size": self.micro_frame_size, "micro_batch_size": self.micro_batch_size}
        settings |= {name: getattr(self, name).flatten().tolist() for name in ("shift", "scale")}
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **settings) -> "VideoAutoencoder":
        """Read what `save_pretrained` wrote, in eval mode; `settings` replace single arguments of the class."""
        saved = read_config(folder)
        if "temporal" not in saved:
            raise UserError(
                f"{folder}/config.json is not that of a VideoAutoencoder: expected the folder of a saved one"
            )
        vae2d = AutoEncoder2D.from_pretrained(Path(folder) / "vae2d")
        temporal = TemporalVAE.from_pretrained(Path(folder) / "temporal") if saved.pop("temporal") else None
        return cls(vae2d, temporal, **saved | settings).eval()

    def _encode_frames(self, x: Tensor, draw: FrameNoise | None = None) -> tuple[Tensor, DiagonalGaussianDistribution]:
        """Every frame through the 2D VAE, a micro-batch at a time: 2D latents (B, C, T, h, w) and their posterior."""
        batch, _, frames, *size = x.shape
        noise = None
        if draw is not None:
            shape = (batch, self.vae2d.config.z_channels, frames, *self.vae2d.get_latent_size(size))
            noise = rearrange(draw(x.new_empty(shape)), "b c t h w -> (b t) c h w")
        latents, moments = [], []
        pictures = rearrange(x, "b c t h w -> (b t) c h w")
        for here in self._micro_batches(len(pictures)):
            z, posterior = self.vae2d.encode(
                pictures[here],
                sample=noise is not None,
                noise=None if noise is None else noise[here],
                return_posterior=True,
            )
            latents.append(z)
            moments.append(posterior.moments)
        latents, moments = (
            rearrange(torch.cat(parts), "(b t) c h w -> b c t h w", b=batch) for parts in (latents, moments)
        )
        return latents, DiagonalGaussianDistribution(moments)

    def _decode_frames(self, latents: Tensor) -> Tensor:
        pictures = rearrange(latents, "b c t h w -> (b t) c h w")
        decoded = [self.vae2d.decode(pictures[here]) for here in self._micro_batches(len(pictures))]
        return rearrange(torch.cat(decoded), "(b t) c h w -> b c t h w", b=len(latents))

    def _encode_pieces(self, frames: Iterable[Tensor], num_frames: int, draw: FrameNoise | None) -> Iterator[Tensor]:
        """Pieces of micro_frame_size frames, each on its own."""
        size = self.micro_frame_size
        for several in collect(frames, num_frames, first=size, then=size):
            for piece in several.split(size, dim=2):
                posterior = self.temporal.encode(piece, sample=False, return_posterior=True)[1]
                yield posterior.mode() if draw is None else posterior.sample(draw(posterior.mean))

    def decode_pieces(self, latents: Iterable[Tensor], num_frames: int) -> Iterator[Tensor]:
        lengths = self._lengths(num_frames)
        sizes = [self.temporal.get_latent_size((length, None, None))[0] for length in lengths]
        done = 0
        for several in collect(latents, sum(sizes), first=sizes[0], then=sizes[0], what="latent frames"):
            for piece in several.split(sizes[0], dim=2):
                yield self.temporal.decode(piece, num_frames=lengths[done])
                done += 1

    def _lengths(self, num_frames: int) -> list[int]:
        """Lengths of the pieces that the temporal VAE takes a clip in."""
        size = self.micro_frame_size or num_frames
        return [min(size, num_frames - start) for start in range(0, num_frames, size)]

    def _micro_batches(self, count: int) -> list[slice]:
        size = self.micro_batch_size or count
        return [slice(start, start + size) for start in range(0, count, size)]

    def _check_frames(self, num_frames: int | None, found: int | None = None) -> None:
        """Does a clip of num_frames have `found` latent frames?"""
        if num_frames is None:
            raise UserError("decode needs num_frames, the length of the clip that was encoded")
        expected = self.get_latent_size((num_frames, None, None))[0]
        if found not in (None, expected):
            raise UserError(
                f"num_frames {num_frames} belongs to {expected} latent frames, but there are {found}: "
                "expected the length of the clip that was encoded"
            )


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> Tensor:
    values = torch.as_tensor(value, dtype=torch.float32).flatten()
    if len(values) not in (1, channels):
        raise UserError(f"{name} has {len(values)} values: expected one number, or one for each of {channels} channels")
    if name == "scale" and not values.all():
        raise UserError("scale has a 0, which cannot be divided by: expected the standard deviations of the latent")
    return rearrange(values.expand(channels).clone(), "c -> 1 c 1 1 1")
