"""What FFmpeg is shown of an MP4: the video tracks alone, when their index is no larger than a clip can need.

An MP4 is boxes: a length, a tag of four letters, that many bytes. The index is the box `moov`, with a box `trak` for
each track. In it four bytes say how many samples there are, and FFmpeg makes an entry for every one before it looks for
the first: a file of a kilobyte fills gigabytes. So this is counted here; and sound, of which nobody asks
and for which FFmpeg counts in other ways, is hidden. (The boxes: ISO/IEC 14496-12.)
"""

import io
import re
import struct
from collections.abc import Iterator

from minivdm.data.limits import MAX_FRAMES, check_film_size

HIDDEN = b"none"  # no tag, so the box is passed over
MAX_INDEX = 16 * MAX_FRAMES  # entries: an edit list can show every frame several times
# Boxes that point to more index anywhere in the file, or have it packed.
ELSEWHERE = re.compile(rb"moof|mvex|trex|sidx|mfra|cmov")
# Boxes whose length is said in eight more bytes behind the tag, as nobody does for boxes of an index.
WIDE = re.compile(rb"\x00\x00\x00\x01(?:moov|trak|hdlr|stsz|stz2|elst)")
# How many samples a track has, after eight other bytes, and how many edits, after four.
COUNTS = re.compile(rb"st(?:sz|z2)(?=.{8}(.{4}))|elst(?=.{4}(.{4}))", re.DOTALL)


def video_tracks(data: bytes) -> io.BytesIO:
    """A file that reads as `data` does, without its other tracks. Raises ValueError when the index is too large."""
    file, samples, edits = io.BytesIO(data), 0, 0
    for tag, start, end in _boxes(data, 0, len(data)):
        if end > len(data):
            raise ValueError(f"truncated MP4: it holds {len(data):,} of {end:,} bytes")
        if tag == b"mdat":  # the frames, in which any letters can stand
            continue
        if ELSEWHERE.search(data, start, end):
            raise ValueError("an MP4 in fragments; join them: ffmpeg -i OLD.mp4 -c copy NEW.mp4")
        if WIDE.search(data, start - 4, end):
            raise ValueError("an MP4 with an odd index; write it anew: ffmpeg -i OLD.mp4 -c copy NEW.mp4")
        inner = _boxes(data, start + 4, end) if tag == b"moov" else ()
        hidden = [(place, min(stop, end)) for name, place, stop in inner if name == b"trak"]
        hidden = [(place, stop) for place, stop in hidden if not _is_video(data[place:stop])]
        for place, _ in hidden:
            file.seek(place)
            file.write(HIDDEN)
        # Boxes are looked for by their letters and not by their place: FFmpeg takes them at any, and reads beyond the
        # end of one that is too short.
        for found in COUNTS.finditer(data[start : end + 12]):
            if not any(place <= start + found.start() < stop for place, stop in hidden):
                samples += int.from_bytes(found[1] or b"", "big")
                edits += int.from_bytes(found[2] or b"", "big")
    check_film_size(samples, 0)
    if samples * edits > MAX_INDEX:
        raise ValueError(f"{edits:,} edits of {samples:,} frames; write it anew: ffmpeg -i OLD.mp4 NEW.mp4")
    file.seek(0)
    return file


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(tag, its place, where the box ends) of each box that begins between two places; its end may lie beyond."""
    while at + 8 <= end:
        size, tag = struct.unpack_from(">I4s", data, at)
        place, content = at + 4, at + 8
        if size == 1 and content + 8 <= end:  # the length is the next eight bytes
            size, content = struct.unpack_from(">Q", data, content)[0] - 8, content + 8
        if size == 0:  # all the rest
            size = end - content + 8
        if size < 8:
            return
        at = content + size - 8
        yield tag, place, at


def _is_video(track: bytes) -> bool:
    kinds = re.findall(rb"hdlr.{8}(.{4})", track, re.DOTALL)
    return b"vide" in kinds and b"soun" not in kinds
