"""Compares an answer with what was expected, from the coarse to the fine, and stops at the first difference.

Order: nothing returned, wrong type, number of values, shape, kind of number, width of float, device, NaN or infinity,
values. `suspects.py` then looks at the values for a pattern that a person can act on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from minivdm.course.suspects import numbers, shape_suspect, value_suspect


@dataclass(frozen=True)
class Problem:
    """The first difference. kind is one of missing, type, count, shape, kind, narrow, device, nan, value,
    gradient."""

    kind: str
    text: str


@dataclass(frozen=True)
class Tolerance:
    """Allowed error: rtol times each expected value plus atol times the largest expected value."""

    rtol: float
    atol: float

    def close(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        """Elementwise, both float64 and of one shape."""
        finite = want[want.isfinite()]
        largest = finite.abs().max() if finite.numel() else torch.tensor(0.0)
        near = (got - want).abs() <= self.rtol * want.abs() + self.atol * largest
        return (near & want.isfinite()) | (got == want)


def first_problem(
    got: Any, want: Any, outputs: Sequence[str], tolerance: Tolerance, inputs: dict[str, Any]
) -> Problem | None:
    """What is wrong with `got`, or None. `want` is a tensor or number, or a tuple of them when `outputs` has
    several names."""
    if len(outputs) == 1:
        return _one(got, want, outputs[0], tolerance, inputs)
    if got is None:
        return Problem("missing", "Your function returned None: a `return` is missing.")
    if not isinstance(got, (tuple, list)) or len(got) != len(want):
        found = f"{len(got)} values" if isinstance(got, (tuple, list)) else f"one {_type_name(got)}"
        return Problem("count", f"Expected {len(want)} values ({', '.join(outputs)}), got {found}.")
    for name, one_got, one_want in zip(outputs, got, want, strict=True):
        if problem := _one(one_got, one_want, f"`{name}`", tolerance, inputs):
            return problem
    return None


def agree(one: Any, other: Any, tolerance: Tolerance) -> bool:
    """True when two answers are the same wrong answer: same structure, shapes, kinds and numbers, NaN included."""
    if isinstance(one, (tuple, list)) or isinstance(other, (tuple, list)):
        both = isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other)
        return both and all(agree(a, b, tolerance) for a, b in zip(one, other, strict=True))
    a, b = as_tensor(one), as_tensor(other)
    if a is None or b is None:
        return one is None and other is None
    if a.shape != b.shape or kind_of(a.dtype) != kind_of(b.dtype):
        return False
    a, b = _double(a), _double(b)
    return bool((tolerance.close(a, b) | (a.isnan() & b.isnan())).all())


def as_tensor(value: Any) -> torch.Tensor | None:
    """Tensors as they are, numbers as 0-d tensors, None for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    return torch.tensor(value) if isinstance(value, (bool, int)) else None


def kind_of(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "float"
    return "bool" if dtype == torch.bool else "integer"


def widest_float(inputs: dict[str, Any]) -> torch.dtype:
    """The widest float among the inputs: an answer may not be narrower. 0-d tensors count only when there is
    nothing else."""
    floats = [value for value in inputs.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    dtypes = {value.dtype for value in floats if value.ndim} or {value.dtype for value in floats}
    return max(dtypes or {torch.float32}, key=lambda dtype: torch.finfo(dtype).bits)


def _one(got: Any, want: Any, name: str, tolerance: Tolerance, inputs: dict[str, Any]) -> Problem | None:
    expected, answer = as_tensor(want), as_tensor(got)
    if got is None:
        return Problem("missing", f"Expected {_describe(want)} for {name}, got None: a `return` is missing.")
    is_number = not isinstance(got, torch.Tensor)
    if answer is None or (is_number and isinstance(want, torch.Tensor)):
        return Problem("type", f"Expected {_describe(want)} for {name}, got a {_type_name(got)}.")
    if answer.shape != expected.shape:
        suspect = shape_suspect(answer, expected)
        text = f"Expected shape {tuple(expected.shape)} for {name}, got {tuple(answer.shape)}."
        return Problem("shape", f"{text}\nFirst suspect: {suspect}")
    if kind_of(answer.dtype) != kind_of(expected.dtype):
        wanted, found = kind_of(expected.dtype), kind_of(answer.dtype)
        return Problem("kind", f"Expected {wanted} numbers for {name}, got {found} ({_name(answer.dtype)}).")
    floor = widest_float(inputs)
    if answer.is_floating_point() and torch.finfo(answer.dtype).bits < torch.finfo(floor).bits:
        text = f"The inputs are {_name(floor)} and {name} is {_name(answer.dtype)}: digits were thrown away."
        return Problem("narrow", f"{text} Wider floats are welcome, narrower ones are not.")
    if answer.device != expected.device:
        return Problem("device", f"Expected {name} on {expected.device}, got it on {answer.device}.")
    if expected.dtype == torch.bool and expected.ndim == 0 and bool(answer) != bool(expected):
        return Problem("value", f"Expected {bool(expected)} for {name}, got {bool(answer)}.")
    return _value_problem(_double(answer), _double(expected), name, tolerance, inputs)


def _value_problem(
    got: torch.Tensor, want: torch.Tensor, name: str, tolerance: Tolerance, inputs: dict[str, Any]
) -> Problem | None:
    close = tolerance.close(got, want)
    if bool(close.all()):
        return None
    index = tuple((~close).nonzero()[0].tolist())
    place = f" at index {list(index)}" if index else ""
    first = f"expected {numbers(want[index])}, got {numbers(got[index])}{place}"
    broken = ~got.isfinite() & want.isfinite()
    if bool(broken.any()):
        what = "NaN" if bool(got[broken].isnan().any()) else "infinite"
        text = f"{int(broken.sum())} of {got.numel()} numbers of {name} are {what}; the first difference: {first}."
        suspect = "a division by zero, a logarithm of zero or the root of a negative number."
        return Problem("nan", f"{text}\nFirst suspect: {suspect}")
    suspect = value_suspect(got, want, close, inputs)
    return Problem("value", f"The numbers of {name} differ: {first}.\nFirst suspect: {suspect}")


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", torch.float64)


def _describe(want: Any) -> str:
    if isinstance(want, torch.Tensor):
        return f"a tensor of shape {tuple(want.shape)}"
    return f"a number ({type(want).__name__})"


def _type_name(value: Any) -> str:
    return "numpy array" if isinstance(value, np.ndarray) else type(value).__name__


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
