"""What is found in a folder, and sequences that hold it packed."""

import logging
import os
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.data.listing import list_clips, list_folder, walk
from minivdm.data.packed import Chosen, Packed
from minivdm.errors import UserError

PART = st.text(st.sampled_from("ab-./é_0").filter(lambda sign: sign != "/"), min_size=1, max_size=3)
NAME = st.lists(PART.filter(lambda part: part.strip(".")), min_size=1, max_size=3).map("/".join)


@settings(deadline=None, max_examples=50)
@given(names=st.sets(NAME, max_size=8))
def test_files_come_in_the_order_of_their_paths(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("tree")
    for name in names:
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        except OSError:  # one name is a file, and a folder in another
            continue
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert list(walk(folder)) == sorted(name for name in found if not any(part[0] == "." for part in name.split("/")))


def test_links_to_files_are_clips_and_linked_folders_are_not_entered(tmp_path):
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.gif").touch()
    os.symlink("sub/a.gif", folder / "b.GIF")
    os.symlink("nowhere", folder / "c.gif")
    os.symlink(folder, folder / "sub" / "round")
    assert list(list_folder(folder).names) == ["b.GIF", "sub/a.gif"]
    assert list(list_clips(folder)) == [folder / "b.GIF", folder / "sub" / "a.gif"]


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff\xfe.gif")
    (tmp_path / name).touch()
    (path,) = list_clips(tmp_path)
    assert path.name == name and path.is_file()


def test_a_folder_that_may_not_be_read_is_named(tmp_path, caplog, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.gif").touch()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed/"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with caplog.at_level(logging.WARNING):
        assert list(list_folder(tmp_path).names) == ["a.gif"]
    assert "closed/: Permission denied" in caplog.text


def test_what_is_found_besides_clips(tmp_path):
    for name in ("a.gif", "b.npz", "captions.jsonl", "sub/metadata.csv", "sub/other.csv", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = list_folder(tmp_path, ["gif"])
    assert list(listing.names) == ["a.gif"] and listing.texts
    assert listing.tables == ["captions.jsonl", "sub/metadata.csv"]
    with pytest.raises(UserError, match="found 1 .gif, 1 .npz"):
        list_folder(tmp_path, ["mp4"])


@given(texts=st.lists(st.text(max_size=6)), which=st.slices(10))
def test_packed_is_a_list_that_takes_less(texts, which):
    packed = Packed((text.encode("utf-8", "surrogatepass") for text in texts), _text)
    assert packed == texts and list(packed) == texts and len(packed) == len(texts)
    assert packed[which] == texts[which] and packed != [*texts, ""]
    again = pickle.loads(pickle.dumps(packed))
    assert again == texts and packed.nbytes == 8 * len(texts) + sum(
        len(text.encode("utf-8", "surrogatepass")) for text in texts
    )
    if texts:
        assert packed[-1] == texts[-1] and packed[0] == texts[0]
        assert Chosen(packed, [len(texts) - 1, 0])[:] == [texts[-1], texts[0]]
    for index in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            packed[index]


def test_a_name_costs_its_bytes_and_eight_more(tmp_path):
    names = [f"{number:07d}.gif" for number in range(1000)]
    packed = Packed((os.fsencode(name) for name in names), os.fsdecode)
    assert packed.nbytes == 1000 * (11 + 8) < sum(map(sys.getsizeof, names)) / 3


def _text(item: bytes) -> str:
    return item.decode("utf-8", "surrogatepass")
