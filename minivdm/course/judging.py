"""Judges one answer: calls it on every case, then says the most useful true thing about what happened.

In this order: not written yet; an input changed in place; random numbers drawn; right; a listed mistake; own noise from
a private generator; the learner's own error; the first suspect.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch

from minivdm.course.compare import Problem, Tolerance, agree, first_problem
from minivdm.course.display import Verdict
from minivdm.course.exercise import Case, Exercise, Mistake
from minivdm.course.gradients import gradient_problem, gradients_of
from minivdm.course.runner import Outcome, OutOfTime, call, draws_random_numbers, fresh, where_raised


@torch.inference_mode(False)
@torch.enable_grad()  # a notebook may have turned gradients off, and some exercises are about them
def examine(exercise: Exercise, answer: Callable[..., Any]) -> Verdict:
    """The verdict on `answer`, without showing or keeping anything."""
    if not callable(answer):
        text = f'Pass the function itself, without calling it: `check("{exercise.id}", {exercise.name})`'
        return _fail(exercise, f"{text}; got a {type(answer).__name__}.")
    cases = exercise.cases(torch.Generator().manual_seed(0))
    outcomes: list[Outcome] = []
    for case in cases:
        outcomes.append(call(answer, case.args, exercise.gradients, case.tie))
        if _is_stub(outcomes[-1].error):
            return _not_written(exercise, outcomes[-1].error)
        if isinstance(outcomes[-1].error, OutOfTime):
            text = f"Your function was {outcomes[-1].error}, where milliseconds are enough."
            return _fail(exercise, f"{text}\nThink: which of your loops never ends?", "never ends")
    if verdict := _side_effect(exercise, outcomes):
        return verdict
    problems = [_problem(exercise, answer, case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]
    if not any(problems):
        return Verdict(True, "Right, on every input tried.", None, exercise.id)
    for mistake in exercise.mistakes:
        if _gives_the_same(mistake, exercise, cases, outcomes, problems):
            return _fail(exercise, mistake.message(), mistake.name)
    first = next(index for index, problem in enumerate(problems) if problem)
    may_draw = exercise.makes_inputs or outcomes[first].error is not None
    if not may_draw and draws_random_numbers(answer, cases[first].args, cases[first].tie):
        return _fail(exercise, _RANDOM_MESSAGE, "draws its own noise")
    return _fail(exercise, f"{problems[first].text}{_other_cases(cases, problems)}")


_RANDOM_MESSAGE = (
    "Your function draws random numbers of its own. All the randomness it needs comes in through its arguments, so "
    "that "
    "the same inputs always give the same film.\nThink: how would you repeat a run exactly if every function "
    "rolled its own dice?"
)

_GENERATOR_MESSAGE = (
    "Your function takes its random numbers from the state that everybody shares, and so changes what is drawn after "
    "it. Give it a generator of its own: `torch.randn(shape, generator=torch.Generator().manual_seed(0))`.\nThink: "
    "would a training run be the same with and without a call to your function in the middle?"
)


def _side_effect(exercise: Exercise, outcomes: list[Outcome]) -> Verdict | None:
    """In-place changes and moved random states fail whatever the value is."""
    changed = list(dict.fromkeys(name for outcome in outcomes for name in outcome.changed))
    if changed:
        named = " and ".join(f"`{name}`" for name in changed)
        text = f"Your function changes its input {named} in place: the caller's own tensor is not what it was."
        question = f"what would a second call with the same {named} return?"
        advice = "Build a new tensor instead (`a = a + b`, not `a += b`)."
        return _fail(exercise, f"{text} {advice}\nThink: {question}", "changes an input")
    moved = list(dict.fromkeys(name for outcome in outcomes for name in outcome.moved_random_state))
    if moved:
        told = _GENERATOR_MESSAGE if exercise.makes_inputs else _RANDOM_MESSAGE
        text = f"{told}\n(The global random state of {' and '.join(moved)} moved during the call.)"
        return _fail(exercise, text, "draws its own noise")
    return None


def _problem(exercise: Exercise, answer: Callable[..., Any], case: Case, outcome: Outcome) -> Problem | None:
    if outcome.error is not None:
        return Problem("error", _own_error(exercise, case, outcome.error))
    want = expected(exercise, case)
    tolerance = Tolerance(exercise.rtol, exercise.atol)
    problem = first_problem(outcome.value, want, exercise.outputs, tolerance, case.args)
    if problem is None and exercise.gradients:
        problem = gradient_problem(exercise, case, outcome, tolerance)
    if problem is None and exercise.rule:
        problem = exercise.rule(answer, case)
    return problem


def expected(exercise: Exercise, case: Case) -> Any:
    """What the reference gives in float64."""
    inputs = {name: _widened(value) for name, value in case.args.items()}
    return exercise.reference(*(case.tie(inputs) if case.tie else inputs).values())


def _widened(value: Any) -> Any:
    copy = fresh(value)
    return copy.double() if isinstance(copy, torch.Tensor) and copy.is_floating_point() else copy


def _gives_the_same(
    mistake: Mistake, exercise: Exercise, cases: list[Case], outcomes: list[Outcome], problems: list[Problem | None]
) -> bool:
    """True when the listed mistake gives the learner's values (or kind of error) and breaks the rule alike, in every
    case."""
    tolerance = Tolerance(exercise.rtol, exercise.atol)
    for case, outcome, problem in zip(cases, outcomes, problems, strict=True):
        wrong = call(mistake.wrong, case.args, exercise.gradients, case.tie)
        if wrong.error is not None or outcome.error is not None:
            if _what(wrong.error) != _what(outcome.error):
                return False
        elif not agree(outcome.value, wrong.value, tolerance):
            return False
        elif exercise.gradients:
            if not agree(gradients_of(exercise, outcome), gradients_of(exercise, wrong), tolerance):
                return False
        if exercise.rule and _kind(problem) != _kind(_problem(exercise, mistake.wrong, case, wrong)):
            return False
    return True


def _what(error: BaseException | None) -> tuple[type, str]:
    """The kind of an error. RuntimeError is torch's word for everything: its message counts, without sizes."""
    return type(error), re.sub(r"\d+", "", str(error)) if type(error) is RuntimeError else ""


