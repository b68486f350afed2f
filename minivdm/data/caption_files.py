"""Captions that lie beside clips: lines of `captions.jsonl`, or `clip.txt` beside `clip.gif`.

A line of `captions.jsonl` is `{"file": "a.gif", "caption": "one wording"}`; a list of strings is several wordings of
the same clip. Other keys are kept as its attributes. `file` is relative to the folder of the `captions.jsonl`.
"""

import json
import logging
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path

from minivdm.errors import UserError

TABLE = "captions.jsonl"
EXPECTED = 'expected {"file": "clip.gif", "caption": "what it shows"}'
logger = logging.getLogger(__name__)


@dataclass
class Words:
    """What is said about one clip."""

    wordings: list[str] = field(default_factory=list)
    attributes: dict = field(default_factory=dict)


def read_captions(folder: Path, clips: list[Path]) -> list[Words]:
    """The words of each clip, empty where there are none; `captions.jsonl` wins over `clip.txt`.

    Lines for files that are not there are counted in one warning. Raises UserError, naming the line, when one is not of
    the form above or names a file outside `folder`: such a table is not what it seems.
    """
    said = {path.relative_to(folder).as_posix(): Words() for path in clips}
    missing = []
    for table in sorted(folder.rglob(TABLE)):
        for number, line in enumerate(_read_text(table).split("\n"), start=1):
            if not line.strip():
                continue
            name, wordings, attributes = _read_line(line, f"{table} line {number}", table.parent.relative_to(folder))
            if name in said:
                said[name].wordings += wordings
                said[name].attributes |= attributes
            else:
                missing.append(name)
    if missing:
        logger.warning("%s: %d captions are for files that are not there, such as %s", folder, len(missing), missing[0])
    for path, words in zip(clips, said.values(), strict=True):
        beside = path.with_suffix(".txt")
        if not words.wordings and beside.is_file():
            words.wordings = [" ".join(_read_text(beside).split())]
    return list(said.values())


def swap_left_right(caption: str) -> str:
    """The caption of the mirrored clip: "left" becomes "right" and "right" becomes "left", also in "leftmost".

    Word by word, so an idiom ("right away") is turned as well: flip only clips whose captions can bear it.
    """

    def other(hit: re.Match) -> str:
        word = {"left": "right", "right": "left"}[hit[0].lower()]
        return word.upper() if hit[0].isupper() else word.capitalize() if hit[0][0].isupper() else word

    return re.sub(r"\b(left|right)(?=(most|wards?|hand(ed)?)?\b)", other, caption, flags=re.IGNORECASE)


def _read_line(line: str, where: str, place: Path) -> tuple[str, list[str], dict]:
    """(path of the clip from the root, wordings, attributes) of one line of a table that lies in `place`."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); {EXPECTED}") from None
    if not isinstance(row, dict) or not isinstance(row.get("file"), str):
        raise UserError(f"{where} names no file; {EXPECTED}")
    caption = row.get("caption", [])
    wordings = [caption] if isinstance(caption, str) else caption
    if not isinstance(wordings, list) or not all(isinstance(wording, str) for wording in wordings):
        raise UserError(f"{where} has the caption {caption!r}; {EXPECTED} or a list of strings")
    name = posixpath.normpath(posixpath.join(place.as_posix(), row["file"]))
    if posixpath.isabs(name) or name.split("/")[0] == "..":
        raise UserError(f"{where} names {row['file']}, which is outside the folder; name files from the table's folder")
    return name, wordings, {key: value for key, value in row.items() if key not in ("file", "caption")}


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the captions in {path} ({error}); expected a text file in UTF-8") from None
