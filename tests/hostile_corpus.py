"""A folder of files that nobody should have to trust, with what is expected of each.

    python tests/hostile_corpus.py DIR

writes DIR/clips, with a file of another owner's beside it, and prints the table. `test_hostile.py` reads them all.
"""

import os
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gif_by_hand import gif, picture
from hostile_bytes import (
    FRAMES,
    TABLE,
    animated,
    array,
    crowded_npz,
    cut,
    header,
    huge_jpeg,
    huge_webp,
    many_pictures,
    movie,
    noise,
    npz,
    patched,
    pickled_array,
    picture_with,
    squares,
    still,
    whole,
)

OUTSIDE, TRACE = "outside.gif", "the_payload_ran"


@dataclass(frozen=True)
class Case:
    """A file, and what comes of it: so many frames, or words of the reason for which it is skipped."""

    name: str
    content: Callable[[], bytes] | None = None
    frames: int = 0
    skipped: str = ""
    place: Callable[[Path], None] | None = None  # puts there what is no plain file
    listed: bool = True  # whether it is taken for a clip at all


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _unreadable(path: Path) -> None:
    path.write_bytes(whole("gif"))
    path.chmod(0)


def _folder(path: Path) -> None:
    path.mkdir()


KINDS = ("gif", "mp4", "webp", "npz")
LONG = "x" * 251 + ".gif"  # 255 bytes, the most that a name may have

