"""How much memory a piece of code takes beyond what was in use before it, watched while it runs."""

import contextlib
import ctypes
import functools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil


@dataclass
class Watched:
    """What was seen: seconds since the start, and bytes above those in use at the start, one each per look."""

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """Most bytes above the start."""
        return max(self.bytes, default=0)


@contextlib.contextmanager
def watch_memory(every: float = 0.001) -> Iterator[Watched]:
    """Watches this process's resident memory (RAM, not a GPU's) while the block runs.

        with watch_memory() as seen:
            y = conv(x)
        seen.peak                               # y, and the scratch space that was needed beside it

    A thread looks every `every` seconds, so what lives shorter than that can be missed. Memory that earlier code has
    freed is handed back first, and on Linux blocks of a megabyte or more come straight from the system from then on:
    otherwise old scratch space would be used again, unseen.
    """
    _hand_back()
    process, seen, done = psutil.Process(), Watched(), threading.Event()
    start, used = time.perf_counter(), process.memory_info().rss

    def look() -> None:
        while True:
            seen.seconds.append(time.perf_counter() - start)
            seen.bytes.append(process.memory_info().rss - used)
            if done.wait(every):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _hand_back() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, told to keep no large blocks for itself; None where it is another one."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return None
    m_mmap_threshold, m_trim_threshold = -3, -1  # from malloc.h
    libc.mallopt(m_mmap_threshold, 2**20)
    libc.mallopt(m_trim_threshold, 2**20)
    return libc
