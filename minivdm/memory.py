"""How much memory a piece of code takes beyond what was in use before it, watched while it runs."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from minivdm.allocator import set_thresholds


@dataclass
class Watched:
    """What was seen, in bytes above those in use at the start.

    seconds, bytes: when the process was looked at, and what it had then.
    peak: the most at any time, from the system's own high-water mark where it keeps one (Linux), else of the looks.
    """

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    peak: int = 0


@contextlib.contextmanager
def watch_memory(every: float = 0.001) -> Iterator[Watched]:
    """Watches this process's resident memory (RAM, not a GPU's) while the block runs.

        with watch_memory() as seen:
            y = conv(x)
        seen.peak                               # y, and the scratch space that was needed beside it

    A thread looks every `every` seconds, if the machine has time for it. Memory that earlier code has freed is handed
    back first, and on Linux blocks of 256 KiB or more come straight from the system from then on:
    otherwise old scratch space would be used again, unseen.
    """
    _hand_back()
    process, seen, done = psutil.Process(), Watched(), threading.Event()
    marked = _lower_the_mark()
    start, used = time.perf_counter(), process.memory_info().rss

    def look() -> None:
        finished = False
        while True:
            seen.seconds.append(time.perf_counter() - start)
            seen.bytes.append(process.memory_info().rss - used)
            if finished:  # and one more look has been taken since
                return
            finished = done.wait(every)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        highest = _mark() if marked else 0
        _hand_back()  # what the block freed into holes between older things counts as freed in the last look
        done.set()
        thread.join()
        seen.peak = max(highest - used, *seen.bytes)


def _lower_the_mark() -> bool:
    """Lets the system's high-water mark start anew from what is in use now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see proc_pid_clear_refs(5)
        return _mark() > 0
    except OSError:
        return False


def _mark() -> int:
    """The most bytes that were resident since the mark was lowered; 0 where the system does not say."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _hand_back() -> None:
    if libc := set_thresholds(2**18, 2**18):
        libc.malloc_trim(0)
