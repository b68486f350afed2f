"""Captions from tables and text files: what is used, what is named and left out, and where they may point."""

import json
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.data.caption_files import read_captions
from minivdm.data.listing import list_folder


def folder_of(path, *names):
    """A folder with empty files of these names."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def words_of(folder) -> dict[str, list[str]]:
    listing = list_folder(folder)
    return dict(zip(listing.names, read_captions(listing).wordings, strict=True))


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("{oops", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("[1]", "line 2 names no file"),
        ('{"caption": "x"}', "line 2 names no file"),
        ('{"file": "a.gif", "caption": 3}', "has the caption '3'"),
        ('{"file": "a.gif", "caption": ["x", 3]}', "has the caption"),
        ('{"file": "a.gif", "caption": "\\ud800"}', "is not text in UTF-8"),
        ('{"file": "../a.gif", "caption": "x"}', "outside the folder"),
        ('{"file": "sub/../../a.gif", "caption": "x"}', "outside the folder"),
        ('{"file": "/etc/passwd", "caption": "x"}', "outside the folder"),
        ('{"file": "", "caption": "x"}', "outside the folder"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_are_used(tmp_path, caplog, line, complaint):
    folder = folder_of(tmp_path / "clips", "a.gif", "b.gif")
    folder_of(tmp_path, "a.gif")
    first, last = (json.dumps({"file": f"{name}.gif", "caption": name}) for name in "ab")
    (folder / "captions.jsonl").write_text(f"{first}\n{line}\n{last}\n")
    listing = list_folder(folder)
    with caplog.at_level(logging.WARNING):
        captions = read_captions(listing)
    assert captions.wordings == [["a"], ["b"]] and captions.unusable.count == 1
    assert complaint in captions.unusable.named[0] and "captions.jsonl" in captions.unusable.named[0]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "1 captions cannot be used" in message and complaint in message and "\n" not in message


def test_bytes_that_are_no_text(tmp_path):
    folder = folder_of(tmp_path, "a.gif", "b.gif")
    rows = [b'{"file": "a.gif", "caption": "caf\xe9"}', '{"file": "b.gif", "caption": "café"}'.encode()]
    (folder / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    (folder / "a.txt").write_bytes(b"\xff\xfe\xff")
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [[], ["café"]]
    assert [problem.split("/")[-1] for problem in captions.unusable.named] == [
        "captions.jsonl line 1 is not text in UTF-8",
        "a.txt is not text in UTF-8",
    ]


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv"])
@pytest.mark.parametrize("titles", ["file,caption", "caption;path;colour", '"Text"\t file_name'])
def test_tables_as_spreadsheets_write_them(tmp_path, name, titles):
    folder = folder_of(tmp_path, "a.gif", "sub/b.gif", "sub/c.gif")
    delimiter = next(sign for sign in ",;\t" if sign in titles)
    columns = [title.strip(' "').lower() for title in titles.split(delimiter)]

    def row(file, caption):
        told = {"caption": f'"{caption}"', "text": f'"{caption}"', "colour": "red"}
        return delimiter.join(told.get(column, file) for column in columns)

    lines = [titles, row("a.gif", "one, two; and\tthree"), "", row("sub/b.gif", "over\ntwo lines"), "odd"]
    (folder / name).write_text("\r\n".join([*lines, row("../x.gif", "no"), row("d.gif", "none")]), newline="")
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [["one, two; and\tthree"], ["over\ntwo lines"], []]
    assert captions.attributes == [{"colour": "red"} if "colour" in columns else {}] * 2 + [{}]
    assert captions.missing.named == ["d.gif"] and captions.unusable.count == 2
    assert "line 6 has 1 columns" in captions.unusable.named[0] and "outside" in captions.unusable.named[1]


def test_a_table_without_the_columns(tmp_path):
    folder = folder_of(tmp_path, "a.gif")
    (folder / "metadata.csv").write_text("name,words\na.gif,x\n")
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [[]]
    assert "metadata.csv has the columns name, words; expected file or path" in captions.unusable.named[0]


def test_several_tables_add_wordings_and_clip_txt_speaks_for_the_rest(tmp_path):
    folder = folder_of(tmp_path, "a.gif", "b.gif", "c.gif", "deep/d.gif")
    (folder / "captions.jsonl").write_text('{"file": "a.gif", "caption": ["one", " "], "n": 1}\n{"file": "b.gif"}\n')
    (folder / "captions.csv").write_text("path,text,m\na.gif,two,3\na.gif,one,\n")
    for name in ("a", "b", "deep/d"):
        (folder / f"{name}.txt").write_text(f"\ufeff the text\n of {name}\n", encoding="utf-8")
    (folder / "c.txt").write_text(" \n")
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [["two", "one"], ["the text of b"], [], ["the text of deep/d"]]
    assert captions.attributes == [{"n": 1, "m": "3"}, {}, {}, {}]
    assert captions.unusable.count == captions.missing.count == 0


def test_no_caption_leads_out_of_the_folder(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"file": "a.gif", "caption": "secret"}')
    folder = folder_of(tmp_path / "clips", "a.gif", "b.gif")
    os.symlink(secret, folder / "a.txt")
    os.symlink(secret, folder / "captions.jsonl")
    (folder / "words").write_text("mine")
    os.symlink("words", folder / "b.txt")
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [[], ["mine"]]
    assert captions.unusable.count == 2 and all("leads out" in problem for problem in captions.unusable.named)


def test_a_text_that_is_no_caption(tmp_path):
    folder = folder_of(tmp_path, "a.gif")
    (folder / "a.txt").write_text("x" * 70_000)
    captions = read_captions(list_folder(folder))
    assert captions.wordings == [[]] and "70,000 bytes, more than" in captions.unusable.named[0]


def test_of_very_many_problems_the_first_are_named(tmp_path):
    folder = folder_of(tmp_path, "a.gif")
    (folder / "captions.jsonl").write_text("no\n" * 1000)
    unusable = read_captions(list_folder(folder)).unusable
    assert unusable.count == 1000 and len(unusable.named) == 100 and "line 100 " in unusable.named[-1]


NAMES = st.sampled_from(["a.gif", "b.gif", "sub/c.gif", "./a.gif", "sub/../b.gif", "../x.gif", "/x.gif", "", "x\0.gif"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
LINES = st.one_of(
    st.binary(max_size=40),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"file": NAMES | VALUES, "caption": VALUES}).map(lambda row: json.dumps(row).encode()),
    st.tuples(NAMES, st.text(max_size=12)).map(lambda row: ",".join(row).encode("utf-8", "surrogatepass")),
)


@settings(deadline=None, max_examples=80)
@given(
    lines=st.lists(LINES, max_size=6),
    head=st.sampled_from([b"", b"file,caption\n", b"path;text;x\n", b'"file,caption\n']),
)
def test_whatever_a_table_holds_clips_have_texts_and_nothing_is_fatal(tmp_path_factory, lines, head):
    folder = folder_of(tmp_path_factory.mktemp("clips"), "a.gif", "b.gif", "sub/c.gif")
    body = b"\n".join(lines)
    for name in ("captions.jsonl", "sub/captions.csv", "b.txt"):
        (folder / name).write_bytes((head if name.endswith("csv") else b"") + body)
    listing = list_folder(folder)
    captions = read_captions(listing)
    assert len(captions.wordings) == len(captions.attributes) == 3
    for wordings, attributes in zip(captions.wordings, captions.attributes, strict=True):
        assert all(isinstance(wording, str) and wording.strip() == wording != "" for wording in wordings)
        assert isinstance(attributes, dict) and len(set(wordings)) == len(wordings)
    assert all(problem.isprintable() for problem in captions.unusable.named)


@settings(deadline=None, max_examples=30)
@given(captions=st.dictionaries(st.sampled_from("abcdef"), st.lists(st.text(st.characters(codec="utf-8"))), max_size=6))
def test_what_is_written_is_read(tmp_path_factory, captions):
    folder = folder_of(tmp_path_factory.mktemp("clips"), *(f"{name}.gif" for name in "abcdef"))
    rows = [json.dumps({"file": f"{name}.gif", "caption": words}) for name, words in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(rows))
    kept = {name: list(dict.fromkeys(filter(None, map(str.strip, words)))) for name, words in captions.items()}
    assert words_of(folder) == {f"{name}.gif": kept.get(name, []) for name in "abcdef"}
