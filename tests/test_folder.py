"""A folder of clips as training data: sizes, lengths, captions, repeatable draws, bad files."""

import json
import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from minivdm.data import folder as folder_module
from minivdm.data.caption_files import swap_left_right
from minivdm.data.folder import FITS, VideoFolder, choose_frames
from minivdm.data.io import from_uint8, write_video
from minivdm.data.listing import list_clips
from minivdm.errors import UserError


def write_clip(path, frames=7, height=8, width=12, seed=0, fps=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    write_video(path, pixels, fps)
    return pixels


def numbered(path, frames, height=8, width=12, fps=8):
    """A clip whose frame i is grey of level 10·i: a frame tells where it came from."""
    pixels = np.broadcast_to(10 * np.arange(frames)[:, None, None, None], (frames, height, width, 3)).astype(np.uint8)
    write_video(path, pixels, fps)


def numbers(video) -> list[int]:
    """Which frames of a `numbered` clip these are."""
    levels = ((video + 1) * 127.5).round() / 10
    assert (levels == levels[:1, :, :1, :1]).all()
    return levels[0, :, 0, 0].int().tolist()


def any_generator():
    return torch.Generator().manual_seed(0)


# What is found


def test_items_of_a_tree(tmp_path):
    first = write_clip(tmp_path / "b.gif")
    for name in ("c/a.mp4", "c/b.WEBP", "a.npz"):
        write_clip(tmp_path / name)
    for name in ("notes.md", ".hidden.gif", ".cache/x.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not a clip")
    dataset = VideoFolder(tmp_path, (8, 12), frames=7)
    assert [path.relative_to(tmp_path).as_posix() for path in dataset.paths] == [
        "a.npz",
        "b.gif",
        "c/a.mp4",
        "c/b.WEBP",
    ]
    assert len(dataset) == 4 and not dataset.bad_files
    item = dataset[1]
    assert set(item) == {"video", "caption", "fps", "path"}
    assert item["video"].shape == (3, 7, 8, 12) and item["video"].dtype == torch.float32
    torch.testing.assert_close(item["video"], from_uint8(first), rtol=0, atol=0)
    assert item["caption"] == "" and item["fps"] == 8 and item["path"] == str(tmp_path / "b.gif")
    assert [len(VideoFolder(tmp_path, 8, 3, extensions=kinds)) for kinds in (["gif"], [".MP4", "npz"])] == [1, 2]
    with pytest.raises(IndexError):
        dataset[4]
    assert len(list(dataset)) == 4


def test_folders_without_clips(tmp_path):
    with pytest.raises(UserError, match="is not there; expected a folder"):
        VideoFolder(tmp_path / "none", 8, 3)
    with pytest.raises(UserError, match="found nothing, expected .gif .mp4 .npz .webp; put clips there"):
        VideoFolder(tmp_path, 8, 3)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="found 1 .jpg"):
        VideoFolder(tmp_path, 8, 3)
    with pytest.raises(UserError, match="is a file"):
        list_clips(tmp_path / "a.jpg")


@pytest.mark.parametrize("arguments", [dict(size=0), dict(frames=0), dict(fit="pad")])
def test_impossible_arguments(tmp_path, arguments):
    write_clip(tmp_path / "a.gif")
    with pytest.raises(UserError, match="expected"):
        VideoFolder(tmp_path, **(dict(size=8, frames=3) | arguments))


# Size


def test_centre_is_kept_and_the_short_side_fits(tmp_path):
    """Stripes of 10 columns each: red, green, blue. A square cut from the centre is green."""
    pixels = np.zeros((2, 10, 30, 3), np.uint8)
    for i in range(3):
        pixels[:, :, 10 * i : 10 * i + 10, i] = 255
    write_video(tmp_path / "wide.npz", pixels)
    write_video(tmp_path / "tall.npz", pixels.transpose(0, 2, 1, 3))
    for item in VideoFolder(tmp_path, 10, 2):
        assert (item["video"][1] == 1).all() and (item["video"][[0, 2]] == -1).all()
    for item in VideoFolder(tmp_path, 5, 2):  # half as large: the same part; an eighth of its edge lies beyond the cut
        assert (item["video"][1, :, 1:-1, 1:-1] == 1).all() and (item["video"][[0, 2], :, 1:-1, 1:-1] == -1).all()
        assert item["video"][1].min() == pytest.approx(0.75, abs=0.005)
    assert VideoFolder(tmp_path, (4, 6), 2)[0]["video"].shape == (3, 2, 4, 6)
    assert VideoFolder(tmp_path, 64, 2)[0]["video"].shape == (3, 2, 64, 64)


def test_making_small_does_not_alias(tmp_path):
    """Stripes one pixel wide become grey; picking every third pixel would make them black or white."""
    pixels = np.zeros((1, 33, 33, 3), np.uint8)
    pixels[:, :, ::2] = 255
    write_video(tmp_path / "a.npz", pixels)
    assert VideoFolder(tmp_path, 11, 1)[0]["video"].abs().max() < 0.35


