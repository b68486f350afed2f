"""Latents as rows of tokens and back, and the sizes that Open-Sora 2.0 accepts.

A token is a square of patch x patch latent pixels through all channels. With the 2.0 VAE, which shrinks sides by 8, and
patches of 2 it covers 16 x 16 pixels of a frame: `PIXELS`. Sides are rounded up to whole tokens.
"""

import math
import re

import torch
from einops import rearrange, repeat
from torch import Tensor

from minivdm.errors import UserError

PIXELS = 16  # of a frame, along each side of a token
RATIOS = ("2.39:1", "2:1", "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3", "1:1")  # width:height


def pack(z: Tensor, patch: int = 2) -> Tensor:
    """Latents (B, C, T, h, w), sides divisible by `patch`, as tokens (B, N, C·patch²): frames, rows, columns."""
    return rearrange(z, "b c t (h p) (w q) -> b (t h w) (c p q)", p=patch, q=patch)


def unpack(tokens: Tensor, height: int, width: int, frames: int, patch: int = 2) -> Tensor:
    """Tokens (B, N, C·patch²) of `frames` latent frames of height x width *pixels* as latents (B, C, T, h, w)."""
    rows, columns = _tokens(height), _tokens(width)
    if tokens.shape[1] != frames * rows * columns:
        raise UserError(f"{tokens.shape[1]} tokens: expected {frames} frames of {rows} x {columns}")
    pattern = "b (t h w) (c p q) -> b c t (h p) (w q)"
    return rearrange(tokens, pattern, t=frames, h=rows, w=columns, p=patch, q=patch)


def token_positions(frames: int, rows: int, columns: int, batch: int = 1) -> Tensor:
    """(frame, row, column) of every token, (B, N, 3), in the order of `pack`. Tokens of a text are all at (0, 0, 0)."""
    grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (frames, rows, columns)), indexing="ij")
    return repeat(torch.stack(grid, dim=-1), "t h w a -> b (t h w) a", b=batch)


def start_noise(batch: int, channels: int, frames: int, height: int, width: int, seed: int, patch: int = 2) -> Tensor:
    """Noise (B, C, T, h, w) for `frames` latent frames of height x width pixels, the same on every machine."""
    shape = (batch, channels, frames, patch * _tokens(height), patch * _tokens(width))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole_size(height: int, width: int) -> tuple[int, int]:
    """Pixels rounded up to whole tokens, (height, width)."""
    return _tokens(height) * PIXELS, _tokens(width) * PIXELS


def pixel_count(resolution: str) -> int:
    """Pixels of a frame: "256px" are those of a square of 256, "360p" those of a 16:9 picture 360 high."""
    match = re.fullmatch(r"([1-9]\d*)(px|p)", resolution)
    if not match:
        raise UserError(f"resolution {resolution!r}: expected a name such as 256px or 360p")
    side = int(match[1])
    return side**2 if match[2] == "px" else side**2 * 16 // 9


def named_size(resolution: str, ratio: str = "16:9") -> tuple[int, int]:
    """(height, width) in whole tokens, at most as many pixels as `resolution` names, of a `ratio` width:height.

    `ratio` is one of `RATIOS` or the reverse of one. Where both are there, the size of the reverse is turned round.
    """
    reverse = ":".join(reversed(ratio.split(":")))
    if reverse in RATIOS:
        return _size(resolution, reverse)[::-1]
    if ratio not in RATIOS:
        raise UserError(f"ratio {ratio!r}: expected one of {', '.join(RATIOS)} or its reverse")
    return _size(resolution, ratio)


def _size(resolution: str, ratio: str) -> tuple[int, int]:
    pixels = pixel_count(resolution)
    wide, high = map(float, ratio.split(":"))
    width = int(math.sqrt(pixels * wide / high)) // PIXELS * PIXELS
    height = pixels // max(width, 1) // PIXELS * PIXELS
    if not (height and width):
        raise UserError(f"{resolution} at {ratio} is narrower than a token of {PIXELS} pixels: choose a larger one")
    return height, width


def _tokens(pixels: int) -> int:
    return math.ceil(pixels / PIXELS)
