"""The formula that stands for a network in golden files that hold no weights."""

import torch
from torch import Tensor

from minivdm.diffusion.tables import per_sample


def analytic_network(x: Tensor, t: Tensor) -> Tensor:
    """0.6 sin(x + 0.01 t) + 0.25 x, for x (B, …) and t (B,)."""
    return 0.6 * torch.sin(x + 0.01 * per_sample(t, x.ndim)) + 0.25 * x