def _kind(problem: Problem | None) -> str | None:
    return problem.kind if problem else None


def _is_stub(error: BaseException | None) -> bool:
    """Our stubs, and a bare `raise NotImplementedError`; torch's own errors of that type have another text."""
    return isinstance(error, NotImplementedError) and (not error.args or str(error).startswith("exercise "))


def _not_written(exercise: Exercise, error: BaseException) -> Verdict:
    other = str(error).removeprefix("exercise ").strip()
    if other and other != exercise.id:
        text = f"Exercise {exercise.id} calls exercise {other}, which is not written yet. Write {other} first."
    else:
        text = (
            f"Exercise {exercise.id} is not written yet: replace the `raise` in `{exercise.name}` with your code "
            f"and run "
            f'the cell again; `hint("{exercise.id}")` helps.'
        )
    return Verdict(False, text, None, exercise.id, not_written=True)


def _own_error(exercise: Exercise, case: Case, error: BaseException) -> str:
    """The learner's exception, short: what, where, and what the function was called with."""
    lines = str(error).strip().splitlines() or [""]
    where = where_raised(error)
    text = f"Your code raised `{type(error).__name__}: {lines[0][:200]}`" + (f" in {where}." if where else ".")
    if isinstance(error, TypeError) and "argument" in lines[0]:
        text += f"\nThe check calls `{exercise.name}{inspect.signature(exercise.reference)}`."
    return f"{text}\nIt was called with {_called_with(case)}."


def _called_with(case: Case) -> str:
    def short(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
        if callable(value):
            return "a function"
        return str(tuple(value)) if isinstance(value, tuple) else repr(value)

    return ", ".join(f"{name} = {short(value)}" for name, value in case.args.items())


def _other_cases(cases: list[Case], problems: list[Problem | None]) -> str:
    """Where the answer is right and where it is not, when that is a clue."""
    right = [case.note for case, problem in zip(cases, problems, strict=True) if problem is None]
    wrong = [case.note for case, problem in zip(cases, problems, strict=True) if problem]
    if not right:
        return ""
    return f"\nIt is right for {'; '.join(right)}. It is wrong for {'; '.join(wrong)}."


def _fail(exercise: Exercise, message: str, mistake: str | None = None) -> Verdict:
    return Verdict(False, message, mistake, exercise.id)
