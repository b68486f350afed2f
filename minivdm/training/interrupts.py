"""Ctrl-C and SIGTERM: the step is finished and saved before the run ends."""

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the step was finished and saved. The message holds the command that goes on."""


def stopped(step: int, task: str, run: Path) -> str:
    """Where a run was stopped, and what to type to go on with it."""
    command = shlex.join(["minivdm", "train", task, "--run", str(run), "--resume"])
    return f"stopped after step {step}, saved in {run}; go on with: {command}"


@contextlib.contextmanager
def finish_the_step(stop: Callable[[], None], alone: bool = True) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM call `stop` and do nothing else.

    A second Ctrl-C ends the program at once, unless it is one of several (`alone` off), whose launcher repeats signals.
    Only the main thread hears signals: in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hear(signum: int, frame: Any) -> None:
        if alone and signum == signal.SIGINT and signal.SIGINT in heard:
            raise KeyboardInterrupt("stopped at once; the last checkpoint is whole")
        if not heard:  # print could be what was interrupted, and does not take that well
            os.write(2, b"\nfinishing the step, then saving; Ctrl-C again stops at once\n")
        heard.append(signum)
        stop()

    previous = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def out_of_earshot() -> Iterator[None]:
    """Processes started within never hear Ctrl-C, which a terminal sends to all: they end when this one does."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would be started with them, and make them hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
