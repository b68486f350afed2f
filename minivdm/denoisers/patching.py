"""Fewer, thicker pixels: fold small squares of pixels into channels around a network.

A U-Net spends most of its time at full resolution, where it has the least to say. Folding 2×2 pixels into channels
makes every layer four times cheaper and leaves the picture as it was ("simple diffusion", Hoogeboom et al. 2023,
section 3.2; the transformers of lesson 08 do the same and call it patches).
"""

from typing import Any

from einops import rearrange
from torch import Tensor, nn


class Patched(nn.Module):
    """`network` sees (B, C·patch², T, H/patch, W/patch); the caller sees (B, C, T, H, W)."""

    def __init__(self, network: nn.Module, patch: int):
        super().__init__()
        self.network, self.patch = network, patch

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        """x (B, C, T, H, W) with H and W divisible by `patch` -> the network's answer, unfolded again."""
        p = self.patch
        folded = rearrange(x, "b c t (h p) (w q) -> b (c p q) t h w", p=p, q=p)
        return rearrange(self.network(folded, *arguments, **named), "b (c p q) t h w -> b c t (h p) (w q)", p=p, q=p)
