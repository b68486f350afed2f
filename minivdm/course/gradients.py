"""Compares gradients: a right value with a detached or doubled gradient trains the wrong thing."""

from typing import TYPE_CHECKING, Any

import torch

from minivdm.course.compare import Problem, Tolerance
from minivdm.course.runner import Outcome, fresh

if TYPE_CHECKING:
    from minivdm.course.exercise import Case, Exercise


def gradient_problem(exercise: "Exercise", case: "Case", outcome: Outcome, tolerance: Tolerance) -> Problem | None:
    """What is wrong with the gradients of a right value with respect to `exercise.gradients`, or None."""
    wide = {name: fresh(value, name in exercise.gradients) for name, value in case.args.items()}
    wide = case.tie(wide) if case.tie else wide
    with torch.enable_grad():
        want = exercise.reference(*wide.values())
    expected = _gradients(want, [wide[name] for name in exercise.gradients])
    found = gradients_of(exercise, outcome)
    for name, mine, theirs in zip(exercise.gradients, expected, found, strict=True):
        if bool(tolerance.close(theirs.double(), mine.double()).all()):
            continue
        text = f"The value is right, but its gradient with respect to `{name}` is not: "
        if not bool(theirs.any()):
            text += "none arrives. Something cuts it off (`detach`, `.item()`, `torch.no_grad`, a new `torch.tensor`) "
            text += "or has used it up (`backward`)."
        elif not bool(mine.any()):
            text += "none should arrive, it should have been detached."
        else:
            text += f"expected {float(mine.flatten()[0]):.4g} first, got {float(theirs.flatten()[0]):.4g}."
        return Problem("gradient", text)
    return None


def gradients_of(exercise: "Exercise", outcome: Outcome) -> list[torch.Tensor]:
    """The gradients that an answer hands to the inputs named in `exercise.gradients`."""
    inputs = [outcome.inputs[name] for name in exercise.gradients]
    try:
        return _gradients(outcome.value, inputs)
    except RuntimeError:  # the answer has used up or spoiled its own graph: nothing arrives any more
        return _gradients(None, inputs)


def _gradients(value: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of a fixed weighted sum of all outputs; zeros where none arrives."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    outputs = [out for out in values if isinstance(out, torch.Tensor) and out.requires_grad]
    if not outputs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    weights = [torch.linspace(0.5, 1.5, out.numel()).to(out).reshape(out.shape) for out in outputs]
    found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(tensor) if grad is None else grad for tensor, grad in zip(inputs, found, strict=True)]
