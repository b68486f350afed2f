"""Calls a learner's function without letting it do harm, and notes what it did beside returning a value."""

import contextlib
import os
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# frames in the standard library and in the course machine are not the learner's
LIBRARY, COURSE = os.path.dirname(os.__file__), os.path.dirname(__file__)
TIME_LIMIT_S = 30.0  # per call; a right answer needs milliseconds, loops included
CLOCK = ("SIGALRM", "ITIMER_REAL")  # what is counted; with SIGVTALRM and ITIMER_VIRTUAL it is time of computing alone


class OutOfTime(Exception):
    """The answer ran longer than TIME_LIMIT_S."""


@dataclass(frozen=True)
class Outcome:
    """What one call did: its value or its error, the inputs it changed, and the global random states it moved."""

    value: Any = None
    error: BaseException | None = None
    changed: tuple[str, ...] = ()
    moved_random_state: tuple[str, ...] = ()
    inputs: dict[str, Any] | None = None


Tie = Callable[[dict[str, Any]], dict[str, Any]]


def call(
    fn: Callable[..., Any], args: dict[str, Any], gradients: tuple[str, ...] = (), tie: Tie | None = None
) -> Outcome:
    """Calls `fn` with fresh copies of `args`, in order. Inputs named in `gradients` ask for gradients; `tie` makes
    inputs hang together that do so (see Case)."""
    inputs = {name: fresh(value, name in gradients) for name, value in args.items()}
    inputs = tie(inputs) if tie else inputs
    random_states = _random_states()
    value, error = None, None
    try:
        with torch.enable_grad(), _time_limit():  # an answer may have turned gradients off
            value = fn(*inputs.values())
    except (Exception, SystemExit) as raised:  # the learner's error, shown as theirs; an interrupt stays an interrupt
        error = raised
    moved = tuple(name for name, same in _compare_random_states(random_states).items() if not same)
    _restore(random_states)
    changed = tuple(name for name in args if not _same_input(inputs[name], args[name]))
    return Outcome(value, error, changed, moved, inputs)


def fresh(value: Any, requires_grad: bool = False) -> Any:
    """A copy that the learner may spoil. With gradients it is no leaf: torch forbids changing a leaf in place, with a
    message that says nothing of why one should not, and the check can say it."""
    if not isinstance(value, torch.Tensor):
        return value
    copy = value.detach().clone()
    return copy.requires_grad_().clone() if requires_grad else copy


def _same_input(now: Any, before: Any) -> bool:
    if not isinstance(before, torch.Tensor):
        return True
    if now.dtype != before.dtype or now.shape != before.shape:
        return False
    return bool(((now == before) | (now.isnan() & before.isnan())).all())


def _random_states() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()}


def _compare_random_states(before: dict[str, Any]) -> dict[str, bool]:
    now = _random_states()
    return {
        "torch": torch.equal(now["torch"], before["torch"]),
        "numpy": all(np.array_equal(a, b) for a, b in zip(now["numpy"], before["numpy"], strict=True)),
        "random": now["random"] == before["random"],
    }


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["random"])


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Ends a call that never ends, where the system has an alarm (not on Windows) and we are in the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: object) -> None:
        raise OutOfTime(f"stopped after {TIME_LIMIT_S:g} seconds")

    number, timer = (getattr(signal, name) for name in CLOCK)
    before = signal.signal(number, ring)
    signal.setitimer(timer, TIME_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)


class _RandomOps(TorchDispatchMode):
    """Watches for operations that draw random numbers, with a generator of their own too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # attention carries the tag because it could drop weights out; as it is called here it draws nothing
        self.seen |= torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in func.name()
        return func(*args, **(kwargs or {}))


def draws_random_numbers(fn: Callable[..., Any], args: dict[str, Any], tie: Tie | None = None) -> bool:
    """True when the answer draws its own random numbers in torch, from whatever generator."""
    with _RandomOps() as watch:
        call(fn, args, tie=tie)
    return watch.seen


def where_raised(error: BaseException) -> str:
    """The learner's own last line before the error, as `line 3 of `f`: `return a + b``; empty when none is known."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first frame is our own call
    own = [frame for frame in frames if not _in_library(frame.filename)]
    if not own:
        return ""
    text = (own[-1].line or "").strip()
    return f"line {own[-1].lineno} of `{own[-1].name}`" + (f": `{text}`" if text else "")


def _in_library(filename: str) -> bool:
    """Also what an exercise hands to the answer, such as a critic or a decoder, is not the learner's."""
    return "site-packages" in filename or filename.startswith((LIBRARY, COURSE))
