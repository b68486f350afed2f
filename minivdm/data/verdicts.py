"""Verdicts against wishes: does what was seen in a clip fulfil the scene that was asked for, and if not, why?

Nothing here looks at pixels: `judge.py` does, and gives the verdicts.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minivdm.data.scenes import ATTRIBUTES, ONE_AFTER_ANOTHER, Scene, Shell
from minivdm.errors import UserError

# What is reported: a place is one answer, made of column and row.
REPORTED = {"colour": ("colour",), "shape": ("shape",), "size": ("size",), "place": ("column", "row")}
FAILURES = ("missing", "extra", "binding", "other")


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in one clip.

    shells: in the order of Scene, with their burst times. order: "together" or "then".
    legal: whether at least one shell has a colour and a shape beyond doubt and bursts after a rise.
    confidence: 0 ... 1, the probability of all those answers together, for the surest shell.
    """

    shells: tuple[Shell, ...]
    order: str
    legal: bool
    confidence: float


def match(found: Verdict | Scene, wanted: Scene) -> bool:
    """Whether a clip is what was asked for: as many shells, each with all that was said about it, in the right order.

    An attribute that `wanted` leaves None may be anything. A verdict that is not legal matches nothing.
    """
    if isinstance(found, Verdict) and not found.legal:
        return False
    return len(found.shells) == len(wanted.shells) and any(
        all(map(_agrees, shells, wanted.shells)) and _same_timing(shells, wanted.shells)
        for shells in itertools.permutations(found.shells)
    )


def accuracy(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> dict[str, float | dict[str, float]]:
    """How well clips keep to their prompts: one verdict and one wanted scene per clip.

    Shares of clips: "joint" (everything right, see `match`) and "legal"; and why clips fail, each counted once:
        "missing" or "extra" shells, "binding" (all the right colours, shapes, sizes and places, but handed to the wrong
        shells), "other".
    Share of clips with several shells, where their number is right: "order". Absent when there are none.
    Shares of wanted shells, each compared with the one found that fits it best, place first: "colour", "shape", "size",
        "place".
    "chance": the same keys for somebody who makes the right number of shells and guesses everything else.
    Raises UserError when the two lists differ in length or are empty.
    """
    if len(verdicts) != len(scenes) or not scenes:
        raise UserError(f"{len(verdicts)} clips and {len(scenes)} prompts: expected as many, and at least one")
    clips, ordered = Counter(), []
    asked, right = Counter(), Counter()
    for verdict, wanted in zip(verdicts, scenes, strict=True):
        partners = _best_partners(verdict.shells, wanted.shells)
        for one, other in zip(partners, wanted.shells, strict=True):
            for name, attributes in REPORTED.items():
                stated = [attribute for attribute in attributes if getattr(other, attribute) is not None]
                asked[name] += bool(stated)
                right[name] += bool(stated) and _agrees(one, other, stated)
        if len(verdict.shells) == len(wanted.shells) > 1:
            ordered.append(_same_timing(partners, wanted.shells))
        clips["legal"] += verdict.legal
        clips["joint" if match(verdict, wanted) else _failure(verdict, wanted)] += 1
    shares = {name: clips[name] / len(scenes) for name in ("joint", "legal", *FAILURES)}
    shares |= {name: right[name] / asked[name] for name in REPORTED if asked[name]}
    if ordered:
        shares["order"] = sum(ordered) / len(ordered)
    chance = {name: _guess(attributes) for name, attributes in REPORTED.items()} | {"order": 0.5}
    chance["joint"] = sum(map(_guess_scene, scenes)) / len(scenes)
    return shares | {"chance": chance}


def _agrees(one: Shell | None, wanted: Shell, attributes: Sequence[str] = tuple(ATTRIBUTES)) -> bool:
    """Whether a shell is as wanted in those of the attributes that are stated. None, a missing shell, never is."""
    return one is not None and all(
        getattr(wanted, name) is None or getattr(one, name) == getattr(wanted, name) for name in attributes
    )


def _same_timing(found: Sequence[Shell], wanted: Sequence[Shell]) -> bool:
    """Whether every two shells burst together, or one well before the other, as the two wanted ones do."""

    def relation(one: Shell, other: Shell) -> int:
        gap = other.burst - one.burst
        return 0 if abs(gap) <= ONE_AFTER_ANOTHER else (1 if gap > 0 else -1)

    pairs = itertools.combinations(range(len(wanted)), 2)
    return all(relation(found[i], found[j]) == relation(wanted[i], wanted[j]) for i, j in pairs)


def _best_partners(found: Sequence[Shell], wanted: Sequence[Shell]) -> tuple[Shell | None, ...]:
    """For each wanted shell the found one to compare it with, or None when there are too few."""
    candidates = [*found, *[None] * (len(wanted) - len(found))]

    def fit(partners: tuple[Shell | None, ...]) -> tuple[int, int]:
        at_place = sum(_agrees(one, other, REPORTED["place"]) for one, other in zip(partners, wanted, strict=True))
        alike = sum(
            _agrees(one, other, [name]) for one, other in zip(partners, wanted, strict=True) for name in ATTRIBUTES
        )
        return at_place, alike

    return max(itertools.permutations(candidates, len(wanted)), key=fit)


def _failure(verdict: Verdict, wanted: Scene) -> str:
    """Why a clip that does not match fails: one of FAILURES."""
    if len(verdict.shells) != len(wanted.shells):
        return "missing" if len(verdict.shells) < len(wanted.shells) else "extra"
    if any(all(map(_agrees, shells, wanted.shells)) for shells in itertools.permutations(verdict.shells)):
        return "other"  # all is bound rightly: the order is wrong, or nothing is legal
    same_parts = all(
        any(
            all(_agrees(one, other, attributes) for one, other in zip(shells, wanted.shells, strict=True))
            for shells in itertools.permutations(verdict.shells)
        )
        for attributes in REPORTED.values()
    )
    return "binding" if same_parts else "other"


def _guess(attributes: Sequence[str]) -> float:
    chance = 1.0
    for name in attributes:
        chance /= len(ATTRIBUTES[name])
    return chance


def _guess_scene(wanted: Scene) -> float:
    stated = [name for shell in wanted.shells for name in ATTRIBUTES if getattr(shell, name) is not None]
    return _guess(stated) * (0.5 if len(wanted.shells) > 1 else 1.0)
