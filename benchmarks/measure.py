"""Time and memory of a `Work`, each in a fresh process in which nothing has run before.

The processes are forked from a server that has imported everything, so that starting one costs nothing.
"""

import cProfile
import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.work import Run, Work
from minivdm.allocator import keep_freed_memory, set_thresholds
from minivdm.memory import watch_memory


@dataclass
class Times:
    """Seconds of every repetition, by the clock and of the processor (of all threads together)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, run: Run) -> None:
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(time.process_time() - start_cpu)


@dataclass
class Compared:
    """What became of one row. `theirs` and what belongs to it is empty where there is no peer.

    helped: theirs with the allocator kept as ours is, where `theirs` is a peer as it comes.
    difference: of the outputs, relative to the largest. flops: of one run, multiplications and additions.
    """

    ours: Times
    theirs: Times
    helped: Times = field(default_factory=Times)
    difference: float = 0.0
    our_flops: float = 0.0
    their_flops: float = 0.0
    remark: str = ""

    def ratio(self, clock: str, factor: float = 1.0) -> float:
        """Our median over theirs."""
        return median(getattr(self.ours, clock)) / (factor * median(getattr(self.theirs, clock)))


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """The function's result, from a process made for this call; it and the arguments must be picklable."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.preload"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def compare(work: Work, repeats: int, threads: int, alone: bool) -> Compared:
    """Both sides `repeats` times, in turns, after their outputs have been compared; only ours if `alone`."""
    torch.set_num_threads(threads)
    ours, theirs = (work.ours(), None) if alone else work.pair()
    if work.training:
        ours, theirs = Counted(ours), Counted(theirs) if theirs else None
    result = Compared(Times(), Times())
    if alone:
        ours()
    else:
        result.difference = work.difference(ours, theirs)
    turns = [(result.ours, ours, keep_freed_memory)]
    if theirs is not None:
        turns += [(result.theirs, theirs, give_back_large_blocks if work.peer else keep_freed_memory)]
        turns += [(result.helped, theirs, keep_freed_memory)] if work.peer else []
    for number in range(repeats):
        for times, run, allocator in turns if number % 2 else reversed(turns):
            allocator()
            gc.collect()
            times.add(run)
    if work.training:
        result.our_flops, result.their_flops = ours.flops, theirs.flops if theirs else 0.0
    result.remark = "" if alone else work.remark()
    return result


def give_back_large_blocks() -> None:
    """What glibc does by itself once large blocks have been freed, and what a peer has where minivdm is not imported.

    Its threshold has then risen to the most that it rises to, 32 MiB, and that of trimming to twice as much.
    """
    set_thresholds(32 * 2**20, 64 * 2**20)


class Counted:
    """A run that counts the operations of matrix products and convolutions when it is called for the first time."""

    def __init__(self, run: Run):
        self.run, self.flops = run, 0.0

    def __call__(self) -> Tensor:
        if self.flops:
            return self.run()
        with FlopCounterMode(display=False) as counter:
            output = self.run()
        self.flops = counter.get_total_flops()
        return output


def peak_memory(work: Work, side: str, threads: int) -> int:
    """Bytes above what the loaded model takes. In training that is gradients, the optimizer and activations."""
    torch.set_num_threads(threads)
    run = getattr(work, side)()
    gc.collect()
    with watch_memory() as seen:
        for _ in range(2 if work.training else 1):
            run()
    return seen.peak


def matmul_rate(threads: int, size: int = 1024, seconds: float = 1.5) -> float:
    """Floating-point operations per second that this machine really reaches: the median over many products."""
    torch.set_num_threads(threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    times, end = Times(), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times.wall) < 5:
        times.add(lambda: a @ b)
    return 2 * size**3 / median(times.wall)


def profile(work: Work, side: str, threads: int, rows: int = 25) -> str:
    """Where the time of a run goes, operator by operator."""
    return _profiled(work, side, threads).table(
        sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=45
    )


def shares(work: Work, side: str, threads: int) -> dict[str, float]:
    """The same in short: what takes most of the time, and which part of it, from 0 to 1.

    Operators of PyTorch, or functions of Python where other things than tensors are worked on.
    """
    if work.tensors:
        seconds = {one.key: one.self_cpu_time_total for one in _profiled(work, side, threads)}
    else:
        run = _warm(work, side, threads)
        seen = cProfile.Profile()
        seen.runcall(run)
        seconds: dict[str, float] = {}
        for entry in seen.getstats():
            name = getattr(entry.code, "co_name", str(entry.code)).strip("<>").removeprefix("built-in method ")
            seconds[name] = seconds.get(name, 0.0) + entry.inlinetime
    largest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:7]
    return {name: seconds[name] / sum(seconds.values()) for name in largest}


def _profiled(work: Work, side: str, threads: int) -> Any:
    run = _warm(work, side, threads)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    return seen.key_averages()


def _warm(work: Work, side: str, threads: int) -> Run:
    """A side that has run once."""
    torch.set_num_threads(threads)
    run = getattr(work, side)()
    run()
    return run
