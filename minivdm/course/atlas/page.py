"""The page of the atlas: animated pictures, wrong film beside right one, and the words around them."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minivdm.course.atlas.choices import CHOICES, Choice
from minivdm.course.atlas.entries import ENTRIES
from minivdm.course.atlas.entry import Entry
from minivdm.course.exercise import Mistake, get
from minivdm.data.io import read_video, to_uint8, write_video
from minivdm.errors import UserError
from minivdm.paths import repo_root

HEIGHT, GAP = 64, 2  # of a picture, and of the stripe between its halves, in pixels
SHOWN = 2  # times as large on the page: a browser enlarges for nothing, a file does not
STRIPE = 128  # grey
SECONDS = 2.0  # a film lasts

HEAD = """# Your video looks like this? Look here.

Every picture shows two films that began with the same noise, or were decoded from the same latents. **Left: with one
mistake. Right: without.** The mistake is one that an exercise of the course knows by name. Its own solution was put
into the shipped models, then the mistaken answer, and nothing else was changed: what you see is what came out. Further
down: what comes of settings and prompts, without any mistake; and at the end mistakes that *cannot* be seen.

Most films are of *a large red peony high on the left*: 9 frames of 32×32 pixels by the shipped `Unet3D`, or 17 of
64×64 by the shipped text-to-video model, enlarged. How far two films are apart is given in levels of 255: of the
average pixel, and of the worst. To draw all of them again, in a few minutes: `python -m minivdm.course.atlas`.

| what you see | look at |
|---|---|
"""
CHOICES_HEAD = """# Choices that show

Here the code is right, and the films are as they were asked for. Left and right differ in one thing that was asked."""
UNSEEN_HEAD = """# Mistakes that you cannot see

A film with one of these looks right; only beside the right one, if at all, do you find the difference. The check of the
exercise finds it."""


def stage_of(entry: Entry) -> Callable[[Callable], Tensor]:
    """The function that draws a film (1, 3, T, H, W) with an answer to the entry's exercise put in."""
    return getattr(import_module(f"minivdm.course.atlas.{entry.stages}"), get(entry.exercise).name)


def mistake_of(entry: Entry) -> Mistake:
    """The mistake as its exercise lists it; UserError when it lists none of this name."""
    listed = {mistake.name: mistake for mistake in get(entry.exercise).mistakes}
    if entry.mistake not in listed:
        raise UserError(f"{entry.exercise} lists no mistake {entry.mistake!r}: it has {', '.join(listed)}")
    return listed[entry.mistake]


def picture(entry: Entry | Choice) -> np.ndarray:
    """The films with and without the mistake, side by side: (T, HEIGHT, 2 · width + GAP, 3) uint8."""
    if isinstance(entry, Choice):
        return side_by_side(*entry.films())
    stage = stage_of(entry)
    return side_by_side(stage(mistake_of(entry).wrong), right_film(stage, entry.exercise))


@cache
def right_film(stage: Callable[[Callable], Tensor], exercise: str) -> Tensor:
    """What a stage draws without a mistake, drawn once."""
    return stage(get(exercise).reference)


def side_by_side(wrong: Tensor, right: Tensor) -> np.ndarray:
    """Two films (1, 3, T, H, W) in [-1, 1] -> (T, HEIGHT, 2 · width + GAP, 3) uint8, every pixel a square."""
    films = []
    for film in (wrong, right):
        frames = to_uint8(torch.nan_to_num(film[0], -1.0))
        scale = HEIGHT // frames.shape[1]
        films.append(frames.repeat(scale, axis=1).repeat(scale, axis=2))
    return np.concatenate([films[0], np.full((*films[0].shape[:2], GAP, 3), STRIPE, np.uint8), films[1]], axis=2)


def apart(frames: np.ndarray) -> tuple[float, int]:
    """How far the two films of a picture are apart, in levels: the average pixel, and the worst one."""
    width = (frames.shape[2] - GAP) // 2
    difference = np.abs(frames[:, :, :width].astype(int) - frames[:, :, width + GAP :])
    return float(difference.mean()), int(difference.max())


def draw(entry: Entry | Choice, folder: Path) -> None:
    """Writes the entry's picture."""
    frames = picture(entry)
    write_video(folder / f"{entry.name}.webp", frames, fps=len(frames) / SECONDS)


def page(folder: Path) -> str:
    """The page as markdown. Raises UserError when a picture is missing."""
    if missing := [entry.name for entry in (*ENTRIES, *CHOICES) if not (folder / f"{entry.name}.webp").is_file()]:
        raise UserError(f"{folder} lacks {missing[0]}.webp, and {len(missing) - 1} more: draw all, without names")
    seen, unseen = ([entry for entry in ENTRIES if entry.unseen == hidden] for hidden in (False, True))
    parts = [_row(entry, f"`{entry.exercise}`") for entry in seen]
    parts += [_row(choice, "what was asked for") for choice in CHOICES]
    parts += [_row(entry, f"`{entry.exercise}`") for entry in unseen]
    parts += ["\n", *(_section(entry, folder) for entry in seen)]
    parts += [f"{CHOICES_HEAD}\n\n", *(_choice(choice, folder) for choice in CHOICES)]
    parts += [f"{UNSEEN_HEAD}\n\n", *(_section(entry, folder) for entry in unseen)]
    return (HEAD + "".join(parts)).rstrip() + "\n"


def _row(entry: Entry | Choice, look_at: str) -> str:
    return f"| [{entry.title}](#{entry.anchor}) | {look_at} |\n"


def _section(entry: Entry, folder: Path) -> str:
    mistake, number = mistake_of(entry), entry.exercise[:2]
    lesson = next((repo_root() / "solutions").glob(f"{number}_*.py")).stem
    return (
        f"{_shown(entry, folder)}"
        f"**What it is.** “{mistake.seen}”\n\n"
        f"**Why.** {entry.why}\n\n"
        f"**Where.** Exercise `{entry.exercise}`, [lesson {number}](../../notebooks/{lesson}.ipynb); "
        f"`minivdm hint {entry.exercise}`\n\n"
    )


def _choice(choice: Choice, folder: Path) -> str:
    left, right = choice.calls()
    return (
        f"{_shown(choice, folder)}"
        f"**What it is.** Left `{left}`, right `{right}`.\n\n"
        f"**Why.** {choice.why}\n\n"
        f"**What helps.** {choice.remedy}\n\n"
    )


def _shown(entry: Entry | Choice, folder: Path) -> str:
    """Heading, picture, and what there is to see."""
    frames = read_video(folder / f"{entry.name}.webp").frames
    mean, worst = apart(frames)
    size = f'width="{SHOWN * frames.shape[2]}" height="{SHOWN * HEIGHT}"'
    return (
        f"## {entry.title}\n\n"
        f'<img src="{entry.name}.webp" {size} alt="{entry.alt}">\n\n'
        f"**What you see.** {entry.seen} (The films are {mean:.1f} levels apart, {worst} at the worst pixel.)\n\n"
    )


def write(folder: Path, names: Sequence[str] = ()) -> None:
    """Draws the pictures of these names, all without a name, then the page. UserError for an unknown name."""
    known = {entry.name: entry for entry in (*ENTRIES, *CHOICES)}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no symptom {unknown[0]!r}: there are {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        draw(known[name], folder)
        print(f"{name}: {apart(read_video(folder / f'{name}.webp').frames)[0]:.1f} levels apart", flush=True)
    (folder / "README.md").write_text(page(folder), encoding="utf-8", newline="\n")
