"""`minivdm data fireworks`: what is written, that it can be repeated, and the set that the repository ships."""

import json
from collections import Counter

import numpy as np
import pytest

from minivdm.data import write_dataset
from minivdm.data.captions import parse_caption
from minivdm.data.folder import VideoFolder
from minivdm.data.io import read_video
from minivdm.data.scenes import HELD_OUT_KINDS, Scene
from minivdm.data.write_dataset import write_fireworks
from minivdm.errors import UserError
from minivdm.paths import repo_root

SHIPPED = repo_root() / "datasets" / "fireworks_toy"
SHIPPED_CLIPS = 350


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def small_blocks(request, monkeypatch):
    if "shipped" not in request.node.name:
        monkeypatch.setattr(write_dataset, "BLOCK", 4)


@pytest.mark.parametrize("kind, exact", [("gif", True), ("webp", True), ("npz", True), ("mp4", False)])
def test_what_is_written(tmp_path, kind, exact):
    out = write_fireworks(tmp_path / "new" / kind, 5, size=16, frames=5, format=kind, fps=4)
    assert sorted(path.name for path in out.iterdir()) == [*(f"00000{i}.{kind}" for i in range(5)), "captions.jsonl"]
    dataset = VideoFolder(out, 16, 5)
    assert len(dataset) == 5 and not dataset.bad_files
    for index, row in enumerate(rows(out)):
        scene = Scene.from_dict(row)
        assert dataset.attributes[index]["shells"] == row["shells"] and not scene.held_out
        assert parse_caption(row["caption"][0]).shells[0].kind == scene.shells[0].kind
        assert len(row["caption"]) > 1 and dataset.wordings[index] == row["caption"]
        assert dataset[index]["fps"] == 4 and dataset[index]["video"].shape == (3, 5, 16, 16)
    if exact:
        reference = write_fireworks(tmp_path / "reference", 5, size=16, frames=5, format="npz")
        for index in range(5):
            frames = read_video(out / f"00000{index}.{kind}").frames
            np.testing.assert_array_equal(frames, read_video(reference / f"00000{index}.npz").frames)


def test_a_clip_does_not_depend_on_how_many_there_are(tmp_path):
    many, few = (write_fireworks(tmp_path / str(n), n, "scene", 16, 5, seed=3) for n in (6, 3))
    for path in few.glob("*.gif"):
        assert path.read_bytes() == (many / path.name).read_bytes()
    assert rows(few) == rows(many)[:3]
    again = write_fireworks(few, 3, "scene", 16, 5, seed=3)  # over itself: the same
    assert rows(again) == rows(many)[:3]
    other = write_fireworks(tmp_path / "other", 3, "scene", 16, 5, seed=4)
    assert rows(other) != rows(few)


def test_half_of_the_test_split_is_held_out(tmp_path):
    out = write_fireworks(tmp_path, 6, "scene", 16, 3, split="test")
    assert [row["held_out"] for row in rows(out)] == [False, True] * 3


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (dict(clips=0), "at least 1"),
        (dict(format="avi"), "gif, mp4, webp, npz"),
        (dict(level="hard"), "'hard'"),
        (dict(split="dev"), "'dev'"),
    ],
)
def test_impossible_arguments(tmp_path, arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        write_fireworks(tmp_path / "out", **(dict(clips=2) | arguments))
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_mixed_in(tmp_path):
    (tmp_path / "000009.gif").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds 1 other files, such as 000009.gif"):
        write_fireworks(tmp_path, 3, size=16, frames=3)
    assert [path.name for path in tmp_path.iterdir()] == ["000009.gif"]


def test_shipped_set_is_what_its_command_makes(tmp_path):
    """The first clips again. Another processor may round a pixel to the next level, never more."""
    again = write_fireworks(tmp_path / "again", 4)
    assert rows(again) == rows(SHIPPED)[:4]
    for path in again.glob("*.gif"):
        ours, theirs = read_video(path), read_video(SHIPPED / path.name)
        assert ours.fps == theirs.fps == 8
        assert np.abs(ours.frames.astype(int) - theirs.frames).max() <= 1


def test_shipped_set_is_whole():
    dataset = VideoFolder(SHIPPED, 32, 17)
    assert len(dataset) == SHIPPED_CLIPS == len(rows(SHIPPED))
    assert all(path.suffix == ".gif" and len(dataset.wordings[i]) > 1 for i, path in enumerate(dataset.paths))
    assert not any(row["held_out"] or Scene.from_dict(row).held_out for row in rows(SHIPPED))
    shells = [row["shells"][0] for row in rows(SHIPPED)]
    card = (SHIPPED.parent / "README.md").read_text()
    assert f"{SHIPPED_CLIPS} short films" in card and f"--clips {SHIPPED_CLIPS}\n" in card
    for attribute, kinds in {"colour": 8, "shape": 6, "column": 3, "row": 2, "size": 2}.items():
        counts = Counter(shell[attribute] for shell in shells)
        assert len(counts) == kinds and min(counts.values()) > SHIPPED_CLIPS / kinds / 2
        assert all(f"{name} {count}" in card for name, count in counts.items())
    assert all(f"{colour} {shape}" in card for colour, shape in HELD_OUT_KINDS)
    for index in range(0, SHIPPED_CLIPS, 50):
        assert dataset[index]["video"].shape == (3, 17, 32, 32)
    assert not dataset.bad_files
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 4_000_000
