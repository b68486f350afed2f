"""Clips in pieces: how many latent frames a clip has, noise that does not depend on the pieces, and cutting anew."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from minivdm.errors import UserError


def latent_frames(num_frames: int, factor: int) -> int:
    """Frames of the latent of a clip that is shortened `factor` times: ceil(num_frames / factor)."""
    if num_frames < 1:
        raise UserError(f"num_frames is {num_frames}: a clip has at least 1 frame")
    return -(-num_frames // factor)


class FrameNoise:
    """Hands out the noise for one stretch of frames after another: cut from a given one, or drawn.

    noise (B, C, T, H, W) for the whole clip, or None to draw it from `generator`, frame after frame: so the first
    frames of a long clip get the same noise as a short clip, and as a piece of the long one.
    """

    def __init__(self, noise: Tensor | None = None, generator: torch.Generator | None = None):
        self.noise, self.generator, self.done = noise, generator, 0

    def __call__(self, like: Tensor) -> Tensor:
        """The noise for the next frames, shaped like them: (B, C, t, H, W)."""
        batch, channels, frames, *size = like.shape
        start, self.done = self.done, self.done + frames
        if self.noise is not None:
            return self.noise[:, :, start : self.done]
        device = like.device if self.generator is None else self.generator.device
        shape = (batch, channels, *size)
        drawn = [torch.randn(shape, generator=self.generator, device=device) for _ in range(frames)]
        return torch.stack(drawn, dim=2).to(like)


def collect(
    pieces: Iterable[Tensor], total: int, first: int = 1, then: int = 1, what: str = "frames"
) -> Iterator[Tensor]:
    """Hand on the frames of a stream in pieces of other lengths: `first + then · n`, later `then · n` frames, n >= 0.

    pieces (B, C, t, H, W); whatever has arrived is handed on as soon as it fills a length that is allowed. Frames left
    over wait for the next piece, or come last. Raises UserError when more or fewer than `total` frames come.
    """
    waiting, seen, least = None, 0, first
    for piece in pieces:
        if piece.ndim != 5:
            raise UserError(f"a piece of shape {tuple(piece.shape)}: expected (B, C, {what}, H, W)")
        seen += piece.shape[2]
        if seen > total:
            raise UserError(f"the stream has {seen} {what} or more: expected {total}, as num_frames says")
        waiting = piece if waiting is None else torch.cat([waiting, piece], dim=2)
        ready = waiting.shape[2]
        if ready >= least:
            ready -= (ready - least) % then
            yield waiting[:, :, :ready]
            waiting, least = waiting[:, :, ready:], then
    if seen < total:
        raise UserError(f"the stream ended after {seen} {what}: expected {total}, as num_frames says")
    if waiting.shape[2]:
        yield waiting
