"""Random generators that are a function of what they are for, and of nothing that happened before."""

import numpy as np
import torch


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator of its own for each tuple of whole numbers ≥ 0, such as (seed, epoch, index)."""
    entropy = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
