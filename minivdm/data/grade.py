"""`minivdm judge DIR`: a line for every clip of a folder."""

from collections.abc import Iterator
from pathlib import Path

from minivdm.data.io import from_uint8, read_video
from minivdm.data.judge import judge
from minivdm.data.listing import list_clips
from minivdm.errors import UserError, printable


def grade_folder(folder: Path) -> Iterator[str]:
    """Yield `file: shells, when they burst, how sure the judge is`, then a summary.

    Raises UserError for an empty folder.
    """
    legal = total = 0
    for path in list_clips(folder):
        try:
            video = from_uint8(read_video(path, inside=folder).frames)[None]
        except UserError as error:
            yield str(error)
            continue
        verdict = judge(video)[0]
        total, legal = total + 1, legal + verdict.legal
        shells = f" {verdict.order} ".join(
            f"{shell.size} {shell.colour} {shell.shape} {shell.row} {shell.column}, bursts at tick {shell.burst:.1f}"
            for shell in verdict.shells
        )
        judged = f"{'legal' if verdict.legal else 'not legal'}, {verdict.confidence:.2f}"
        yield f"{printable(str(path.relative_to(folder)))}: {shells or 'no shell'} ({judged})"
    yield f"{legal} of {total} clips are legal fireworks"
