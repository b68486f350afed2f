"""An exponential moving average of the weights: what samples are drawn from."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `module`, a copy of the model whose weights are averaged over the steps.

    `ema ← decay · ema + (1 − decay) · weight`. In the first steps the decay is smaller, (1 + s) / (10 + s), so that the
    average is not dragged along by the random initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average in the weights after optimiser step number `step` (0-based); buffers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.module.parameters()), list(model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(value)
