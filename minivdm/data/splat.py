"""Blobs of light on a pixel grid, as matrix products.

A round Gaussian is a curve along y times a curve along x, so the sum of K blobs on an H x W grid is `(H, K) @ (K, W)`:
no per-pixel loop, no scatter.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

UNITS = 32.0  # the shorter side of a frame, in world units
STEPS_PER_TICK = 3  # how often the light of a moving star is collected
MIN_EXPONENT = -14.0  # below e^-14 nothing is visible, and tinier numbers (denormals) slow a CPU down tenfold


@dataclass(frozen=True)
class Camera:
    """The instants and the pixel grid of a clip.

    instants (T, n): ticks at which light is collected for each frame; the last of the n is the frame's own time.
    interval: ticks between frames. y (H,), x (W,): pixel centres in units. scale: pixels per unit.
    """

    instants: Tensor
    interval: float
    y: Tensor
    x: Tensor
    scale: float

    @classmethod
    def of(cls, frames: int, height: int, width: int, ticks: float) -> "Camera":
        scale = min(height, width) / UNITS
        interval = ticks / (frames - 1) if frames > 1 else 1.0
        steps = max(1, math.ceil(STEPS_PER_TICK * interval - 1e-9))
        since = (torch.arange(steps) - steps + 1) * (interval / steps)
        frame_times = rearrange(torch.arange(frames) * interval, "t -> t 1")
        y, x = ((torch.arange(side) + 0.5) / scale for side in (height, width))
        return cls(frame_times + since, interval, y, x, scale)

    @property
    def ages(self) -> Tensor:
        """(n,) ticks between an instant and its frame."""
        return self.instants[0, -1] - self.instants[0]

    @property
    def exposure(self) -> float:
        """How much light one instant stands for: 1 at STEPS_PER_TICK, so that any frame rate is equally bright."""
        return STEPS_PER_TICK * self.interval / self.instants.shape[1]

    def blobs(self, where: Tensor, sigma: Tensor, brightness: Tensor) -> Tensor:
        """Sum of blobs. where (S, T, K, 2) as (y, x), sigma (S,) in units, brightness (S, T, K) -> (S, T, H, W).

        On a finer grid blobs are thinner and brighter; on a coarse one never thinner than half a pixel.
        """
        sharp = (sigma * self.scale**-0.47).clamp(min=0.5 / self.scale)
        slope = rearrange(1 / (math.sqrt(2) * sharp), "s -> s 1 1 1")
        curves = []
        for axis, grid in enumerate((self.y, self.x)):
            position = rearrange(where[..., axis], "s t k -> s t 1 k")
            distance = (rearrange(grid, "p -> p 1") - position).mul_(slope)
            curves.append(distance.square_().neg_().clamp_(min=MIN_EXPONENT).exp_())
        curves[0].mul_(rearrange(brightness * self.scale**0.58, "s t k -> s t 1 k"))
        return curves[0] @ rearrange(curves[1], "s t w k -> s t k w")

    def linger(self, light: Tensor, trail: float) -> Tensor:
        """Afterglow, in place: each frame keeps of the one before a share `trail` per tick. light (S, T, H, W)."""
        share = trail**self.interval
        for frame in range(1, light.shape[1]):
            light[:, frame] += share * light[:, frame - 1]
        return light
