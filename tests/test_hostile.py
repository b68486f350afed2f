"""Files that nobody should have to trust: each comes to its expected end, in time, in memory, and inside its folder."""

import json
import logging
import struct

import numpy as np
import pytest
import torch
from hostile_bytes import FRAMES, Payload, whole
from hostile_corpus import CASES, TRACE, make_corpus
from in_a_child import run_limited

from minivdm.data import limits
from minivdm.data.captions import parse_caption, tokenize, unknown_words
from minivdm.data.folder import VideoFolder
from minivdm.data.io import read_video, write_video
from minivdm.data.mp4_index import video_tracks
from minivdm.errors import UserError, printable

CLIPS = [case for case in CASES if case.listed]
SMALL = 2**27  # bytes: no case is larger than a few megapixels, whatever it says of itself


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    yield make_corpus(folder)
    assert not list(folder.rglob(TRACE)) and not list(folder.parent.rglob("climbed"))


def is_one_line(text: str) -> bool:
    return text == printable(text)


@pytest.mark.parametrize("case", CLIPS, ids=lambda case: ascii(case.name)[1:40])
def test_every_file_is_read_or_refused_in_one_line(corpus, case, monkeypatch):
    monkeypatch.chdir(corpus)  # so that a name such as concat:… stands there alone
    work = lambda: len(read_video(case.name, inside=corpus).frames)  # noqa: E731
    if case.frames:
        assert run_limited(work, SMALL) == case.frames
        return
    with pytest.raises(UserError) as caught:
        run_limited(work, SMALL)
    reason = str(caught.value).removeprefix(f"cannot read the clip {printable(case.name)}: ")
    assert reason != str(caught.value) and case.skipped in reason and is_one_line(reason)


def test_a_folder_of_them_gives_what_can_be_read(corpus):
    """Every clip is found, every bad one counted and named with its reason, and in its place comes a good one."""

    def work():
        torch.set_num_threads(1)
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        logging.getLogger("minivdm").addHandler(handler)
        dataset = VideoFolder(corpus, size=16, frames=4)
        items = [dataset[index] for index in range(len(dataset))]
        return list(dataset.names), [item["path"] for item in items], dataset.bad_files, said

    names, paths, bad, said = run_limited(work, 4 * SMALL)
    assert sorted(names) == sorted(case.name for case in CLIPS)
    assert set(bad) == {case.name for case in CLIPS if case.skipped}
    good = {str(corpus / case.name) for case in CLIPS if case.frames}
    assert set(paths) == good and len(paths) == len(CLIPS)
    for case in CLIPS:
        if case.skipped:
            assert case.skipped in bad[case.name] and is_one_line(bad[case.name])
    told = [line for line in said if line.startswith("skipped")]
    assert all(is_one_line(line) for line in told) and sum(line.count("cannot read") for line in told) == len(bad)


def test_links_are_followed_inside_only(corpus):
    with pytest.raises(UserError, match="leads out of the folder"):
        read_video(corpus / "link_outside.gif", inside=corpus)
    assert len(read_video(corpus / "link_outside.gif").frames) == FRAMES  # by name, and not as one of a folder


@pytest.mark.parametrize("kind", ["gif", "mp4", "webp", "npz"])
def test_memory_grows_with_what_is_kept_and_not_with_the_film(tmp_path, kind):
    """100 frames of 256×256 are 20 MB; made small on the way they are nothing. What is documented holds of both."""
    frames = np.zeros((100, 256, 256, 3), np.uint8)
    frames[range(100), 0, 0] = np.arange(100)[:, None]
    path = write_video(tmp_path / f"a.{kind}", frames)
    tiny = write_video(tmp_path / f"tiny.{kind}", frames[:2, :16, :16])
    frame, kept = 256 * 256, 100 * 256 * 256
    allowed = 2**25 + 2 * path.stat().st_size + 17 * 6 * frame
    warm, whole = lambda: read_video(tiny), lambda: read_video(path).frames.shape
    assert run_limited(whole, allowed + 2 * 3 * kept, first=warm) == (100, 256, 256, 3)
    if kind != "npz":  # which is unpacked in one piece
        cut = lambda: read_video(path, each_frame=lambda frame: frame[:2, :2]).frames.shape  # noqa: E731
        assert run_limited(cut, allowed, first=warm) == (100, 2, 2, 3)


