"""What lies in a folder of clips: found entry by entry, kept as a block of names."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minivdm.data.io import EXTENSIONS
from minivdm.data.packed import Packed
from minivdm.errors import UserError

TABLES = ("captions.jsonl", "captions.csv", "metadata.csv")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The clips of a folder and its subfolders by name, such as "sub/a.gif", sorted, and where captions may be."""

    folder: Path
    names: Packed[str]
    tables: list[str]  # files with captions of many clips
    texts: bool  # whether there is any .txt, which may be the caption of one

    @property
    def paths(self) -> Packed[Path]:
        """The clips as paths: the same bytes, unpacked otherwise."""
        return self.names.unpacked_by(partial(_path, self.folder))


def list_folder(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> Listing:
    """Find all clips; hidden files and folders are passed over. Raises UserError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is {'a file' if folder.exists() else 'not there'}; expected a folder of clips")
    endings = {"." + extension.lower().lstrip(".") for extension in extensions}
    seen: Counter[str] = Counter()
    tables: list[str] = []

    def clips() -> Iterator[bytes]:
        for name in walk(folder):
            suffix = os.path.splitext(name)[1]
            seen[suffix] += 1
            if suffix.lower() in endings:
                yield os.fsencode(name)
            elif name.rpartition("/")[2] in TABLES:
                tables.append(name)

    names = Packed(clips(), _name)
    if not names:
        kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in seen.items())
        raise UserError(
            f"no clips in {folder}: found {kinds or 'nothing'}, expected {' '.join(sorted(endings))}; "
            "put clips there, or make some with: minivdm data fireworks --out DIR"
        )
    return Listing(folder, names, tables, ".txt" in seen)


def list_clips(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> Sequence[Path]:
    """The clips in a folder and its subfolders, sorted by path. Raises UserError when there are none."""
    return list_folder(folder, extensions).paths


def walk(folder: str | Path, below: str = "") -> Iterator[str]:
    """Names of all files of a tree in the order of their paths, relative to `folder`, with / between the parts.

    Only one folder's names are in memory at a time. Hidden entries are passed over, linked folders are not entered, and
    a folder that may not be read is named in a warning.
    """
    try:
        with os.scandir(os.path.join(folder, below)) as entries:
            # A folder sorts by its name with the / that its files have there: so all paths come in their order.
            found = sorted(filter(None, map(_key, entries)))
    except OSError as error:
        logger.warning("cannot look into %s: %s", os.path.join(folder, below), error.strerror or error)
        return
    for name in found:
        if name.endswith("/"):
            yield from walk(folder, below + name)
        else:
            yield below + name


def _key(entry: os.DirEntry) -> str | None:
    if entry.name.startswith("."):
        return None
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    try:
        return entry.name if entry.is_file() else None
    except OSError:  # a link that leads to itself
        return None


def _name(name: bytes) -> str:
    return os.fsdecode(name)  # which itself cannot be sent to a worker process


def _path(folder: Path, name: bytes) -> Path:
    return folder / os.fsdecode(name)
