"""Scenes in words, and words back into scenes.

    caption(scene, generator)    one of many wordings: "at the top left, a huge scarlet circle, then a tiny palm ..."
    canonical(scene)             the plain one: "a large red ring high on the left, then a small blue palm ..."
    parse_caption(text)          the scene that a text asks for, as far as it says

The grammar has synonyms for every attribute, several orders of the words about one shell, many ways to say a place, and
joins for shells that burst together ("and", "while", "alongside") or one after another ("then", "followed by", and
"after", which names the later one first). About three in ten captions of a lone shell leave something out: its size,
all or half of its place, often everything but colour and shape, now and then the shape ("a red firework") or colour.
More of them do where that is asked for (`open_places`).
Captions of several shells always say everything, because with less nobody could tell which shell is meant.
"""

import re
from collections.abc import Callable

import torch

from minivdm.data.scenes import ONE_AFTER_ANOTHER, Scene, Shell, in_order, typical_bursts

COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "gold": ("gold", "golden", "yellow"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "sapphire"),
    "purple": ("purple", "violet"),
    "white": ("white", "silver"),
}
SHAPE_WORDS = {
    "peony": ("peony", "ball"),
    "ring": ("ring", "circle"),
    "willow": ("willow", "weeping willow"),
    "palm": ("palm", "palm tree"),
    "crossette": ("crossette", "splitting star"),
    "spiral": ("spiral", "pinwheel"),
}
SIZE_WORDS = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
COLUMN_WORDS = {"left": ("left",), "centre": ("centre", "center", "middle"), "right": ("right",)}
ROW_WORDS = {"high": ("high", "top", "upper"), "low": ("low", "bottom", "lower", "ground")}
WORDS = {
    "colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "column": COLUMN_WORDS, "row": ROW_WORDS, "size": SIZE_WORDS,
}  # fmt: skip
ANY_SHAPE = ("firework", "shell")

# {side} is "on the left", "in the centre" ...; {column} the bare word.
FULL_PLACES = {
    "high": ("high {side}", "at the top {column}", "in the upper {column}", "{side} high up"),
    "low": ("low {side}", "at the bottom {column}", "in the lower {column}", "{side} near the ground"),
}
ROW_PLACES = {
    "high": ("high up", "high in the sky", "at the top"),
    "low": ("low down", "near the ground", "at the bottom"),
}
SIDES = {"left": "on the left", "centre": "in the {column}", "right": "on the right"}

VERBS = ("bursts", "explodes", "opens", "blooms")
PHRASES = (  # what is said about one shell; {verb} only where a whole clause fits
    "{a} {size} {colour} {shape} {verb} {place}",
    "{a} {size} {colour} {shape} {place}",
    "{place} {a} {size} {colour} {shape}",
    "{a} {size} {shape} in {colour} {place}",
    "{a} {colour} {shape}, {size}, {place}",
    "{place}, {a} {colour} {size} {shape}",
)
OPENINGS = ("", "", "", "a video of ", "in the night sky ", "fireworks: ")
TOGETHER = (
    "{0} and {1}",
    "{0} together with {1}",
    "{0} while {1}",
    "{0} alongside {1}",
    "{0} and at the same time {1}",
)
TOGETHER_3 = ("{0} and {1} and {2}", "{0} together with {1} and {2}", "{0} while {1} and {2}")
THEN = (
    "{0}, then {1}",
    "first {0}, then {1}",
    "{0} followed by {1}",
    "{0} and then {1}",
    "{0} before {1}",
    "{1} after {0}",
)
THEN_3 = ("{0}, then {1}, then {2}", "first {0}, then {1}, and finally {2}", "{0} followed by {1} followed by {2}")

AND_WORDS = ("and", "together", "while", "alongside", "with")
THEN_WORDS = ("then", "followed", "before", "finally")


