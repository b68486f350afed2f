"""What an exercise is, and the two words a notebook needs: `check` and `hint`.

    check("02.q_sample", q_sample)    runs your function on fresh random inputs and says what it saw
    hint("02.q_sample")               first the idea, then the equation, then the line

An exercise holds a reference, a maker of inputs and the wrong answers that newcomers really give. A check calls the
learner's function on every input and compares with the reference, which is computed in float64. When they differ it
looks for the first listed mistake that gives the same wrong numbers, and only then at the differences themselves.
"""

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from minivdm.course.display import ExerciseNotDone, Hint, Verdict, in_notebook, show
from minivdm.errors import UserError

if TYPE_CHECKING:
    from minivdm.course.compare import Problem

NUM_NOTEBOOKS = 10


@dataclass(frozen=True)
class Case:
    """One set of inputs: argument name -> value in the order of the signature, and what is special about it.

    tie: every call gets copies of the inputs. Where inputs hang together (a loss on a layer's weights), this makes
        them hang together again: from the copies to the arguments of the call.
    """

    args: dict[str, Any]
    note: str
    tie: Callable[[dict[str, Any]], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer: the wrong function, what its author will see, which idea is off, and one question."""

    name: str
    wrong: Callable[..., Any]
    seen: str
    why: str
    question: str

    def message(self) -> str:
        return f"{self.seen} {self.why}\nThink: {self.question}"


@dataclass(frozen=True)
class Exercise:
    """A function to write, and all that is needed to judge it.

    cases: makes the inputs from a seeded generator; sizes within a case differ pairwise, so that a swapped axis shows.
    hints: idea, equation, line.
    outputs: names of the returned values; one name means a single value, not a tuple.
    rtol, atol: allowed error relative to each expected value, and to the largest of them; float32 rounding passes.
    gradients: names of the inputs whose gradient must be right as well.
    rule: what must hold besides a right value, such as how it was computed; it gets the answer and a case whose value
        is right, may call the answer again, and returns the first Problem or None. Two answers break it in the same
        way when the problems' kinds are equal.
    makes_inputs: the answer has to make up inputs itself, from a generator of its own.
    """

    id: str
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], list[Case]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    outputs: tuple[str, ...] = ("the result",)
    rtol: float = 1e-4
    atol: float = 3e-6
    gradients: tuple[str, ...] = ()
    rule: "Callable[[Callable[..., Any], Case], Problem | None] | None" = None
    makes_inputs: bool = False

    @property
    def notebook(self) -> int:
        return int(self.id.split(".")[0])

    @property
    def name(self) -> str:
        return self.id.split(".", 1)[1]


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by id, in the order of the notebooks; a notebook without a module has none yet."""
    found: dict[str, Exercise] = {}
    for number in range(1, NUM_NOTEBOOKS + 1):
        name = f"minivdm.course.exercises.n{number:02d}"
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            continue
        found.update({exercise.id: exercise for exercise in module.EXERCISES})
    return found


def get(exercise_id: str) -> Exercise:
    """The exercise of this id; UserError with the nearest ids when there is none."""
    known = exercises()
    if exercise_id not in known:
        near = difflib.get_close_matches(str(exercise_id), known, n=3, cutoff=0.3) or list(known)[:3]
        raise UserError(f"no exercise {exercise_id!r}; did you mean {' or '.join(near)}?")
    return known[exercise_id]


def check(exercise_id: str, answer: Callable[..., Any]) -> Verdict:
    """Judge `answer`, show the verdict, and keep the source of a right answer in the workbook.

    A mistake that has a picture in the atlas of symptoms is shown with the way there. In a notebook an answer that is
    still a stub stops the run with one friendly line (ExerciseNotDone); everywhere else it is a verdict like any other.
    Raises UserError for an unknown id.
    """
    from minivdm.course.atlas.entries import where_to_look
    from minivdm.course.judging import examine
    from minivdm.course.progress import refresh
    from minivdm.course.workbook import save

    exercise = get(exercise_id)
    verdict = examine(exercise, answer)
    if verdict.not_written and in_notebook():
        raise ExerciseNotDone(verdict)
    if verdict.passed:
        verdict = replace(verdict, message=f"{verdict.message} {save(exercise, answer)}")
        refresh(exercise.notebook)
    elif looks_like := where_to_look(exercise.id, verdict.mistake):
        verdict = replace(verdict, message=f"{verdict.message}\n{looks_like}")
    show(verdict)
    return verdict


_hints_given: Counter[str] = Counter()


def hint(exercise_id: str, level: int | None = None) -> Hint:
    """The next hint: 1 the idea, 2 the equation, 3 the line; after that the last one again. `level` asks for one
    of them."""
    exercise = get(exercise_id)
    if level is None:
        _hints_given[exercise.id] += 1
        level = min(_hints_given[exercise.id], 3)
    if level not in (1, 2, 3):
        raise UserError(f"hint level {level!r}: expected 1 (idea), 2 (equation) or 3 (line)")
    given = Hint(exercise.id, level, exercise.hints[level - 1])
    show(given)
    return given
