"""`minivdm data report`: what is in a folder of clips."""

import json
import shutil

import numpy as np
import pytest

from minivdm.cli import main
from minivdm.data import measure as measure_module
from minivdm.data.bucketed import sort_clips
from minivdm.data.buckets import BucketConfig, Buckets
from minivdm.data.io import write_video
from minivdm.data.listing import list_folder
from minivdm.data.measure import measure
from minivdm.data.report import survey
from minivdm.data.report_page import as_text

KINDS = {"a.npz": (5, 24, 40, 8), "b.npz": (9, 16, 16, 8), "sub/c.npz": (1, 16, 16, 8), "sub/d.npz": (40, 32, 32, 2)}


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "clips"
    for seed, (name, (frames, height, width, fps)) in enumerate(KINDS.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        write_video(folder / name, pixels, fps)
    shutil.copy(folder / "a.npz", folder / "copy.npz")
    (folder / "bad|\x1b.gif").write_text("not a clip")
    rows = [{"file": "a.npz", "caption": ["A red ring bursts", "a red, RED palm"]}, {"file": "b.npz", "caption": "red"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\noops\n" + '{"file": "x.gif"}\n')
    return folder


def rows_of(found):
    return {(section.title, label.strip()): value for section in found.sections for label, value in section.rows}


def test_everything_is_counted(mixed):
    found = survey(mixed, [BucketConfig("32px", 5, 2), BucketConfig("16px", 9, 4)], cache=None)
    rows = rows_of(found)
    assert rows["files", "clips"] == "6 (npz 5, gif 1)" and rows["files", "cannot be read"] == "1"
    assert rows["files", "copies of others"] == "1" and rows["files", "the same pixels"] == "a.npz = copy.npz"
    assert rows["lengths and rates", "frames"] == "1 to 40, half of them up to 5"
    assert rows["lengths and rates", "seconds"] == "0.125 to 20, half of them up to 0.625"
    assert rows["lengths and rates", "under 2 s, over 15 s"] == "4, 1"
    assert rows["sizes", "width × height"] == "40×24 2, 16×16 2, 32×32 1"
    assert rows["sizes", "nearest ratios"] == "1:1 3, 8:5 2"
    assert rows["captions", "clips with a caption"] == "2 of 6" and rows["captions", "wordings"] == "3, 3 different"
    assert rows["captions", "words in each"] == "1 to 4, half of them up to 4"
    assert rows["captions", "most common words"] == "red 4, ring 1, bursts 1, palm 1"
    assert rows["captions", "cannot be used"] == rows["captions", "for files not there"] == "1"
    assert rows["buckets", "16px 1:1"] == "1 clips as 9 frames of 16×16, 4 at once"
    assert rows["buckets", "32px 5:3"] == "2 clips as 5 frames of 40×24, 2 at once"
    assert rows["buckets", "32px 1:1"] == "1 clips as 5 frames of 32×32, 2 at once"
    assert rows["buckets", "left out"] == "1" and rows["buckets", "such as"] == "sub/c.npz"
    advice = " ".join(found.advice)
    for word in (
        "1 of 6 clips cannot be read",
        "count twice",
        "longer than 15 s",
        "from 2 to 8",
        "4 clips have no caption",
    ):
        assert word in advice


def test_only_new_files_are_decoded_again(mixed, tmp_path, monkeypatch):
    reads = []
    read = measure_module.read_video
    monkeypatch.setattr(
        measure_module, "read_video", lambda path, **more: (reads.append(path.name), read(path, **more))[1]
    )
    first = measure(list_folder(mixed), tmp_path / "cache")
    assert len(reads) == 6 and [int(number) for number in first.bad] == [2]
    again = measure(list_folder(mixed), tmp_path / "cache")
    assert len(reads) == 6 and (again.rows == first.rows).all() and again.bad == first.bad
    write_video(mixed / "e.npz", np.zeros((3, 8, 8, 3), np.uint8))
    (mixed / "b.npz").unlink()
    changed = measure(list_folder(mixed), tmp_path / "cache")
    assert reads[6:] == ["e.npz"] and changed.rows["frames"].tolist() == [5, 0, 5, 3, 1, 40]
    (table,) = (tmp_path / "cache").iterdir()
    table.write_bytes(table.read_bytes()[:100])
    assert (measure(list_folder(mixed), tmp_path / "cache").rows == changed.rows).all() and len(reads) == 13


def test_luck_is_the_clips_own(mixed):
    listing = list_folder(mixed)
    buckets = Buckets([BucketConfig("16px", 5, 2, keep=0.5)], multiple=8)
    sorted_by = [sort_clips(listing.names, measure(listing, None), buckets, seed) for seed in range(12)]
    assert sorted_by[0] == sort_clips(listing.names, measure(listing, None), buckets, 0)
    assert len({str(members) for members in sorted_by}) > 3


def test_from_the_command_line(mixed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "report", str(mixed), "--out", "page"]) == 0
    printed = capsys.readouterr().out
    assert "bad|?.gif" in printed and "WHAT TO DO" in printed and "\x1b" not in printed
    page = (tmp_path / "page" / "report.md").read_text()
    assert (
        "bad\\|?.gif" in page and "## What to do" in page and (tmp_path / "page" / "report.png").stat().st_size > 9000
    )
    given = "[{size: 16px, frames: 5, batch: 2}]"
    assert main(["data", "report", str(mixed), "--buckets", given]) == 0
    assert "16px 1:1" in capsys.readouterr().out
    for arguments, words in ((["nowhere"], "not there"), ([str(mixed), "--buckets", "[{size: 16px}]"], "data.buckets")):
        assert main(["data", "report", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "a.gif").write_text("no")
    found = survey(tmp_path, cache=None)
    assert "all clips cannot be read" in as_text(found)
