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


def frame_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise shaped like a clip (B, C, T, H, W), drawn frame after frame.

    So the first frames of a long clip get the same noise as a short clip, and as a piece of the long one.
    """
    device = like.device if generator is None else generator.device
    batch, channels, frames, *size = like.shape
    drawn = [torch.randn(batch, channels, *size, generator=generator, device=device) for _ in range(frames)]
    return torch.stack(drawn, dim=2).to(like)


def collect(
    pieces: Iterable[Tensor], total: int, first: int = 1, then: int = 1, what: str = "frames"
) -> Iterator[Tensor]:
    """Hand on the frames of a stream in pieces of other lengths: `first + then · n`, later `then · n` frames, n >= 0.

    pieces (B, C, t, H, W); whatever has arrived is handed on as soon as it fills a length that is allowed. Frames left
    over wait for the next piece. Raises UserError when more or fewer than `total` frames come.
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
