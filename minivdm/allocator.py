"""Keep freed memory for the next layer instead of giving it back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's mallopt


def keep_freed_memory() -> None:
    """Tell glibc to keep blocks of up to 1 GiB when they are freed; does nothing on other systems.

    By default glibc returns every block above 32 MiB to the kernel at once, which then zeroes a new one for the next
    layer: up to half of the time of a VAE or a training step on a CPU goes into that. The process holds a fifth to two
    fifths more memory in exchange (benchmarks/PLANNER.md).
    """
    set_thresholds(2**30, 2**31 - 1)


def set_thresholds(mmap: int, trim: int) -> ctypes.CDLL | None:
    """Blocks from `mmap` bytes on come straight from the kernel, and `trim` free bytes at the end of memory go back.

    The C library that was told so, or None where it is another one than glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return None  # musl, for instance
    libc.mallopt(M_MMAP_THRESHOLD, mmap)
    libc.mallopt(M_TRIM_THRESHOLD, trim)
    return libc
