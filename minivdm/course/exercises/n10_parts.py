"""Small networks for the check of `first_not_finite`: layers without weights that break at certain inputs."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minivdm.course.compare import Problem
from minivdm.course.exercise import Case
from minivdm.course.runner import call


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Backwards(nn.Module):
    """Runs its layers from the last to the first."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = layer(x)
        return x


def shift(by: float) -> Layer:
    """x + by"""
    return Layer(lambda x: x + by)


def logarithm() -> Layer:
    """−∞ at 0, and NaN below it."""
    return Layer(torch.log)


def overflow() -> Layer:
    """+∞ or −∞, wherever x is not 0."""
    return Layer(lambda x: x * 1e30 * 1e30 * 1e300 * 1e300)


def squash() -> Layer:
    """Between −1 and 1, also for what is infinite."""
    return Layer(torch.tanh)


def with_own_model(args: dict[str, Any]) -> dict[str, Any]:
    """Every call gets a network of its own, without the hooks that another call left in it."""
    return {**args, "model": copy.deepcopy(args["model"])}


def leaves_no_hooks(answer: Callable[..., Any], case: Case) -> Problem | None:
    """The network is as it was: nobody listens any more, and its layers are those it had."""
    outcome = call(answer, case.args, tie=case.tie)
    if outcome.error is not None:
        return Problem("second call", f"The value is right, but a second call raised `{outcome.error}`.")
    model = outcome.inputs["model"]
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        text = "The value is right, but your hooks are still in the network: each later step calls them."
        advice = "`register_forward_hook` returns a handle, and that has `remove()`."
        return Problem("hooks left", f"{text} {advice}\nThink: how many hooks are there after ten calls?")
    if any("forward" in vars(module) for module in model.modules()):
        text = "The value is right, but layers still have the `forward` that you gave them."
        return Problem("forward left", f"{text}\nThink: what will the next training step run?")
    return None
