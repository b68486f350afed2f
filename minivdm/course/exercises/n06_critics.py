"""A small critic and a small generator for the checks of lesson 06, and rules about what an answer leaves behind."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minivdm.course.compare import Problem, Tolerance
from minivdm.course.exercise import Case
from minivdm.course.inputs import randn
from minivdm.course.runner import call


class Critic(nn.Module):
    """Scores of samples (B, …): each of shape `scores`, or one for the whole batch when `scores` is None.

    It computes in the width of its input, so that one critic serves float32 and float64.
    """

    def __init__(self, g: torch.Generator, inputs: int, scores: tuple[int, ...] | None, hidden: int = 8):
        super().__init__()
        outputs = torch.Size(scores or ()).numel()
        self.scores = scores
        self.first = nn.Parameter(1.3 * randn(g, inputs, hidden, dtype=torch.float64) / inputs**0.5)
        self.second = nn.Parameter((0.3 + 0.2 * randn(g, hidden, outputs, dtype=torch.float64)) / outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(x.flatten(1) @ self.first.to(x.dtype))
        out = hidden @ self.second.to(x.dtype)
        return out.sum() if self.scores is None else out.reshape(-1, *self.scores)


def with_own_critic(args: dict[str, Any]) -> dict[str, Any]:
    """Every call gets a critic of its own, so that nobody sees gradients that another call left there."""
    return {**args, "critic": copy.deepcopy(args["critic"])}


def keeps_the_graph(penalty: Callable[..., Tensor], answer: Callable[..., Any], case: Case) -> Problem | None:
    """The penalty trains the critic: its gradient reaches the critic's weights and is right; nothing else happened.

    penalty: the right one.
    """
    outcome = call(answer, case.args, tie=case.tie)
    if outcome.error is not None:
        return _second_call(outcome.error)
    critic, before = outcome.inputs["critic"], case.args["critic"]
    for weight, kept in zip(critic.parameters(), before.parameters(), strict=True):
        if not torch.equal(weight, kept) or not weight.requires_grad:
            text = "The value is right, but your function changes the critic: its weights are not what they were."
            return Problem("critic changed", f"{text}\nThink: whose task is it to change weights?")
    if any(weight.grad is not None for weight in critic.parameters()):
        text = "The value is right, but your function leaves gradients in the critic's weights (`backward` does that)."
        question = "what would the critic's optimizer do with them at its next step?"
        advice = "`torch.autograd.grad(…)` returns a gradient and stores none."
        return Problem("gradients left", f"{text} {advice}\nThink: {question}")
    wide = case.tie({name: v.double() if isinstance(v, Tensor) else v for name, v in case.args.items()})
    expected = _slopes(penalty(**wide), wide["critic"])
    try:
        found = _slopes(outcome.value, critic)
    except RuntimeError:
        found = _slopes(outcome.value.detach(), critic)  # its graph is spoiled or used up
    tolerance = Tolerance(1e-3, 1e-5)
    if all(bool(tolerance.close(mine, theirs).all()) for mine, theirs in zip(found, expected, strict=True)):
        return None
    text = "The value is right, but the critic cannot learn from it: its weights get "
    if not any(bool(slope.any()) for slope in found):
        text += "no gradient. The slope was taken without `create_graph=True`, or something was cut off after it."
        return Problem("no graph", f"{text}\nThink: what must be remembered to differentiate a derivative?")
    text += f"a wrong gradient ({float(found[0].flatten()[0]):.4g} first, not {float(expected[0].flatten()[0]):.4g})."
    return Problem("wrong gradient", f"{text}\nThink: which part of the penalty did you detach?")


def _slopes(penalty: Tensor, critic: Critic) -> list[Tensor]:
    """The gradients of the penalty in the critic's weights, zeros where none arrives."""
    weights = list(critic.parameters())
    if not penalty.requires_grad:
        return [torch.zeros_like(weight) for weight in weights]
    slopes = torch.autograd.grad(penalty, weights, allow_unused=True)
    return [torch.zeros_like(w) if slope is None else slope for w, slope in zip(weights, slopes, strict=True)]