CASES = (
    # Sound ones, and their ends
    *(Case(f"whole.{kind}", lambda kind=kind: whole(kind), frames=FRAMES) for kind in KINDS),
    *(Case(f"one_frame.{kind}", lambda kind=kind: whole(kind, 1), frames=1) for kind in KINDS),
    *(Case(f"one_pixel.{kind}", lambda kind=kind: whole(kind, 3, 1, 1), frames=3) for kind in KINDS),
    *(Case(f"wide.{kind}", lambda kind=kind: whole(kind, 2, 2, 20_000), frames=2) for kind in ("gif", "npz")),
    *(Case(f"empty.{kind}", lambda: b"", skipped="the file is empty") for kind in KINDS),
    *(
        Case(f"cut_{percent}.{kind}", lambda kind=kind, percent=percent: cut(kind, percent / 100), skipped=words)
        for kind, words in (("gif", "truncated GIF"), ("mp4", "truncated MP4"), ("webp", "truncated"), ("npz", "npz"))
        for percent in (10, 50, 90)
    ),
    Case("cut_3_bytes.gif", lambda: whole("gif")[:3], skipped="expected a GIF"),
    Case("cut_in_the_palette.gif", lambda: squares()[:20], skipped="truncated GIF"),
    Case("cut_before_the_picture.gif", lambda: gif(4, 4, table=TABLE, end=picture(np.ones((1, 1), int))[:8]),
         skipped="truncated GIF"),
    Case("no_end_mark.gif", lambda: squares()[:-1], frames=3),
    Case("index_first_cut.mp4", lambda: (data := movie(movflags="faststart"))[: len(data) // 2],
         skipped="truncated MP4"),
    # Under another name
    Case("png.gif", lambda: still("PNG"), skipped="expected a GIF"),
    Case("animated_png.gif", lambda: animated("PNG"), skipped="expected a GIF"),
    Case("cmyk_jpeg.gif", lambda: still("JPEG", "CMYK"), skipped="expected a GIF"),
    Case("cmyk_tiff.webp", lambda: still("TIFF", "CMYK"), skipped="expected a GIF"),
    Case("mp4.gif", lambda: whole("mp4"), frames=FRAMES),
    Case("webp.GIF", lambda: whole("webp"), frames=FRAMES),
    Case("gif.mp4", lambda: whole("gif"), frames=FRAMES),
    Case("npz.webp", lambda: whole("npz"), frames=FRAMES),
    Case("text.mp4", lambda: b"Dear reader, this is no film.", skipped="expected a GIF"),
    Case("page.gif", lambda: b"<!DOCTYPE html><title>404 Not Found</title>", skipped="expected a GIF"),
    Case("playlist.mp4", lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", skipped="expected a GIF"),
    Case("list.mp4", lambda: b"ffconcat version 1.0\nfile whole.mp4\n", skipped="expected a GIF"),
    # GIF
    *(Case(f"disposal_{i}.gif", lambda i=i: squares(disposal=i), frames=3) for i in range(8)),
    Case("interlaced.gif", lambda: squares(interlaced=True), frames=3),
    Case("transparent.gif", lambda: squares(transparent=1), frames=3),
    Case("transparent_beyond_the_palette.gif", lambda: squares(transparent=200), frames=3),
    Case("no_palette.gif", lambda: gif(2, 2, picture(np.ones((2, 2), int))), frames=1),
    Case("beside_the_canvas.gif", lambda: gif(2, 2, *[picture(np.ones((2, 2), int), (i, i)) for i in (0, 900)]),
         frames=2),
    Case("no_pixels.gif", lambda: gif(2, 2, picture(np.ones((0, 2), int))), skipped="2×0 pixels"),
    Case("no_pictures.gif", lambda: gif(2, 2, table=TABLE), skipped="without a picture"),
    Case("unknown_block.gif", lambda: gif(2, 2, b"\x99"), skipped="unknown block 0x99"),
    *(Case(f"code_size_{i}.gif", lambda i=i: picture_with(i), skipped="damaged GIF: cannot decode") for i in (13, 255)),
    Case("10000_frames.gif", lambda: many_pictures(10_000), frames=10_000),
    Case("70000_frames.gif", lambda: many_pictures(70_000), skipped="more than 65,536 frames"),
    Case("huge.gif", lambda: gif(60_000, 60_000, picture(np.ones((2, 2), int))), skipped="60000×60000 pixels"),
    Case("huge_film.gif", lambda: many_pictures(300, side=4096), skipped="more than 4,294,967,296 pixels in all"),
    Case("huge_picture.gif", lambda: patched(gif(2, 2, picture(np.ones((2, 2), int))), b"\x2c", 4, "<HH", 60_000, 9999),
         skipped="60000×9999 pixels"),
    # WebP
    Case("still.webp", lambda: still("WEBP"), frames=1),
    Case("lossy.webp", lambda: animated("WEBP", quality=50), frames=FRAMES),
    Case("transparent.webp", lambda: animated("WEBP", "RGBA", lossless=True), frames=FRAMES),
    Case("huge.webp", lambda: huge_webp(16_000, 16_000), skipped="16000×16000 pixels"),
    Case("hugest.webp", lambda: huge_webp(2**24, 2**24), skipped="16777216×16777216 pixels"),
    Case("huge_film.webp", lambda: huge_webp(4096, 4096, 300), skipped="more than 4,294,967,296 pixels in all"),
    # MP4
    Case("with_sound.mp4", lambda: movie(sound=True), frames=FRAMES),
    Case("cmyk_jpeg.mp4", lambda: movie("mjpeg", packets=(still("JPEG", "CMYK"),) * 2), frames=2),
    Case("tiff.mp4", lambda: movie("tiff", packets=(still("TIFF"),) * 2), frames=2),
    Case("huge_jpeg.mp4", lambda: movie("mjpeg", packets=(still("JPEG"), huge_jpeg())), skipped="Invalid data"),
    Case("in_fragments.mp4", lambda: movie(movflags="frag_keyframe+empty_moov"), skipped="in fragments"),
    Case("million_samples.mp4", lambda: patched(whole("mp4"), b"stsz", 4, ">II", 1, 10**7),
         skipped="more than 65,536 frames"),
    Case("million_edits.mp4", lambda: patched(whole("mp4"), b"elst", 4, ">I", 10**6), skipped="1,000,000 edits"),
    Case("million_sounds.mp4", lambda: _loud(10**9), frames=FRAMES),
    # npz
    Case("pickle.npz", lambda: npz(frames__npy=pickled_array(TRACE)), skipped="object"),
    Case("pickled_fps.npz", lambda: npz(frames__npy=array(noise()), fps__npy=pickled_array(TRACE)), skipped="object"),
    Case("huge.npz", lambda: npz(frames__npy=header((10**6, 4096, 4096, 3))), skipped="more than 134,217,728 pixels"),
    Case("huge_fps.npz", lambda: npz(frames__npy=array(noise()), fps__npy=header((10**10,), "<f8")),
         skipped="expected one float64"),
    Case("two_headed.npz", lambda: npz(frames=header((10**10, 9, 9, 3)), frames__npy=array(noise())), frames=FRAMES),
    Case("negative.npz", lambda: npz(frames__npy=header((-5, 24, 32, 3))), skipped="negative"),
    Case("announces_more.npz", lambda: npz(frames__npy=header((5, 24, 32, 3)) + bytes(99)), skipped="got 99"),
    Case("no_frames.npz", lambda: npz(frames__npy=array(noise()[:0])), skipped="no frames"),
    Case("no_array.npz", lambda: npz(frames__npy=b"hello"), skipped="magic string"),
    Case("nested_header.npz", lambda: npz(frames__npy=b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 9999 + b"\n"),
         skipped="damaged header"),
    Case("crowded.npz", crowded_npz, skipped="too many entries"),
    Case("lzma.npz", lambda: npz(zipfile.ZIP_LZMA, frames__npy=array(noise())), skipped="compression"),
    Case("stored.npz", lambda: npz(zipfile.ZIP_STORED, frames__npy=array(noise())), frames=FRAMES),
    Case("locked.npz", lambda: patched(npz(frames__npy=array(noise())), b"PK\x01\x02", 4, "<H", 1),
         skipped="is encrypted"),
    Case("climbing.npz", lambda: npz(frames__npy=array(noise()), **{"../../climbed": b"x"}), frames=FRAMES),
    # Names
    Case("two\nlines.gif", lambda: whole("gif"), frames=FRAMES),
    Case("red \x1b[31m and\nbroken.gif", lambda: b"", skipped="the file is empty"),
    Case("\u202egnp.gif", lambda: b"", skipped="the file is empty"),
    Case("🎆 fête.gif", lambda: whole("gif"), frames=FRAMES),
    Case(LONG, lambda: whole("gif"), frames=FRAMES),
    Case("-rf.gif", lambda: whole("gif"), frames=FRAMES),
    Case("concat:whole.mp4|whole.mp4", lambda: whole("mp4"), frames=FRAMES),
    Case(os.fsdecode(b"not_utf8_\xff.gif"), lambda: whole("gif"), frames=FRAMES),
    Case(".hidden.gif", lambda: whole("gif"), listed=False),
    Case("no_ending", lambda: whole("gif"), listed=False),
    # What is no file of this folder
    Case("link_inside.gif", place=_link("whole.gif"), frames=FRAMES),
    Case("link_outside.gif", place=_link(f"../{OUTSIDE}"), skipped="leads out of the folder"),
    Case("link_to_itself.gif", place=_link("link_to_itself.gif"), listed=False),
    Case("link_to_nothing.gif", place=_link("nothing.gif"), listed=False),
    Case("link_to_zeros.gif", place=_link("/dev/zero"), listed=False),
    Case("link_to_the_folder", place=_link("."), listed=False),
    Case("link_to_above", place=_link(".."), listed=False),
    Case("folder.gif", place=_folder, listed=False),
    Case("pipe.gif", place=os.mkfifo if hasattr(os, "mkfifo") else _folder, listed=False),
    # The superuser may read everything.
    Case("unreadable.gif", place=_unreadable, **(
        {"frames": FRAMES} if hasattr(os, "geteuid") and os.geteuid() == 0 else {"skipped": "Permission denied"}
    )),
)  # fmt: skip


def _loud(samples: int) -> bytes:
    """A film whose sound claims to have so many samples."""
    data = movie(sound=True)
    track = data.rindex(b"trak")  # the second one
    place = data.index(b"stsc", track) + 12
    return data[:place] + struct.pack(">I", samples) + data[place + 4 :]


def make_corpus(folder: Path) -> Path:
    """Write all cases below `folder`; returns the folder of clips."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    (folder / OUTSIDE).write_bytes(whole("gif"))
    for case in CASES:
        path = clips / case.name
        if case.place:
            case.place(path)
        else:
            path.write_bytes(case.content())
    return clips


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/hostile_corpus.py DIR")
    print(f"{len(CASES)} files in {make_corpus(Path(sys.argv[1]))}")
    for case in CASES:
        outcome = f"{case.frames} frames" if case.frames else f"skipped: {case.skipped}" if case.listed else "no clip"
        print(f"  {ascii(case.name):60} {outcome}")
