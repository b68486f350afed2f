"""Random generators that are a function of what they are for, and of nothing that happened before."""

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """A well-mixed 63-bit seed for a tuple of whole numbers ≥ 0, such as (seed, epoch, index)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator of its own for each tuple of whole numbers."""
    return torch.Generator().manual_seed(derive_seed(*numbers))
