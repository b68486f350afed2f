"""Makers of inputs for the checks. Everything is drawn from the given generator; nothing touches the global state."""

import torch


def randn(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=dtype)


def uniform(
    generator: torch.Generator, low: float, high: float, *shape: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Uniform numbers in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)


def betas(generator: torch.Generator, num_steps: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A schedule in no order between 0.02 and 0.3: a shifted, sorted or flipped index shows, and 1 − ᾱ keeps its
    digits."""
    return uniform(generator, 0.02, 0.3, num_steps, dtype=dtype)


def alphas_cumprod(generator: torch.Generator, num_steps: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The running product that belongs to such a schedule, falling from about 0.9."""
    return torch.cumprod(1 - betas(generator, num_steps, dtype), dim=0)


def timesteps(generator: torch.Generator, batch: int, num_steps: int) -> torch.Tensor:
    """Distinct timesteps (batch,) long in no order: the last step first, then step 0 (so that it is not sample
    0's), then any."""
    between = 1 + torch.randperm(num_steps - 2, generator=generator)
    return torch.cat([torch.tensor([num_steps - 1, 0]), between])[:batch]