# Length


@given(stored=st.integers(1, 40), wanted=st.integers(1, 40), fit=st.sampled_from(FITS), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=150)
def test_chosen_frames(stored, wanted, fit, seed):
    chosen = choose_frames(stored, wanted, fit, torch.Generator().manual_seed(seed))
    assert len(chosen) == wanted and 0 <= min(chosen) and max(chosen) < stored
    if stored == wanted:
        assert chosen == list(range(stored))
    if fit == "stride":
        assert chosen == sorted(chosen) and chosen[0] == 0 and (wanted == 1 or chosen[-1] == stored - 1)
        steps = np.diff(chosen)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
    elif stored >= wanted:
        assert chosen == list(range(chosen[0], chosen[0] + wanted)) and (fit == "cut" or chosen[0] == 0)
    elif fit == "loop":
        assert chosen == [i % stored for i in range(wanted)]
    else:
        assert chosen == [*range(stored), *[stored - 1] * (wanted - stored)]


def test_stride_takes_every_second_of_17():
    assert choose_frames(17, 9, "stride", any_generator()) == list(range(0, 17, 2))


@pytest.mark.parametrize(
    "fit, expected", [("cut", [0, 1, 2, 2, 2]), ("repeat", [0, 1, 2, 2, 2]), ("loop", [0, 1, 2, 0, 1])]
)
def test_short_clips_are_never_black(tmp_path, fit, expected):
    numbered(tmp_path / "a.gif", frames=3)
    item = VideoFolder(tmp_path, (8, 12), 5, fit=fit)[0]
    assert numbers(item["video"]) == expected and item["fps"] == 8


def test_stride_tells_the_speed_of_what_it_chose(tmp_path):
    numbered(tmp_path / "a.gif", frames=17)
    item = VideoFolder(tmp_path, (8, 12), 9, fit="stride")[0]
    assert numbers(item["video"]) == list(range(0, 17, 2)) and item["fps"] == 4
    assert VideoFolder(tmp_path, (8, 12), 9, fit="repeat")[0]["fps"] == 8
    assert VideoFolder(tmp_path, (8, 12), 1, fit="stride")[0]["fps"] == 8


def test_cuts_start_anywhere(tmp_path):
    numbered(tmp_path / "a.gif", frames=6)
    dataset = VideoFolder(tmp_path, (8, 12), 4)
    assert {numbers(dataset[0, epoch]["video"])[0] for epoch in range(40)} == {0, 1, 2}


# Captions


