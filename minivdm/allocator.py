"""Keep freed memory for the next layer instead of giving it back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's mallopt


def keep_freed_memory() -> None:
    """Tell glibc to keep up to 2 GiB of what is freed; does nothing on other systems.

    By default it returns blocks above 32 MiB, and what lies free at the end of its memory above 64 MiB, to the kernel
    at once, which then zeroes new pages for the next layer: up to half of the time of a VAE or a training step on a CPU
    goes into that. The process holds up to a quarter more memory in exchange.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for instance
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