def tokenize(text: str) -> list[str]:
    """The lower-case words of a text, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def _all_words() -> tuple[str, ...]:
    phrases = [*ANY_SHAPE, *VERBS, *PHRASES, *OPENINGS, *TOGETHER, *TOGETHER_3, *THEN, *THEN_3, *SIDES.values(), "a an"]
    phrases += [
        phrase for table in (*WORDS.values(), FULL_PLACES, ROW_PLACES) for row in table.values() for phrase in row
    ]
    return tuple(sorted({word for phrase in phrases for word in tokenize(re.sub(r"\{\w+\}", " ", phrase))}))


VOCABULARY = _all_words()  # every word that `caption` can use
MEANING = {  # "crimson" -> ("colour", "red"); of "palm tree" only "palm" decides
    word: (attribute, name)
    for attribute, table in WORDS.items()
    for name, phrases in table.items()
    for phrase in phrases
    for word in tokenize(phrase)
    if word not in ("weeping", "splitting", "tree")
}


def unknown_words(text: str) -> list[str]:
    """Words that no caption uses, in order, each once: a model trained on captions has never seen them."""
    return list(dict.fromkeys(word for word in tokenize(text) if word not in VOCABULARY))


def canonical(scene: Scene) -> str:
    """The one plain wording of a scene, by its attributes' own names. What is not known is not said."""
    text, before = "", None
    for shell in scene.shells:
        if before:
            text += ", then " if shell.burst - before.burst > ONE_AFTER_ANOTHER else " and "
        text, before = text + _plain_phrase(shell), shell
    return text


def _plain_phrase(shell: Shell) -> str:
    side = SIDES[shell.column].format(column="centre") if shell.column else None
    words = [shell.size, shell.colour, shell.shape or "firework", shell.row, side]
    return _with_article(" ".join(["{a}", *(word for word in words if word)]))


def _with_article(text: str) -> str:
    return re.sub(r"\{a\} +(\w)", lambda hit: ("an " if hit[1] in "aeiou" else "a ") + hit[1], text)


def caption(scene: Scene, generator: torch.Generator, open_places: float = 0.0) -> str:
    """Put a scene into words, differently each time. The generator decides; equal seeds give equal words.

    open_places: of the captions of a lone shell that would say everything, the share that leaves its place open, and
        mostly its size too. A model that seldom hears such sentences does not know what to do with them.
    """
    join, phrases = _compose(scene, generator, open_places)
    return join.format(*(phrase for phrase, _ in phrases))


def caption_with_owners(
    scene: Scene, generator: torch.Generator, open_places: float = 0.0
) -> tuple[str, list[int | None]]:
    """The same words, and for each of `tokenize(text)` the number of the shell that it speaks of; None for a join."""
    join, phrases = _compose(scene, generator, open_places)
    numbered = join.format(*(re.sub(r"[^\W_]+", f"#{owner}", phrase) for phrase, owner in phrases))
    owners = [int(word[1:]) if word[0] == "#" else None for word in re.findall(r"#\d|[^\W_]+", numbered)]
    return join.format(*(phrase for phrase, _ in phrases)), owners


def _compose(scene: Scene, generator: torch.Generator, open_places: float) -> tuple[str, list[tuple[str, int]]]:
    """How the phrases are joined, and the phrases in their order, each with the number of its shell."""

    def pick(options: tuple) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    shells = list(enumerate(scene.shells))
    if len(shells) == 1:
        opening = pick(OPENINGS)
        dropped = _what_to_drop(generator, open_places)
        phrase = pick(PHRASES if opening != "a video of " else PHRASES[1:2])
        return opening + "{0}", [(_phrase(scene.shells[0], phrase, dropped, pick), 0)]
    if scene.order == "then":
        join = pick(THEN if len(shells) == 2 else THEN_3)
    else:
        join = pick(TOGETHER if len(shells) == 2 else TOGETHER_3)
        shells = [shells[index] for index in torch.randperm(len(shells), generator=generator)]
    # "followed by" and the like join nouns, not sentences with a verb.
    nouns_only = any(word in join for word in ("followed", "with", "alongside"))
    phrases = PHRASES[1:] if nouns_only else PHRASES
    return join, [(_phrase(shell, pick(phrases), frozenset(), pick), number) for number, shell in shells]


