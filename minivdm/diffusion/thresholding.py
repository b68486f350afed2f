"""Keeping an estimate of x0 in range while sampling: one bad estimate would push all later steps off the data."""

import torch
from einops import rearrange
from torch import Tensor

from minivdm.diffusion.tables import per_sample


def static_threshold(x0: Tensor, limit: float = 1.0) -> Tensor:
    """Clamp every element to ±limit."""
    return x0.clamp(-limit, limit)


def dynamic_threshold(x0: Tensor, percentile: float, limit: float = 1.0) -> Tensor:
    """Shrink each sample by a high quantile of its own |x0| if that is out of range (Saharia et al. 2022, section 2.3).

    Static clamping turns a strongly guided estimate into saturated patches; this keeps their contrast. x0 is (B, …); at
    most 1 - `percentile` of a sample's elements end up clamped. The paper is Imagen's.
    """
    reach = torch.quantile(rearrange(x0, "b ... -> b (...)").abs().float(), percentile, dim=-1)
    reach = per_sample(reach.clamp(min=limit).to(x0.dtype), x0.ndim)
    return x0.clamp(-reach, reach) / reach * limit
