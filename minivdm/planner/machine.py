"""What there is: memory, and how fast this machine multiplies matrices."""

import re
import time
from pathlib import Path

import psutil
import torch

from minivdm.errors import UserError
from minivdm.planner.kernels import HALVES

GIB = 2**30
CUDA_CONTEXT = GIB // 2  # what a GPU needs for itself before the first tensor
UNITS = {"": GIB, "G": GIB, "GB": GIB, "GIB": GIB, "M": 2**20, "MB": 2**20, "MIB": 2**20}
CONTAINER = Path("/sys/fs/cgroup")


def parse_memory(text: str) -> int:
    """ "24GB", "24", "512MB" -> bytes; GB as on the box of a GPU, 2^30 bytes. Raises UserError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise UserError(f"memory {text!r}: expected gigabytes above 0, such as 24GB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def memory_at_hand(device: torch.device) -> int:
    """Bytes that a new run could take on this device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    memory = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(memory, _left_in_container())


def _left_in_container() -> int:
    """Bytes below the limit of the container that this process runs in; very many where there is none."""
    try:
        limit, used = (int((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        return limit - used + int(statistics.get("inactive_file", 0))  # files in memory make room when it is wanted
    except (OSError, ValueError):
        return 2**62


def matmul_rate(device: torch.device, precision: str, seconds: float = 0.5, side: int = 768) -> float:
    """Floating-point operations per second of matrix products, measured for so long."""
    a = torch.rand(side, side, device=device, dtype=HALVES.get(precision, torch.float32))
    synchronize(device)
    done, start = 0, time.perf_counter()
    while done < 2 or time.perf_counter() - start < seconds:
        a @ a
        synchronize(device)
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Wait until all that was started is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