def _what_to_drop(generator: torch.Generator, open_places: float) -> frozenset[str]:
    """Which attributes a caption of a lone shell keeps to itself."""
    luck = torch.rand((), generator=generator).item()
    choices = (
        (0.45 * open_places, ("size", "column", "row")),
        (0.70 * open_places, ("column", "row")),
        (0.70, ()),
        (0.80, ("size", "column", "row")),
        (0.85, ("size",)),
        (0.90, ("column", "row")),
        (0.925, ("row",)),
        (0.95, ("column",)),
        (0.975, ("shape",)),
        (1.00, ("colour",)),
    )
    return frozenset(next(dropped for limit, dropped in choices if luck < limit))


def _phrase(shell: Shell, phrase: str, dropped: frozenset[str], pick: Callable[[tuple], str]) -> str:
    """Fill one of PHRASES for a shell, without the dropped attributes."""
    if "colour" in dropped:
        phrase = phrase.replace(" in {colour}", "")
    said = {name: "" if name in dropped else pick(WORDS[name][getattr(shell, name)]) for name in ("colour", "size")}
    said["shape"] = pick(ANY_SHAPE) if "shape" in dropped else pick(SHAPE_WORDS[shell.shape])
    words = phrase.format(a="{a}", verb=pick(VERBS), place=_place(shell, dropped, pick), **said)
    words = re.sub(r"\s+", " ", words).strip(" ,")  # close the gaps that dropped words left
    return _with_article(re.sub(r"( ,)+", ",", words).replace(",,", ","))


def _place(shell: Shell, dropped: frozenset[str], pick: Callable[[tuple], str]) -> str:
    if {"column", "row"} <= dropped:
        return ""
    if "column" in dropped:
        return pick(ROW_PLACES[shell.row])
    column = pick(COLUMN_WORDS[shell.column])
    side = SIDES[shell.column].format(column=column)
    return side if "row" in dropped else pick(FULL_PLACES[shell.row]).format(side=side, column=column)


def parse_caption(text: str) -> Scene | None:
    """The scene that a text asks for: attributes that it does not mention are None, bursts are at typical times.

    Inverts every wording of `caption`, and takes looser ones such as "a red ring" or "big, green and low". Words that
    it does not know are passed over (`unknown_words` lists them). Returns None when no word with a meaning is left.
    """
    connectors = [*THEN_WORDS, "after"]
    parts = re.split(rf"\b({'|'.join(connectors)})\b", text.lower())
    steps = [step for step in map(_shells_in, parts[::2]) if step]  # each step: shells that burst together
    if not steps:
        return None
    if "after" in parts[1::2]:
        steps.reverse()
    times = typical_bursts(len(steps))
    return in_order([Shell(**said, burst=burst) for step, burst in zip(steps, times, strict=True) for said in step])


def _shells_in(text: str) -> list[dict[str, str]]:
    """Attributes of each shell in a stretch of text without "then".

    A piece between commas, "and"s and "a"s belongs to the shell before it as long as it neither contradicts that one
    nor names a second thing: "a ring, large, on the left" is one shell; "a ring, a palm" and "red and blue" are two.
    """
    shells: list[dict[str, str]] = []
    named = False  # whether the last shell's shape, or "firework", has been said
    for piece in re.split(rf",|\b(?:{'|'.join(AND_WORDS)}|an?)\b", text):
        said, names_it = {}, False
        for word in tokenize(piece):
            if word in MEANING:
                attribute, name = MEANING[word]
                said[attribute] = name
            names_it = names_it or word in ANY_SHAPE or MEANING.get(word, ("",))[0] == "shape"
        if not said and not names_it:
            continue
        contradicts = shells and any(shells[-1].get(attribute, name) != name for attribute, name in said.items())
        if not shells or contradicts or (named and names_it):
            shells.append({})
            named = False
        shells[-1] |= said
        named = named or names_it
    return shells
