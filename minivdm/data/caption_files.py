"""Captions that lie beside clips: in tables for many clips, or in `clip.txt` beside `clip.gif`.

`captions.jsonl` has lines `{"file": "a.gif", "caption": "one wording"}`; a list of strings is several wordings of the
same clip. `captions.csv` and `metadata.csv` have a row of titles with `file` (or `path`, `file_name`) and `caption` (or
`text`). What else a table says is kept as the clip's attributes. Files are named from the folder of the table, and
never outside of the folder of clips.

Tables are written by people and by programs that stop half way: a line that cannot be used is counted and named, and
the others are used.
"""

import csv
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minivdm.data.listing import Listing
from minivdm.data.packed import Packed

EXPECTED = 'expected {"file": "clip.gif", "caption": "what it shows"}'
FILE, CAPTION = ("file", "path", "file_name"), ("caption", "text")  # titles of columns
MAX_TEXT_BYTES = 2**16  # of one clip.txt: longer ones are no captions
NAMED = 100  # how many unusable lines are named; the others are counted
logger = logging.getLogger(__name__)


@dataclass
class Problems:
    """What could not be used: how much in all, and the first of it by name."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """One more, in one line that a terminal can show."""
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append("".join(sign if sign.isprintable() else "?" for sign in problem))


@dataclass
class Captions:
    """What is said about the clips of a listing, in its order."""

    wordings: Packed[list[str]]  # empty where nothing is said
    attributes: Packed[dict]
    unusable: Problems  # lines and texts that cannot be used
    missing: Problems  # names of clips that are not there


class _Unusable(ValueError):
    """Why a line is passed over."""


Row = tuple[str, list[str], dict]  # file, wordings, attributes


def read_captions(listing: Listing) -> Captions:
    """The captions of all clips: of the tables first, and for clips that these do not mention, of their `clip.txt`.

    What several lines say about a clip are several wordings of it. What cannot be used is told in one warning for all.
    """
    unusable, missing = Problems(), Problems()
    wordings, attributes = [b""] * len(listing.names), [b""] * len(listing.names)  # packed as soon as they are read
    numbers = {name: number for number, name in enumerate(listing.names)} if listing.tables else {}
    for table in listing.tables:
        for name, words, more in _read_table(listing.folder, table, unusable):
            number = numbers.get(name)
            if number is None:
                missing.add(name)
                continue
            wordings[number] = _json(list(dict.fromkeys(_list(wordings[number]) + words)))
            attributes[number] = _json(_dict(attributes[number]) | more)
    if listing.texts:
        for number, name in enumerate(listing.names):
            if not wordings[number]:
                beside = posixpath.splitext(name)[0] + ".txt"
                wordings[number] = _json(_beside(listing.folder, beside, unusable))
    if missing.count:
        text = "%s: %d captions are for files that are not there, such as %s"
        logger.warning(text, listing.folder, missing.count, missing.named[0])
    if unusable.count:
        text = "%s: %d captions cannot be used and are left out, such as %s"
        logger.warning(text, listing.folder, unusable.count, unusable.named[0])
    return Captions(Packed(wordings, _list), Packed(attributes, _dict), unusable, missing)


def swap_left_right(caption: str) -> str:
    """The caption of the mirrored clip: "left" becomes "right" and "right" becomes "left", also in "leftmost".

    Word by word, so an idiom ("right away") is turned as well: flip only clips whose captions can bear it.
    """

    def other(hit: re.Match) -> str:
        word = {"left": "right", "right": "left"}[hit[0].lower()]
        return word.upper() if hit[0].isupper() else word.capitalize() if hit[0][0].isupper() else word

    return re.sub(r"\b(left|right)(?=(most|wards?|hand(ed)?)?\b)", other, caption, flags=re.IGNORECASE)


def _json(part: list | dict) -> bytes:
    return json.dumps(part).encode() if part else b""


def _list(item: bytes) -> list[str]:
    return json.loads(item) if item else []


def _dict(item: bytes) -> dict:
    return json.loads(item) if item else {}


def _read_table(folder: Path, table: str, unusable: Problems) -> Iterator[Row]:
    """The usable rows of a table, their files named from `folder`."""
    place = posixpath.dirname(table)
    rows = _json_lines if table.endswith(".jsonl") else _csv_lines
    try:
        with open(_inside(folder, table), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for number, row in rows(file):
                try:
                    if isinstance(row, _Unusable):
                        raise row
                    yield _check(*row, place)
                except _Unusable as problem:
                    unusable.add(f"{folder / table} line {number} {problem}")
    except (OSError, _Unusable) as problem:
        unusable.add(f"{folder / table} {getattr(problem, 'strerror', None) or problem}")


def _json_lines(file: Iterator[str]) -> Iterator[tuple[int, Row | _Unusable]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _Unusable(f"is not JSON ({error}); {EXPECTED}")
            continue
        if not isinstance(row, dict) or not isinstance(row.get("file"), str):
            yield number, _Unusable(f"names no file; {EXPECTED}")
            continue
        caption = row.get("caption", [])
        wordings = [caption] if isinstance(caption, str) else caption
        if isinstance(wordings, list) and all(isinstance(wording, str) for wording in wordings):
            more = {key: value for key, value in row.items() if key not in ("file", "caption")}
            yield number, (row["file"], wordings, more)
        else:
            yield number, _Unusable(f"has the caption {str(caption)[:40]!r}; {EXPECTED} or a list of strings")


def _csv_lines(file: Iterator[str]) -> Iterator[tuple[int, Row | _Unusable]]:
    head = next(file, "")
    delimiter = max(",;\t", key=head.count)  # of equally frequent ones the comma
    titles = [title.strip().lower() for title in next(csv.reader([head], delimiter=delimiter), [])]
    columns = [next((titles.index(name) for name in names if name in titles), None) for names in (FILE, CAPTION)]
    if None in columns:
        found = ", ".join(titles)[:80] or "nothing"
        raise _Unusable(f"has the columns {found}; expected file or path, and caption or text")
    file_at, caption_at = columns
    rows = csv.reader(file, delimiter=delimiter)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield rows.line_num + 1, _Unusable(f"is not CSV ({error})")
            continue
        if row is None:
            return
        if len(row) == len(titles):
            more = {titles[i]: value for i, value in enumerate(row) if i not in columns and value}
            yield rows.line_num + 1, (row[file_at], [row[caption_at]], more)
        elif row:
            yield rows.line_num + 1, _Unusable(f"has {len(row)} columns, not the {len(titles)} of the first line")


def _check(name: str, wordings: list[str], attributes: dict, place: str) -> Row:
    """A row with its file named from the root of the clips. Raises _Unusable for names outside and broken text."""
    try:
        json.dumps([name, wordings, attributes], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Unusable("is not text in UTF-8") from None
    except RecursionError:
        raise _Unusable("is nested too deeply") from None
    path = posixpath.normpath(posixpath.join(place, name))
    if not name or posixpath.isabs(path) or path.split("/")[0] == "..":
        raise _Unusable(f"names {name[:80]!r}, which is outside the folder; name files from the table's folder")
    return path, [text for wording in wordings if (text := wording.strip())], attributes


def _beside(folder: Path, name: str, unusable: Problems) -> list[str]:
    """The caption in a `clip.txt`, if it is there."""
    if not os.path.isfile(folder / name):
        return []
    try:
        path = _inside(folder, name)
        if (size := path.stat().st_size) > MAX_TEXT_BYTES:
            raise _Unusable(f"has {size:,} bytes, more than the {MAX_TEXT_BYTES:,} of a caption")
        text = " ".join(path.read_text("utf-8-sig").split())
    except UnicodeDecodeError:
        unusable.add(f"{folder / name} is not text in UTF-8")
        return []
    except (OSError, _Unusable) as problem:
        unusable.add(f"{folder / name} {getattr(problem, 'strerror', None) or problem}")
        return []
    return [text] if text else []


def _inside(folder: Path, name: str) -> Path:
    """The file's path, unless it is a link that leads out of the folder."""
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise _Unusable("is a link that leads out of the folder")
    return path
