"""What a fireworks clip contains: shells with a colour, a shape, a place, a size and a burst time.

A scene is the *answer* that a clip is graded against: captions are written from it, the renderer draws it, the judge
reads it back from pixels. Which combinations training never shows is decided here too, so that composition is measured.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from minivdm.errors import UserError

COLOURS = ("red", "orange", "gold", "green", "cyan", "blue", "purple", "white")
SHAPES = ("peony", "ring", "willow", "palm", "crossette", "spiral")
COLUMNS = ("left", "centre", "right")
ROWS = ("high", "low")
SIZES = ("small", "large")
ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "column": COLUMNS, "row": ROWS, "size": SIZES}

TICKS = 16  # every clip spans the instants 0 ... 16, whatever its number of frames
ONE_AFTER_ANOTHER = 2.0  # bursts further apart than this many ticks are "then", closer ones "together"

# Each colour and each shape is seen in training, but never these two together (8 of 48 pairs).
HELD_OUT_KINDS = frozenset(
    {
        ("red", "ring"),
        ("orange", "crossette"),
        ("gold", "peony"),
        ("green", "willow"),
        ("cyan", "spiral"),
        ("blue", "palm"),
        ("purple", "ring"),
        ("white", "spiral"),
    }
)


@dataclass(frozen=True)
class Shell:
    """One firework. An attribute is None where it is not known (a caption need not say everything).

    colour, shape, column, row, size: a name from COLOURS, SHAPES, COLUMNS, ROWS, SIZES, or None.
    burst: when it bursts, in ticks (0 ... 16); the default is typical of a lone shell.
    Raises UserError for a name that this world does not have.
    """

    colour: str | None = None
    shape: str | None = None
    column: str | None = None
    row: str | None = None
    size: str | None = None
    burst: float = 4.2

    def __post_init__(self) -> None:
        for attribute, names in ATTRIBUTES.items():
            found = getattr(self, attribute)
            if found is not None and found not in names:
                raise UserError(f"a shell has {attribute} {found!r}; this world knows {', '.join(names)}")
        if not 0 <= self.burst <= TICKS:
            raise UserError(f"a shell bursts at tick {self.burst}; a clip spans ticks 0 to {TICKS}")

    @property
    def kind(self) -> tuple[str | None, str | None]:
        """(colour, shape): what the held-out combinations are about."""
        return self.colour, self.shape

    @property
    def place(self) -> tuple[str | None, str | None]:
        """(column, row): no two shells of a scene share it."""
        return self.column, self.row


@dataclass(frozen=True)
class Scene:
    """One clip's shells in the order in which they burst (those that burst together: from left to right, high first).

    No shells is an empty sky.
    """

    shells: tuple[Shell, ...]

    @property
    def order(self) -> str:
        """Either "then", bursts one after another, or "together" (so also for a single shell)."""
        bursts = sorted(shell.burst for shell in self.shells)
        gaps = [later - earlier for earlier, later in itertools.pairwise(bursts)]
        return "then" if gaps and max(gaps) > ONE_AFTER_ANOTHER else "together"

    @property
    def held_out(self) -> bool:
        """True when training never shows this: a held-out colour with shape, or a held-out pair of shells."""
        kinds = [shell.kind for shell in self.shells]
        return any(kind in HELD_OUT_KINDS for kind in kinds) or any(
            pair_is_held_out(*pair) for pair in itertools.combinations(kinds, 2)
        )

    def to_dict(self) -> dict:
        """Plain lists and strings, for `captions.jsonl`."""
        return {"shells": [asdict(shell) for shell in self.shells], "order": self.order}

    @classmethod
    def from_dict(cls, record: dict) -> "Scene":
        """Inverse of `to_dict`. Raises UserError when the record is not a scene."""
        try:
            return cls(tuple(Shell(**shell) for shell in record["shells"]))
        except (KeyError, TypeError) as error:
            raise UserError(f"not a scene ({error}): expected {{'shells': [{{'colour': ..., ...}}]}}") from error


def pair_is_held_out(one: tuple, other: tuple) -> bool:
    """Whether two (colour, shape) kinds are never in one training clip. Each kind loses about one partner in seven.

    The rule adds the two kinds' numbers, so it does not depend on which shell is named first.
    """
    if None in one or None in other:
        return False
    number = [COLOURS.index(colour) * len(SHAPES) + SHAPES.index(shape) for colour, shape in (one, other)]
    return sum(number) % 7 == 3


def in_order(shells: list[Shell]) -> Scene:
    """A Scene with its shells sorted as its docstring promises. A place that is not known counts as left, or high."""

    def reading(shell: Shell) -> tuple[int, int]:
        return COLUMNS.index(shell.column or "left"), ROWS.index(shell.row or "high")

    if Scene(tuple(shells)).order == "together":
        return Scene(tuple(sorted(shells, key=reading)))
    return Scene(tuple(sorted(shells, key=lambda shell: shell.burst)))


def typical_bursts(steps: int) -> list[float]:
    """Burst times, in ticks, of shells one after another when nothing more is known."""
    if steps == 1:
        return [4.2]
    first, last = 2.9, 8.2 if steps == 2 else 10.4
    return [round(first + (last - first) * step / (steps - 1), 2) for step in range(steps)]


def sample_scenes(
    num_clips: int, level: str = "single", split: str = "train", *, generator: torch.Generator
) -> list[Scene]:
    """Draw scenes evenly over all attributes.

    level: "single" has one shell; "scene" has one, two or three (a quarter, a half, a quarter), at distinct places,
        which burst together or one after another with equal chance.
    split: "train" never holds a held-out combination; in "test" every second scene does, starting with the second.
    Raises UserError for an unknown level or split.
    """
    if level not in ("single", "scene"):
        raise UserError(f"level {level!r}: expected 'single' (one shell) or 'scene' (one to three)")
    if split not in ("train", "test"):
        raise UserError(f"split {split!r}: expected 'train' or 'test'")
    draws = _uniform_numbers(generator)
    scenes = []
    for index in range(num_clips):
        held_out = split == "test" and index % 2 == 1
        count = 1 if level == "single" else (1, 2, 2, 3)[int(4 * next(draws))]
        scene = _draw_scene(count, draws)
        while scene.held_out != held_out:
            scene = _draw_scene(count, draws)
        scenes.append(scene)
    return scenes


def _uniform_numbers(generator: torch.Generator) -> Iterator[float]:
    """Endless numbers in [0, 1), drawn in blocks because one call per number would be slow."""
    while True:
        yield from torch.rand(4096, generator=generator, dtype=torch.float64).tolist()


def _draw_scene(count: int, draws: Iterator[float]) -> Scene:
    """One scene of `count` shells, with no regard to what is held out."""
    places = list(itertools.product(COLUMNS, ROWS))
    shells = []
    for burst in _draw_bursts(count, draws):
        column, row = places.pop(int(len(places) * next(draws)))
        colour, shape, size = (names[int(len(names) * next(draws))] for names in (COLOURS, SHAPES, SIZES))
        shells.append(Shell(colour, shape, column, row, size, burst))
    return in_order(shells)


def _draw_bursts(count: int, draws: Iterator[float]) -> list[float]:
    """Burst times in ticks: about one instant when together; else so early that the last one still has time to open."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * next(draws)

    if count == 1 or next(draws) < 0.5:
        common = uniform(3.4, 5.0) if count > 1 else uniform(3.2, 5.2)
        return [round(common + (uniform(-0.3, 0.3) if count > 1 else 0.0), 3) for _ in range(count)]
    low, high = (4.4, 6.2) if count == 2 else (3.5, 4.0)
    bursts = [uniform(2.6, 3.2)]
    for _ in range(count - 1):
        bursts.append(bursts[-1] + uniform(low, high))
    return [round(burst, 3) for burst in bursts]