def test_sound_is_hidden_and_not_counted():
    def box(tag: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", len(content) + 8, tag) + content

    def wide(tag: bytes, content: bytes) -> bytes:
        return struct.pack(">I4sQ", 1, tag, len(content) + 16) + content

    def track(kind: bytes, samples: int, sizes=box) -> bytes:
        return box(b"trak", box(b"hdlr", bytes(8) + kind) + sizes(b"stsz", struct.pack(">III", 0, 1, samples)))

    data = wide(b"mdat", b"moof") + box(b"moov", track(b"vide", 9) + track(b"soun", 10**9))
    assert video_tracks(data).read() == data[: data.rindex(b"trak")] + b"none" + data[data.rindex(b"trak") + 4 :]
    for bad, told in {
        box(b"moov", track(b"vide", 9) + track(b"vide", 10**9)): "more than 65,536 frames",
        box(b"free", box(b"udta", track(b"vide", 10**9))): "more than 65,536 frames",
        box(b"moov", track(b"vide", 10**9, sizes=wide)): "odd index",
        box(b"free", b"cmov"): "in fragments",
        data[:-1]: "truncated MP4",
    }.items():
        with pytest.raises(ValueError, match=told):
            video_tracks(bad)


def test_the_film_ends_where_its_time_does(tmp_path, monkeypatch):
    """A film can be made small on the way, but not for ever."""
    for kind in ("gif", "mp4", "webp"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(whole(kind))
        monkeypatch.setattr(limits, "MAX_FILM_PIXELS", FRAMES * 24 * 32 - 1)
        with pytest.raises(UserError, match=f"a.{kind}: more than 3,839 pixels in all"):
            read_video(path, each_frame=lambda frame: frame[:1, :1])
        monkeypatch.setattr(limits, "MAX_FILM_PIXELS", FRAMES * 24 * 32)
        assert len(read_video(path, each_frame=lambda frame: frame[:1, :1]).frames) == FRAMES


# Captions

CONTROL, TURNED, LONG = "red\x07\x1b[31m ring\x7f", "\u202ered \u200fring\u202c", " ".join(["firework"] * 10_000)


def said(*captions: str, file: str = "a.gif") -> str:
    """Lines of a captions.jsonl."""
    return "\n".join(json.dumps({"file": file, "caption": caption}) for caption in captions)


TABLES = {
    # captions.jsonl -> the wordings of the clip, and words of the reason why a line is left out
    "control characters": (said(CONTROL), [CONTROL]),
    "right to left": (said(TURNED), [TURNED]),
    "10,000 words": (said(LONG), [LONG]),
    "NUL": (said("red\0ring"), ["red\0ring"]),
    "twice": (said("red") + "\n" + said("ring", file="./a.gif"), ["red", "ring"]),
    "twice the same": (said("red", "red"), ["red"]),
    "broken line": (said("red") + '\n{"file": "a.gif", "cap', ["red"], "line 2 is not JSON"),
    "not UTF-8": ('{"file": "a.gif", "caption": "\udcff\udcfe"}', [], "not text in UTF-8"),
    "half a letter": (r'{"file": "a.gif", "caption": "\ud83c"}', [], "not text in UTF-8"),
    "NUL in a name": (said("x", file="a\0.gif"), [], "not there"),
    "above": (said("x", file="../outside.gif"), [], "outside the folder"),
    "above, hidden": (said("x", file="sub/../../outside.gif"), [], "outside the folder"),
    "absolute": (said("x", file="/etc/passwd"), [], "outside the folder"),
    "deep": ('{"file": "a.gif", "x": ' + "[" * 100_000, [], "is not JSON"),
    "huge number": ('{"file": "a.gif", "caption": ' + "9" * 5000 + "}", [], "is not JSON"),
    "no object": ("[1, 2]", [], "names no file"),
    "no text": ('{"file": "a.gif", "caption": {"x": 1}}', [], "has the caption"),
}


@pytest.mark.parametrize("name", TABLES)
def test_captions_are_used_or_left_out_in_one_line(tmp_path, caplog, name):
    line, wordings, *reason = TABLES[name]
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.gif").write_bytes(whole("gif"))
    (tmp_path / "clips" / "captions.jsonl").write_bytes(line.encode("utf-8", "surrogateescape"))
    with caplog.at_level(logging.WARNING):
        dataset = VideoFolder(tmp_path / "clips", 8, 2)
    assert dataset.wordings[0] == wordings
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(reason) and all(is_one_line(line) for line in told)
    assert all(words in line for words, line in zip(reason, told, strict=True))
    for caption in dataset.captions():
        assert len(tokenize(caption)) >= len(unknown_words(caption))
        parse_caption(caption)


def test_a_text_that_leads_out_of_the_folder_is_not_read(tmp_path, caplog):
    (tmp_path / "clips").mkdir()
    (tmp_path / "secret").write_text("a secret")
    for name in ("a.gif", "b.gif"):
        (tmp_path / "clips" / name).write_bytes(whole("gif"))
    (tmp_path / "clips" / "a.txt").symlink_to("../secret")
    (tmp_path / "clips" / "captions.jsonl").symlink_to("../secret")
    dataset = VideoFolder(tmp_path / "clips", 8, 2)
    assert dataset.captions() == []
    assert "leads out of the folder" in caplog.text and "a secret" not in caplog.text


def test_a_pickled_clip_would_have_run(tmp_path, monkeypatch):
    """The payload of the corpus does what it says, when somebody unpickles it."""
    monkeypatch.chdir(tmp_path)
    function, arguments = Payload(TRACE).__reduce__()
    function(*arguments)
    assert (tmp_path / TRACE).exists()
