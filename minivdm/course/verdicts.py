"""The table of verdicts: every exercise × {stub, each listed mistake, reference, other right answers}.

    python -m minivdm.course.verdicts           every exercise; status 1 when one verdict is not what it should be
    python -m minivdm.course.verdicts 02 07     the exercises of some notebooks only

The right answers in other words, and the wrong ones that nobody listed, are those of the tests of a clone
(`tests/exercise_alternatives*.py`, `tests/unlisted_answers*.py`); an installed package has none of them.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

from minivdm.course.display import Verdict
from minivdm.course.exercise import Exercise, exercises
from minivdm.course.judging import examine
from minivdm.paths import repo_root

KINDS = ("stub", "mistake", "reference", "other right answer", "other wrong answer")


@dataclass(frozen=True)
class Row:
    """One answer to one exercise. expected: what the verdict has to be, in the words of `outcome`."""

    exercise: str
    kind: str
    answer: str
    expected: str
    verdict: Verdict

    @property
    def right(self) -> bool:
        """A listed mistake has to be recognised by its name; of an unlisted one it is enough that it fails."""
        found = outcome(self.verdict)
        return found.startswith("wrong") if self.expected == "wrong" else found == self.expected

    def __str__(self) -> str:
        first_line = self.verdict.message.splitlines()[0]
        mark = "✓" if self.right else f"✗ expected {self.expected!r}:"
        return f"{mark} {self.exercise:<26} {self.kind:<18} {self.answer:<42} {outcome(self.verdict)}: {first_line}"


def outcome(verdict: Verdict) -> str:
    """`right`, `not written`, `wrong`, or `wrong, NAME` for a mistake that was recognised."""
    if verdict.passed:
        return "right"
    if verdict.not_written:
        return "not written"
    return f"wrong, {verdict.mistake}" if verdict.mistake else "wrong"


def rows(of: Sequence[Exercise]) -> Iterator[Row]:
    """Every answer to these exercises, judged one after the other."""
    for exercise in of:
        for kind, name, expected, answer in answers(exercise):
            yield Row(exercise.id, kind, name, expected, examine(exercise, answer))


def answers(exercise: Exercise) -> list[tuple[str, str, str, Callable[..., Any]]]:
    """All answers there are to one exercise: kind, name, expected outcome, and the function."""
    alternatives, unlisted = clone_modules("exercise_alternatives*.py"), clone_modules("unlisted_answers*.py")
    right = [answer for file in alternatives for answer in file.ALTERNATIVES.get(exercise.id, ())]
    right += [answer for file in unlisted for name, answer in file.RIGHT if name == exercise.id]
    wrong = [answer for file in unlisted for name, answer in file.WRONG if name == exercise.id]
    found = [("stub", "", "not written", stub(exercise))]
    found += [("mistake", each.name, f"wrong, {each.name}", each.wrong) for each in exercise.mistakes]
    found += [("reference", "", "right", exercise.reference)]
    found += [("other right answer", named(answer), "right", answer) for answer in right]
    return found + [("other wrong answer", named(answer), "wrong", answer) for answer in wrong]


def stub(exercise: Exercise) -> Callable[..., Any]:
    """What a learner's edition holds before anything is written."""

    def not_written(*args: Any) -> None:
        raise NotImplementedError(f"exercise {exercise.id}")

    return not_written


def named(answer: Callable[..., Any]) -> str:
    return answer.__name__.strip("<>")


def counts(table: Sequence[Row]) -> str:
    """How many of each kind were judged as they should be, on one line."""
    parts = []
    for kind in KINDS:
        of_kind = [row.right for row in table if row.kind == kind]
        if of_kind:
            parts.append(f"{kind}s {sum(of_kind)} of {len(of_kind)}")
    of = len({row.exercise for row in table})
    return f"{of} exercises, {len(table)} answers, judged as they should be: {', '.join(parts)}"


@cache
def clone_modules(pattern: str) -> list[ModuleType]:
    """The files of the clone's tests that match, as modules."""
    modules = []
    for path in sorted((repo_root() / "tests").glob(pattern)):
        spec = spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = module = module_from_spec(spec)  # so that inspect and dataclasses find it by name
        spec.loader.exec_module(module)
        modules.append(module)
    return modules


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minivdm.course.verdicts", description="The table of verdicts.")
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks; all when none is given")
    numbers = {int(number) for number in parser.parse_args(arguments).notebooks if number.isdigit()}
    table = []
    for row in rows([each for each in exercises().values() if not numbers or each.notebook in numbers]):
        table.append(row)
        print(row, flush=True)
    print(counts(table))
    return 0 if all(row.right for row in table) else 1


if __name__ == "__main__":
    sys.exit(main())
