"""Where to compute."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def pick_device() -> torch.device:
    """CUDA where there is a GPU (each process of several its own), MPS on an Apple machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def on_best_device(module: nn.Module) -> Iterator[torch.device]:
    """The module on the best device there is, which is handed out; afterwards it is where it was."""
    place, device = next(module.parameters()).device, pick_device()
    module.to(device)
    try:
        yield device
    finally:
        module.to(place)
