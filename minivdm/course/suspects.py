"""First suspects: patterns in wrong shapes and wrong numbers that point at a cause.

Every function gets answer and expectation as tensors and returns a sentence. The first pattern that fits is told; a
pattern never says more than what was measured.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

FACTORS = {2.0: "2", 0.5: "1/2", -1.0: "−1: a sign is flipped", 1.442695: "1/ln 2: bits instead of nats"}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "the square root of what is expected": lambda want: want.sqrt(),
    "the square of what is expected": lambda want: want**2,
    "the logarithm of what is expected": lambda want: want.log(),
    "the exponential of what is expected": lambda want: want.exp(),
    "the reciprocal of what is expected": lambda want: 1 / want,
    "one minus what is expected": lambda want: 1 - want,
    "what is expected, clamped to [−1, 1]: nothing should be cut here": lambda want: want.clamp(-1, 1),
}


def numbers(values: Tensor, most: int = 4) -> str:
    """A few numbers as text: `0.3512` or `0.3512, 0.7024, …`."""
    flat = values.reshape(-1)
    shown = [_number(value) for value in flat[:most].tolist()]
    return ", ".join(shown) + (", …" if flat.numel() > most else "")


def _number(value: float | int | bool) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e9
    return f"{value:.0f}" if whole else f"{value:.4g}" if isinstance(value, float) else str(value)


def shape_suspect(got: Tensor, want: Tensor) -> str:
    have, need = tuple(got.shape), tuple(want.shape)
    if sorted(have) == sorted(need):
        return "the right axes in another order."
    if tuple(n for n in have if n != 1) == tuple(n for n in need if n != 1):
        return "axes of size 1 are missing or too many; a `rearrange` or `[:, None]` sets them right."
    if len(have) == len(need) and have[0] != need[0] and have[1:] == need[1:] and 1 in (have[0], need[0]):
        return "the batch axis: the whole batch was treated as one sample."
    if got.numel() == want.numel():
        return "the right number of elements with axes merged or split in another way."
    if len(have) < len(need):
        return "an axis was summed, averaged or indexed away."
    if len(have) > len(need):
        return "an axis too many: was something broadcast that should have been aligned first?"
    off = [axis for axis, (a, b) in enumerate(zip(have, need, strict=True)) if a != b]
    return f"axis {off[0]} has {have[off[0]]} entries instead of {need[off[0]]}."


def value_suspect(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> str:
    """`close` marks the numbers that are right. got, want: float64, one shape; `got` is finite where `want` is."""
    patterns = (_an_input, _by_timestep, _few_digits, _whole_function, _shuffled, _along_an_axis, _added, _ingredients)
    for pattern in (*patterns, _per_sample):
        for suspect in pattern(got, want, close, inputs):
            return suspect
    if got.numel() == 1:
        return _single(float(got), float(want))
    wrong = int((~close).sum())
    expected = f"expected values from {want.min():.4g} to {want.max():.4g}"
    return f"{wrong} of {got.numel()} numbers are off; {expected}, yours go from {got.min():.4g} to {got.max():.4g}."


def _single(got: float, want: float) -> str:
    """For one number no pattern can be seen; only how far it is off."""
    if want == 0 or got == 0 or not 0.01 < abs(got / want) < 100:
        return f"your number is off by {got - want:.4g}."
    factor = next((text for value, text in FACTORS.items() if abs(got / want / value - 1) < 1e-3), f"{got / want:.4g}")
    return f"your number is the expected one times {factor}."


def _few_digits(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    if torch.allclose(got, want, rtol=2e-3, atol=2e-3 * float(want.abs().max())):
        yield "nearly right: were digits lost on the way (half precision, a rounded constant), or a tiny number added?"


def _an_input(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == got.shape and torch.equal(value.double(), got):
            yield f"your answer is the input `{name}`, unchanged."
    if got.numel() > 1 and bool((got == 0).all()):
        yield "all your numbers are zero."


def _by_timestep(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """Right for some timesteps only."""
    t = inputs.get("t")
    if not isinstance(t, Tensor) or t.shape != got.shape[:1]:
        return
    right = close.reshape(len(close), -1).all(dim=1)
    if bool(right.any()) and not bool(right.all()):
        if bool((right == (t == 0)).all()):
            yield "right for t = 0 only."
        if bool((right == (t != 0)).all()):
            yield "wrong for t = 0 only; what is special about the first step?"
        yield f"right for t = {numbers(t[right], 6)}, wrong for t = {numbers(t[~right], 6)}."


def _along_an_axis(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """Right (or wrong) at a single place along an axis."""
    for axis in range(got.ndim):
        others = [other for other in range(got.ndim) if other != axis]
        along = close.all(dim=others) if others else close
        size = len(along)
        if size > 1 and int((~along).sum()) == 1:
            where = int((~along).nonzero()[0])
            end = {0: " (the first)", size - 1: " (the last)"}.get(where, "")
            yield f"everything is right except index {where}{end} of axis {axis}."
        if size > 2 and int(along.sum()) == 1:
            where = int(along.nonzero()[0])
            rest = "; was the rest of the batch forgotten?" if axis == 0 else "."
            yield f"only index {where} of axis {axis} is right{rest}"


def _whole_function(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """The expectation times a constant, plus a constant, or under a simple function."""
    ratio = _ratio(got, want)
    factor = float(ratio.mean()) if ratio.numel() else 1.0
    if ratio.numel() > 1 and _near(got, factor * want):
        named = next((text for value, text in FACTORS.items() if abs(factor / value - 1) < 1e-3), f"{factor:.4g}")
        yield f"you are off by the same factor everywhere, {named}."
    if got.numel() > 2 and _constant(got - want):
        yield f"you are off by the same amount everywhere, {float((got - want).mean()):.4g}."
    for text, function in FUNCTIONS.items():
        if got.numel() > 1 and _near(got, function(want)):
            yield f"your answer is {text}."
    if got.numel() > 1 and _near(got.clamp(float(want.min()), float(want.max())), want):
        yield f"values beyond {want.min():.4g} … {want.max():.4g} should have been cut off."


def _added(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """A row of numbers, such as a bias, that is in the answer too often or not at all."""
    for name, value in inputs.items():
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 1 and len(value) > 1):
            continue
        for axis in (axis for axis in range(got.ndim) if got.shape[axis] == len(value)):
            row = value.double().reshape(-1, *[1] * (got.ndim - 1 - axis))
            times = float(((got - want) * row).mean() / (row**2).mean())
            missing = abs(times + 1) < 1e-3
            if (missing or times > 0.01) and torch.allclose(
                got - want, times * row.expand_as(got), rtol=1e-3, atol=1e-4
            ):
                found = "is missing from" if missing else f"is {times:.4g} times too often in"
                yield f"`{name}` {found} your result."


def _ingredients(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """When answer and expectation both are sums of inputs times a number: which input has the wrong number?"""
    parts = {
        name: value.double()
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.shape == got.shape
    }
    sample = int((~close.reshape(len(close), -1).all(dim=1)).nonzero()[0]) if got.ndim else 0
    if len(parts) < 2 or got.ndim == 0 or got[sample].numel() <= 2 * len(parts):
        return
    columns = torch.stack([value[sample].flatten() for value in parts.values()], dim=1)
    mine, theirs = (torch.linalg.lstsq(columns, side[sample].reshape(-1, 1)).solution for side in (want, got))
    if not (_near(columns @ mine, want[sample].reshape(-1, 1)) and _near(columns @ theirs, got[sample].reshape(-1, 1))):
        return
    off = [
        f"`{name}` by {float(b):.4g} instead of {float(a):.4g}"
        for name, a, b in zip(parts, mine[:, 0], theirs[:, 0], strict=True)
        if abs(float(a - b)) > 1e-3 * abs(float(a)) + 1e-4
    ]
    t = inputs.get("t")
    where = f" (t = {int(t[sample])})" if isinstance(t, Tensor) and t.shape == got.shape[:1] else ""
    if off:
        yield f"in sample {sample}{where} you multiply {', and '.join(off)}."


def _shuffled(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    """Right numbers in the wrong place."""
    for axis in range(got.ndim):
        size = got.shape[axis]
        if size > 2 and _near(got.flip(axis), want):
            yield f"the right numbers in reverse order along axis {axis}."
        if size > 2 and _near(got.narrow(axis, 1, size - 1), want.narrow(axis, 0, size - 1)):
            yield f"axis {axis} is late by one: your entry i + 1 is the expected entry i."
        if size > 2 and _near(got.narrow(axis, 0, size - 1), want.narrow(axis, 1, size - 1)):
            yield f"axis {axis} is early by one: your entry i is the expected entry i + 1."
    if got.numel() > 2 and _near(got.flatten().sort().values, want.flatten().sort().values):
        yield "the right numbers in another order: was something reshaped where axes had to be swapped?"


def _per_sample(got: Tensor, want: Tensor, close: Tensor, inputs: dict[str, Any]) -> Iterator[str]:
    if got.ndim > 1 and len(got) > 1:
        factors = []
        for one_got, one_want in zip(got, want, strict=True):
            ratio = _ratio(one_got, one_want)
            if ratio.numel() < 2 or not _near(one_got, ratio.mean() * one_want):
                return
            factors.append(float(ratio.mean()))
        listed = ", ".join(f"{factor:.4g}" for factor in factors[:4])
        yield f"each sample is off by a factor of its own ({listed}): look at the coefficient that depends on t."


def _ratio(got: Tensor, want: Tensor) -> Tensor:
    """got / want where `want` is far enough from zero to divide by."""
    large = want.abs() > 1e-2 * want.abs().max()
    return got[large] / want[large]


def _constant(values: Tensor) -> bool:
    return float(values.max() - values.min()) <= 1e-3 * float(values.abs().max())


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-6)
