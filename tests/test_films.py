"""Latents and texts that are computed once: the same numbers, the right words, and a file for each set of them."""

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from video_pipelines import TOKENS, tiny_vae, write_t5

from minivdm.data.caption_files import swap_left_right
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.data.io import write_video
from minivdm.errors import UserError
from minivdm.text.encoder import TextEmbedder
from minivdm.training import films as films_module
from minivdm.training import latent_file
from minivdm.training.films import LatentFilms, fingerprint
from minivdm.training.texts import CachedTexts
from minivdm.vae import VideoAutoencoder

WORDINGS = ["a red ring on the left", "a ring, red, left of the middle", "leftmost, a red ring"]


def fireworks(clips=5, level="single", split="train", frames=5, size=16, seed=1):
    return FireworksDataset(clips, level, split, frames, size, seed)


def write_folder(folder, clips=5, frames=5):
    """Clips of noise with several wordings each; returns `folder`."""
    generator = torch.Generator().manual_seed(4)
    folder.mkdir(exist_ok=True)
    for number in range(clips):
        film = torch.rand(3, frames, 16, 16, generator=generator) * 2 - 1
        write_video(folder / f"{number}.npz", film, fps=8)
    rows = [
        {"file": f"{number}.npz", "caption": [f"{text}, number {number}" for text in WORDINGS]}
        for number in range(clips)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def folder_dataset(folder, **changes):
    return VideoFolder(folder, **{"size": 16, "frames": 5, "fit": "stride", "flip": False, "seed": 2} | changes)


def broken(*arguments, **options):
    raise RuntimeError("no electricity")


# Latents


@pytest.mark.parametrize("kind", ["fireworks", "folder"])
def test_latents_are_those_of_the_clips(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(films_module, "BLOCK", 2)
    dataset, vae = fireworks() if kind == "fireworks" else folder_dataset(write_folder(tmp_path)), tiny_vae()
    films = LatentFilms(dataset, vae, None)
    assert len(films) == 5 and films.latents.dtype == torch.float16
    for index in range(5):
        with torch.no_grad():
            expected = vae.encode(dataset[index]["video"][None], sample=False)[0]
        item = films[index, 3]
        assert item["latents"].shape == (3, 2, 8, 8) and item["latents"].dtype == torch.float32
        torch.testing.assert_close(item["latents"], expected, rtol=2**-10, atol=1e-5)
        assert item["caption"] == dataset[index, 3]["caption"]
    assert films[2]["caption"] == dataset[2]["caption"]


def test_what_was_encoded_is_not_encoded_again(tmp_path, monkeypatch):
    first = LatentFilms(fireworks(), tiny_vae(), tmp_path / "cache")
    monkeypatch.setattr(VideoAutoencoder, "encode", broken)
    again = LatentFilms(fireworks(), tiny_vae(), tmp_path / "cache")
    assert torch.equal(first.latents, again.latents) and len(list((tmp_path / "cache").iterdir())) == 1
    for dataset, vae in ((fireworks(), tiny_vae(seed=3)), (fireworks(clips=4), tiny_vae())):
        with pytest.raises(RuntimeError, match="no electricity"):
            LatentFilms(dataset, vae, tmp_path / "cache")


def test_whatever_changes_the_latents_changes_the_name_of_their_file(tmp_path):
    vae, clips = tiny_vae(), fireworks()
    shifted, in_pieces = tiny_vae(), tiny_vae(micro_frame_size=4)
    shifted.shift += 0.5
    names = [fingerprint(clips, other) for other in (vae, tiny_vae(seed=3), shifted, in_pieces)]
    changes = ({"clips": 6}, {"size": 20}, {"frames": 6}, {"seed": 2}, {"level": "scene"}, {"split": "test"})
    names += [fingerprint(fireworks(**change), vae) for change in changes]
    folder = write_folder(tmp_path)
    names += [fingerprint(folder_dataset(folder), vae)]
    changes = ({"size": 20}, {"frames": 4}, {"fit": "cut"}, {"flip": True}, {"seed": 3})
    names += [fingerprint(folder_dataset(folder, **change), vae) for change in changes]
    (folder / "captions.jsonl").write_text("")
    assert fingerprint(folder_dataset(folder), vae) == names[-6], "words are not in the latents"
    write_video(folder / "3.npz", torch.zeros(3, 5, 16, 16), fps=8)
    names += [fingerprint(folder_dataset(folder), vae)]
    os.rename(folder / "4.npz", folder / "5.npz")
    names += [fingerprint(folder_dataset(folder), vae)]
    assert len(set(names)) == len(names) == 18
    assert fingerprint(fireworks(), tiny_vae()) == names[0]


def test_nothing_half_made_is_left_behind(tmp_path, monkeypatch):
    vae, done = tiny_vae(), []
    encode = vae.encode

    def fails_later(videos, **options):
        done.append(len(videos))
        return encode(videos, **options) if len(done) == 1 else broken()

    monkeypatch.setattr(films_module, "BLOCK", 2)
    vae.encode = fails_later
    with pytest.raises(RuntimeError, match="no electricity"):
        LatentFilms(fireworks(), vae, tmp_path / "cache")
    assert done == [2, 2] and not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.setattr(latent_file.os, "replace", broken)
    with pytest.raises(RuntimeError, match="no electricity"):
        LatentFilms(fireworks(), tiny_vae(), tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_file_of_latents_is_one_line(tmp_path):
    LatentFilms(fireworks(), tiny_vae(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{file.name}.*delete it") as error:
        LatentFilms(fireworks(), tiny_vae(), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cached", [False, True])
def test_a_clip_that_cannot_be_read_takes_its_words_with_it(tmp_path, cached):
    folder = write_folder(tmp_path / "clips", clips=6)
    (folder / "2.npz").write_bytes(b"not a clip")
    cache = tmp_path / "cache" if cached else None
    films, vae = LatentFilms(folder_dataset(folder), tiny_vae(), cache), tiny_vae()
    if cached:
        films = LatentFilms(folder_dataset(folder), vae, cache)
    clips = folder_dataset(folder)
    by_number = {number: clips[number]["video"] for number in (0, 1, 3, 4, 5)}
    assert len(films) == 5
    for index in range(len(films)):
        number = int(films[index]["caption"].split()[-1])
        with torch.no_grad():
            expected = vae.encode(by_number.pop(number)[None], sample=False)[0]
        torch.testing.assert_close(films[index]["latents"], expected, rtol=2**-10, atol=1e-5)
    assert by_number == {}


# Words without pictures


def test_words_alone_are_those_beside_the_picture(tmp_path):
    dataset = folder_dataset(write_folder(tmp_path), fit="cut", frames=3)
    keys = [(index, epoch) for index in range(5) for epoch in range(6)]
    assert [dataset.caption(*key) for key in keys] == [dataset[key]["caption"] for key in keys]
    assert {dataset.caption(1, epoch).rsplit(",", 1)[0] for epoch in range(20)} == set(WORDINGS)
    rendered = fireworks(level="scene")
    assert [rendered.caption(*key) for key in keys] == [rendered[key]["caption"] for key in keys]


def test_words_alone_keep_to_the_view_of_the_first_epoch(tmp_path):
    dataset = folder_dataset(write_folder(tmp_path), flip=True)
    views = set()
    for index in range(5):
        kept = dataset[index, 0]
        turned = not torch.equal(kept["video"], folder_dataset(tmp_path)[index]["video"])
        said = [f"{text}, number {index}" for text in WORDINGS]
        said = [swap_left_right(text) for text in said] if turned else said
        assert dataset.caption(index, 0) == kept["caption"]
        assert {dataset.caption(index, epoch) for epoch in range(25)} == set(said)
        views.add(turned)
    assert views == {True, False}


def test_a_clip_without_words_has_none(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "captions.jsonl").write_text("")
    assert folder_dataset(tmp_path, flip=True).caption(3, 2) == ""


# Texts


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return TextEmbedder(write_t5(tmp_path_factory.mktemp("t5")), TOKENS)


@pytest.fixture
def encoded(embedder, monkeypatch):
    """Every text that reaches the encoder."""
    texts, forward = [], embedder.forward
    monkeypatch.setattr(embedder, "forward", lambda new: (texts.extend(new), forward(new))[1])
    return texts


def check(cache, embedder, texts):
    y, mask = cache(texts)
    expected, expected_mask = TextEmbedder.forward(embedder, texts)
    assert torch.equal(mask, expected_mask) and y.dtype == torch.float32
    torch.testing.assert_close(y, torch.where(mask[..., None], expected, 0), atol=1e-5, rtol=1e-5)
    assert (y[~mask] == 0).all()


def test_each_wording_is_encoded_once(embedder, encoded):
    cache = CachedTexts(embedder)
    texts = ["a red ring", "", "a large blue palm high right", "a red ring"]
    check(cache, embedder, texts)
    check(cache, embedder, ["a small palm", *texts[::-1]])
    assert encoded == [*texts[:3], "a small palm"]


def test_what_was_asked_for_longest_ago_is_forgotten(embedder, encoded):
    cache = CachedTexts(embedder, most=2)
    for text in ("red", "blue", "red", "green", "red", "blue"):
        check(cache, embedder, [text])
    assert encoded == ["red", "blue", "green", "blue"]


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), min_size=1, max_size=5))
def test_forgetting_changes_no_number(embedder, batches):
    words = dict(zip("abcdef", ("red", "a red ring", "", "left", "then a palm", "high high"), strict=True))
    cache = CachedTexts(embedder, most=3)
    for batch in batches:  # some hold more wordings than are kept
        check(cache, embedder, [words[letter] for letter in batch])
        assert len(cache._kept) <= 3
