"""Small wrong versions of a function: one operator, constant or call changed at a time, made on its syntax tree.

python tests/mutation.py          how many mutants of each reference its check catches, and in all
python tests/mutation.py 02 07    for the exercises of some notebooks only
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minivdm.course.exercise import Exercise, exercises
from minivdm.course.judging import examine
from minivdm.course.verdicts import clone_modules

OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
}


def mutants(fn: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each mutant with its source. Type annotations are left alone; helper functions stay what they are."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    function = tree.body[0]
    function.returns = None
    for argument in function.args.args:
        argument.annotation = None
    seen = {ast.unparse(tree)}
    for number in range(sum(1 for _ in ast.walk(tree))):
        for choice in range(2):
            changed = ast.parse(ast.unparse(tree))
            if not _mutate(changed, number, choice):
                continue
            source = ast.unparse(ast.fix_missing_locations(changed))
            if source not in seen:
                seen.add(source)
                yield source, _compiled(source, fn)


def _mutate(tree: ast.AST, number: int, choice: int) -> bool:
    """Changes the node with this number in walking order; False when that node offers no such choice."""
    node = list(ast.walk(tree))[number] if number < sum(1 for _ in ast.walk(tree)) else None
    if isinstance(node, ast.BinOp) and choice < len(OPERATORS.get(type(node.op), ())):
        node.op = OPERATORS[type(node.op)][choice]()
    elif isinstance(node, ast.Compare) and choice < len(OPERATORS.get(type(node.ops[0]), ())):
        node.ops[0] = OPERATORS[type(node.ops[0])][choice]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool) and choice == 0:
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        larger = node.value + 1 if isinstance(node.value, int) else node.value * 1.1
        smaller = node.value - 1 if isinstance(node.value, int) else node.value / 2
        node.value = (larger, smaller)[choice]
    elif isinstance(node, ast.If) and choice == 0:
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif choice == 0:
        return _drop(tree, node)
    else:
        return False
    return True


def _drop(tree: ast.AST, node: ast.AST | None) -> bool:
    """-x and ~x become x, and x.method() becomes x."""
    if isinstance(node, ast.UnaryOp):
        inner = node.operand
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        inner = node.func.value
    else:
        return False
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, inner)
            elif isinstance(value, list) and any(item is node for item in value):
                setattr(parent, name, [inner if item is node else item for item in value])
    return True


def _compiled(source: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    space = dict(fn.__globals__)
    exec(compile(source, f"<mutant of {fn.__name__}>", "exec"), space)
    return space[fn.__name__]


@dataclass(frozen=True)
class Score:
    """What a check made of the mutants of its reference: how many it caught, how many are right answers too, and the
    sources of those that passed and should not have."""

    exercise: str
    caught: int
    right: int
    alive: tuple[str, ...]

    def __str__(self) -> str:
        wrong = self.caught + len(self.alive)
        share = f"{self.caught / wrong:.1%}" if wrong else "-"
        return f"{self.exercise:<28}{self.caught:4d} of {wrong:4d} caught {share:>7}, {self.right} more are right"


def score(exercise: Exercise, equivalent: str) -> Score:
    """equivalent: a pattern of the sources that are right answers too, such as a clamp at another tiny number."""
    plain = replace(exercise, mistakes=())  # only the verdict matters here
    tried = [(source, examine(plain, mutant).passed) for source, mutant in mutants(exercise.reference)]
    passed = [source for source, passes in tried if passes]
    alive = tuple(source for source in passed if not re.search(equivalent, source))
    return Score(exercise.id, len(tried) - len(passed), len(passed) - len(alive), alive)


def equivalents() -> dict[str, str]:
    """By exercise, the pattern of its mutants that are right as well, from the files of alternatives."""
    files = clone_modules("exercise_alternatives*.py")
    return {name: pattern for file in files for name, pattern in getattr(file, "EQUIVALENT", {}).items()}


def total(scores: Sequence[Score]) -> Score:
    alive = tuple(source for one in scores for source in one.alive)
    return Score(f"all {len(scores)}", sum(one.caught for one in scores), sum(one.right for one in scores), alive)


def main(numbers: Sequence[str]) -> int:
    patterns, scores = equivalents(), []
    for exercise in exercises().values():
        if not numbers or f"{exercise.notebook:02d}" in numbers:
            scores.append(score(exercise, patterns.get(exercise.id, "$^")))
            print(scores[-1], *scores[-1].alive, sep="\n\n", flush=True)
    print(total(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
