"""Watches an answer's convolutions: how large each one was, whichever way the learner called it.

`F.conv3d`, `torch.conv3d`, layers and grouped calls all end in the same few operations of torch; a dispatch mode sees
those. The rules of lesson 05 are built on what it saw.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minivdm.course.compare import Problem
from minivdm.course.exercise import Case
from minivdm.course.runner import call

NO_CONVOLUTION = Problem(
    "no convolution",
    "The value is right, but no convolution was seen. Call `F.conv3d` on the parts, so that the check can watch them.\n"
    "Think: which part of the work may be done at one time?",
)


@dataclass(frozen=True)
class Convolution:
    """One call: the shapes it read and wrote, and the input channels that each output channel sums over."""

    read: tuple[int, ...]
    written: tuple[int, ...]
    channels_per_group: int


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Convolution] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "conv" in func.name() and isinstance(out, torch.Tensor) and len(args) > 1:
            x, weight = args[:2]
            # a single clip without its batch axis is legal in torch
            read, written = (tuple(t.shape) if t.ndim == weight.ndim else (1, *t.shape) for t in (x, out))
            self.seen.append(Convolution(read, written, weight.shape[1]))
        return out


def convolutions(answer: Callable[..., Any], case: Case) -> list[Convolution]:
    """Every convolution that the answer makes on this case, in order."""
    with _Watch() as watch:
        call(answer, case.args, tie=case.tie)
    return watch.seen


def within_limit(answer: Callable[..., Any], case: Case) -> Problem | None:
    """No convolution of more than one channel reads, or writes, more than `limit` elements."""
    seen, limit = convolutions(answer, case), case.args["limit"]
    if not seen:
        return NO_CONVOLUTION
    read = max((conv.read for conv in seen if conv.read[1] > 1), key=math.prod, default=(0,))
    written = max((conv.written for conv in seen if conv.written[1] > 1), key=math.prod, default=(0,))
    too_much = {"reads": read, "writes": written}
    found = {verb: shape for verb, shape in too_much.items() if math.prod(shape) > limit}
    if not found:
        return None
    told = " and one ".join(f"{verb} {math.prod(shape)} elements, {shape}" for verb, shape in found.items())
    text = f"The value is right, but one of your convolutions {told}, where the limit is {limit}."
    advice = "That is the call for which the machine had no room."
    question = "the input can be split, and the output as well; which of the two is still too large?"
    return Problem(" and ".join(found), f"{text} {advice}\nThink: {question}")


def split_over_ranks(answer: Callable[..., Any], case: Case) -> Problem | None:
    """Every convolution sees the input channels of one rank only."""
    seen, channels, ranks = convolutions(answer, case), case.args["x"].shape[1], case.args["ranks"]
    if not seen:
        return NO_CONVOLUTION
    off = [conv for conv in seen if conv.channels_per_group != channels // ranks]
    if not off:
        return None
    outputs = case.args["weight"].shape[0]
    text = (
        f"The value is right, but one of your convolutions sums over {off[0].channels_per_group} input channels, "
        f"where each of {ranks} ranks holds {channels // ranks} of the {channels}."
    )
    split_outputs = all(conv.channels_per_group == channels and conv.written[1] < outputs for conv in off)
    kind = "outputs split" if split_outputs else "whole" if off[0].channels_per_group == channels else "other split"
    return Problem(kind, f"{text}\nThink: which channels of `x` and of `weight` lie in the memory of rank 1?")