def losses_on(
    g: torch.Generator,
    shape: tuple[int, ...],
    note: str,
    rec: float = 1.0,
    gan: float = 1.0,
    graded: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A case of two losses that hang on a last layer of this shape and on a layer before it.

    rec, gan: factors on the losses. graded: every weight already holds a gradient from an earlier step.
    """
    wide = {"dtype": torch.float64}
    outputs, inputs = shape[0], torch.Size(shape[1:]).numel()
    tensors = {
        "x": randn(g, 9, 5, **wide),
        "first": randn(g, 5, inputs, **wide) / 5**0.5,
        "target": randn(g, 9, outputs, **wide),
        "judge": randn(g, outputs, **wide),
    }
    tie = partial(_two_losses, tensors=tensors, rec=rec, gan=gan, graded=graded)
    bare = {"rec_loss": None, "gan_loss": None, "last_layer": randn(g, *shape, dtype=dtype) / inputs**0.5}
    return Case(tie(bare), note, tie)


def _two_losses(
    args: dict[str, Any], tensors: dict[str, Tensor], rec: float, gan: float, graded: bool
) -> dict[str, Any]:
    """Computes both losses anew from the last layer, in its width."""
    last_layer = args["last_layer"].detach().clone().requires_grad_(True)
    x, first, target, judge = (tensor.to(last_layer.dtype) for tensor in tensors.values())
    first = first.clone().requires_grad_(True)
    for weight in (last_layer, first):
        weight.grad = torch.full_like(weight, 0.25) if graded else None
    out = torch.tanh(x @ first) @ last_layer.flatten(1).T
    losses = {"rec_loss": rec * ((out - target) ** 2).mean(), "gan_loss": -gan * (torch.tanh(out) @ judge).mean()}
    return {**losses, "last_layer": last_layer}


def leaves_no_trace(answer: Callable[..., Any], case: Case) -> Problem | None:
    """The weight is detached, every `.grad` is what it was, and both losses can still be backpropagated."""
    outcome = call(answer, case.args, tie=case.tie)
    if outcome.error is not None:
        return _second_call(outcome.error)
    rec_loss, gan_loss, _ = outcome.inputs.values()
    if outcome.value.requires_grad:
        text = "The value is right, but it is still tied to the losses: it should be detached."
        question = "should training make the weight itself smaller, to make the loss smaller?"
        return Problem("attached", f"{text}\nThink: {question}")
    untouched = case.tie(outcome.inputs)
    weights, others = list(_weights(rec_loss)), list(_weights(untouched["rec_loss"]))
    if not all(_same(one.grad, other.grad) for one, other in zip(weights, others, strict=True)):
        text = "The value is right, but some `.grad` is not what it was before the call (`backward` and `zero_grad` "
        question = "what would the optimizer do with these gradients at the next step?"
        advice = "change it). `torch.autograd.grad(loss, last_layer)` returns a gradient and stores none."
        return Problem("grad changed", f"{text}{advice}\nThink: {question}")
    try:
        torch.autograd.grad(rec_loss, weights, retain_graph=True)
        torch.autograd.grad(gan_loss, weights)
    except RuntimeError:
        text = "The value is right, but afterwards the losses cannot be backpropagated: their graph was freed."
        question = "for what does training still need both losses after this function?"
        return Problem("graph freed", f"{text} `retain_graph=True` keeps it, in both calls.\nThink: {question}")
    return None


def _second_call(error: BaseException) -> Problem:
    text = f"The value is right, but a second call raised `{type(error).__name__}: {str(error)[:150]}`."
    return Problem("second call", f"{text}\nThink: what does your function remember from one call to the next?")


def _weights(loss: Tensor) -> Iterator[Tensor]:
    """The leaves of a loss's graph, in the order in which they are found."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [parent for parent, _ in node.next_functions]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
