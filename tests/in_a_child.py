"""Run something in a child process that may take only so much time and memory, and come back with what it returned."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None

CPU_SECONDS, WAIT_SECONDS = 20, 240  # of work; in all, on a machine that does other things beside


def run_limited(work: Callable[[], Any], memory: int, first: Callable[[], Any] = lambda: None) -> Any:
    """What `work()` returns. Fails when it takes more than CPU_SECONDS, or `memory` bytes more than there were.

    first: what is done in the child before memory is measured. Code and tables are in memory once they are used, and
        how much of them a child finds there is chance.
    Where processes cannot fork it is run here, without limits.
    """
    if resource is None or "fork" not in multiprocessing.get_all_start_methods():
        return work()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_work, args=(first, work, theirs))
    child.start()
    theirs.close()
    deadline = time.monotonic() + WAIT_SECONDS
    answer = ours.recv() if ours.poll(WAIT_SECONDS) and not child.exitcode else None
    child.join(max(0, deadline - time.monotonic()))
    if child.is_alive():
        child.kill()
    if answer is None:
        pytest.fail(f"hung or died: exit status {child.exitcode} (-24: more than {CPU_SECONDS} s of work)")
    result, error, taken = answer
    assert taken <= memory, f"took {taken:,} bytes of memory; allowed are {memory:,}"
    if error:
        raise error
    return result


def _work(first: Callable[[], Any], work: Callable[[], Any], answer: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    first()
    before, result, error = _peak(), None, None
    try:
        result = work()
    except Exception as fault:
        error = fault
    answer.send((result, error, _peak() - before))


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
