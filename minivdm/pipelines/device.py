"""Where to compute."""

import torch


def pick_device() -> torch.device:
    """CUDA where there is a GPU, MPS on an Apple machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