def write_table(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def test_captions_from_table_and_text_files(tmp_path):
    for name in ("a.gif", "b.gif", "sub/c.gif", "sub/d.gif", "e.gif"):
        write_clip(tmp_path / name)
    rows = [{"file": "a.gif", "caption": "one", "colour": "red"}, {"file": "sub/c.gif", "caption": ["x", "y"]}]
    write_table(tmp_path / "captions.jsonl", *rows, "")
    write_table(tmp_path / "sub" / "captions.jsonl", {"file": "d.gif", "caption": "ü"}, {"file": "../e.gif", "loud": 3})
    (tmp_path / "b.txt").write_text("\ufeffa text\n over two lines \n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("the table wins")
    dataset = VideoFolder(tmp_path, 8, 3)
    assert dataset.wordings == [["one"], ["a text over two lines"], [], ["x", "y"], ["ü"]]
    assert dataset.attributes == [{"colour": "red"}, {}, {"loud": 3}, {}, {}]
    assert dataset[1]["caption"] == "a text over two lines" and dataset[2]["caption"] == ""
    assert {dataset[3, epoch]["caption"] for epoch in range(20)} == {"x", "y"}
    assert dataset.captions() == ["one", "a text over two lines", "x", "ü", "y"]


def test_captions_without_clips_are_counted(tmp_path, caplog):
    write_clip(tmp_path / "a.gif")
    rows = [{"file": f"{name}.gif", "caption": "x"} for name in "abc"]
    write_table(tmp_path / "captions.jsonl", *rows)
    with caplog.at_level(logging.WARNING):
        VideoFolder(tmp_path, 8, 3)
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "2 captions are for files that are not there, such as b.gif"
    ]


# Flip


def test_flip_turns_all_frames_and_the_words(tmp_path):
    pixels = write_clip(tmp_path / "a.npz", frames=5)
    write_table(tmp_path / "captions.jsonl", {"file": "a.npz", "caption": "A red ring on the left, bright"})
    dataset = VideoFolder(tmp_path, (8, 12), 5, flip=True)
    straight, mirrored = from_uint8(pixels), from_uint8(pixels[:, :, ::-1].copy())
    seen = set()
    for epoch in range(20):
        item = dataset[0, epoch]
        flipped = torch.equal(item["video"], mirrored)
        assert flipped or torch.equal(item["video"], straight)  # never one frame this way and another that way
        assert item["caption"] == f"A red ring on the {'right' if flipped else 'left'}, bright"
        seen.add(flipped)
    assert seen == {True, False}
    assert dataset.captions() == ["A red ring on the left, bright", "A red ring on the right, bright"]


@pytest.mark.parametrize(
    "text, turned",
    [
        ("from left to right", "from right to left"),
        ("Left, RIGHT; the leftmost", "Right, LEFT; the rightmost"),
        ("a left-hand rightwards move", "a right-hand leftwards move"),
        ("bright upright cleft lefty", "bright upright cleft lefty"),
    ],
)
def test_left_and_right_change_places(text, turned):
    assert swap_left_right(text) == turned
    assert swap_left_right(turned) == text


# Repeatable draws


def test_a_draw_depends_on_seed_epoch_and_index_only(tmp_path):
    for i in range(4):
        numbered(tmp_path / f"{i}.gif", frames=20)
    write_table(tmp_path / "captions.jsonl", *[{"file": f"{i}.gif", "caption": list("abcd")} for i in range(4)])

    def draws(dataset, keys):
        items = {key: dataset[key] for key in keys}
        return {key: (item["caption"], *numbers(item["video"])) for key, item in items.items()}

    keys = [(index, epoch) for index in range(4) for epoch in range(6)]
    first = draws(VideoFolder(tmp_path, (8, 12), 3, flip=True, seed=1), keys)
    assert draws(VideoFolder(tmp_path, (8, 12), 3, flip=True, seed=1), keys[::-1]) == first
    assert draws(VideoFolder(tmp_path, (8, 12), 3, flip=True, seed=2), keys) != first
    assert len({first[0, epoch] for epoch in range(6)}) > 1 and len({first[index, 0] for index in range(4)}) > 1
    dataset = VideoFolder(tmp_path, (8, 12), 3, seed=1)
    assert torch.equal(dataset[2]["video"], dataset[2, 0]["video"])


# Cache


def count_reads(monkeypatch) -> list:
    reads = []
    read = folder_module.read_video
    monkeypatch.setattr(
        folder_module, "read_video", lambda path, **more: (reads.append(path.name), read(path, **more))[1]
    )
    return reads


def test_small_sets_are_decoded_once(tmp_path, monkeypatch):
    for i in range(3):
        write_clip(tmp_path / f"{i}.gif", seed=i)
    reads = count_reads(monkeypatch)
    dataset = VideoFolder(tmp_path, 8, 3)
    for epoch in range(3):
        for index in range(3):
            dataset[index, epoch]
    assert sorted(reads) == ["0.gif", "1.gif", "2.gif"]


def test_the_cache_has_a_limit(tmp_path, monkeypatch):
    for i in range(3):
        write_clip(tmp_path / f"{i}.gif", seed=i)
    reads = count_reads(monkeypatch)
    dataset = VideoFolder(tmp_path, 8, 3, cache_bytes=2 * 7 * 8 * 8 * 3)
    for index in (0, 1, 2, 0, 1, 2):
        dataset[index]
    assert reads == ["0.gif", "1.gif", "2.gif", "2.gif"]


def test_workers_see_the_same(tmp_path):
    for i in range(5):
        write_clip(tmp_path / f"{i}.gif", seed=i, frames=9)
    dataset = VideoFolder(tmp_path, 8, 3, flip=True)
    alone = [dataset[i]["video"] for i in range(5)]
    assert len(pickle.dumps(dataset)) < 10_000  # without decoded clips
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    torch.testing.assert_close(torch.cat([batch["video"] for batch in loader]), torch.stack(alone), rtol=0, atol=0)


# Bad files


def spoil(path):
    path.write_bytes(path.read_bytes()[:200])


def test_bad_files_are_named_counted_and_replaced(tmp_path, caplog):
    for i in range(5):
        write_clip(tmp_path / f"{i}.gif", seed=i)
    (tmp_path / "1.gif").write_text("I am a text")
    spoil(tmp_path / "2.gif")
    (tmp_path / "4.gif").write_bytes(b"")
    dataset = VideoFolder(tmp_path, 8, 3)
    with caplog.at_level(logging.WARNING):
        items = [dataset[i] for i in range(5)]
        again = [dataset[i] for i in range(5)]
    assert [item["path"][-5:] for item in items] == ["0.gif", "3.gif", "3.gif", "3.gif", "0.gif"]
    assert [item["path"] for item in again] == [item["path"] for item in items]
    assert list(dataset.bad_files) == ["1.gif", "2.gif", "4.gif"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and not any("\n" in line for line in lines)
    assert "2 of 5" in lines[0] and "1.gif" in lines[0] and "truncated GIF" in lines[0]
    assert "3 of 5" in lines[1] and "the file is empty" in lines[1]
    asked_backwards = VideoFolder(tmp_path, 8, 3)
    for i in reversed(range(5)):
        assert torch.equal(asked_backwards[i]["video"], items[i]["video"])


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "a.gif").write_text("I am a text")
    (tmp_path / "b.gif").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 2 clips in .* can be read: .*a\.gif: expected a GIF") as caught:
        VideoFolder(tmp_path, 8, 3)
    assert "\n" not in str(caught.value)
