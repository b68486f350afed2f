"""How long and how large each clip of a folder is, found by decoding it, and remembered on disk.

What a file's header says may be wrong, and what cannot be decoded cannot be trained on: so every clip is read once, at
the cost of its decoding. The result lies in a small table, 36 bytes a clip, in which a file is known by its name, size
and date: next time only new and changed files are read.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from minivdm.data.io import read_video, write_atomically
from minivdm.data.listing import Listing
from minivdm.errors import UserError

CACHE = Path(".cache/clips")
EVERY = 2000  # clips after which the table is written, so that an interruption costs little
ROW = np.dtype(
    [("key", "u8"), ("frames", "i4"), ("height", "i4"), ("width", "i4"), ("fps", "f8"), ("pixels", "u8")]
)  # key: of the file; frames: 0 where it cannot be read; pixels: a checksum of all of them


@dataclass(frozen=True)
class Measures:
    """What was found, in the order of the listing."""

    rows: np.ndarray  # of ROW
    bad: dict[int, str]  # number of a clip that cannot be read -> why


def measure(listing: Listing, cache: Path | None = CACHE) -> Measures:
    """Measure all clips of a folder. `cache` is the folder of the tables; None keeps none."""
    rows = np.zeros(len(listing.names), ROW)
    rows["key"] = [_key(listing.folder, name) for name in listing.names]
    name = hashlib.sha256(str(listing.folder.resolve()).encode()).hexdigest()[:24]
    file = None if cache is None else cache / f"{name}.npz"
    known, reasons = _read(file)
    places = np.searchsorted(known["key"], rows["key"])
    found = places < len(known)
    found[found] = known["key"][places[found]] == rows["key"][found]
    rows[found] = known[places[found]]
    new = np.flatnonzero(~found)
    for count, number in enumerate(tqdm(new, desc=f"measuring {len(new)} clips", delay=1, leave=False), start=1):
        reason = _measure(listing.folder, listing.names[int(number)], rows[number : number + 1])
        if reason:
            reasons[str(rows["key"][number])] = reason
        if file is not None and (count % EVERY == 0 or count == len(new)):
            found[new[:count]] = True
            _write(file, rows[found], reasons)
    bad = {int(number): reasons[str(rows["key"][number])] for number in np.flatnonzero(rows["frames"] == 0)}
    return Measures(rows, bad)


def _measure(folder: Path, name: str, row: np.ndarray) -> str | None:
    """Fill in a row, or say why the clip cannot be read."""
    digest, sizes = hashlib.sha256(), []

    def look(frame: np.ndarray) -> np.ndarray:
        digest.update(np.ascontiguousarray(frame))
        sizes.append(frame.shape[:2])
        return frame[:1, :1]  # the rest need not be kept

    try:
        clip = read_video(folder / name, each_frame=look, inside=folder)
    except UserError as error:
        return str(error)
    row["frames"], (row["height"], row["width"]), row["fps"] = len(sizes), sizes[0], clip.fps
    row["pixels"] = int.from_bytes(digest.digest()[:8], "big")
    return None


def _key(folder: Path, name: str) -> int:
    try:
        stat = (folder / name).stat()
    except OSError as error:  # it was there a moment ago
        stated: Sequence = (name, str(error))
    else:
        stated = (name, stat.st_size, stat.st_mtime_ns)
    return int.from_bytes(hashlib.sha256(repr(stated).encode()).digest()[:8], "big")


def _read(file: Path | None) -> tuple[np.ndarray, dict[str, str]]:
    """Rows by rising key, and reasons by key. A damaged table is measured anew."""
    try:
        if file is not None and file.is_file():
            with np.load(file, allow_pickle=False) as stored:
                rows, reasons = stored["rows"], json.loads(stored["reasons"].tobytes())
                if rows.dtype == ROW:
                    return rows, reasons
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    return np.zeros(0, ROW), {}


def _write(file: Path, rows: np.ndarray, reasons: dict[str, str]) -> None:
    buffer = io.BytesIO()
    kept = set(map(str, rows["key"][rows["frames"] == 0]))
    reasons = {key: reason for key, reason in reasons.items() if key in kept}
    np.savez(buffer, rows=np.sort(rows, order="key"), reasons=np.frombuffer(json.dumps(reasons).encode(), np.uint8))
    write_atomically(file, buffer.getvalue())
