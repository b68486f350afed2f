"""Where to compute."""

import os

import torch


def pick_device() -> torch.device:
    """CUDA where there is a GPU (each process of several its own), MPS on an Apple machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
