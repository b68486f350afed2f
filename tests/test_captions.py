"""Words for scenes, and scenes for words."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.data.captions import VOCABULARY, canonical, caption, parse_caption, tokenize, unknown_words
from minivdm.data.fireworks import Scene, Shell, sample_scenes
from minivdm.data.scenes import ATTRIBUTES


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(shell: Shell) -> dict[str, str]:
    return {name: getattr(shell, name) for name in ATTRIBUTES if getattr(shell, name) is not None}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), level=st.sampled_from(["single", "scene"]))
def test_parsing_inverts_every_wording(seed, level):
    generator = seeded(seed)
    for scene in sample_scenes(50, level, "test", generator=generator):
        text = caption(scene, generator)
        parsed = parse_caption(text)
        assert parsed.order == scene.order, text
        assert len(parsed.shells) == len(scene.shells), text
        for found, true in zip(parsed.shells, scene.shells, strict=True):
            assert said(found).items() <= said(true).items(), text
            assert len(scene.shells) == 1 or said(found) == said(true), text
        assert unknown_words(text) == [], text
        assert text == text.strip() and "  " not in text and ",," not in text and "{" not in text


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_parsing_inverts_the_canonical_wording(seed):
    for scene in sample_scenes(20, "scene", "test", generator=seeded(seed)):
        parsed = parse_caption(canonical(scene))
        assert parsed.order == scene.order
        assert [said(shell) for shell in parsed.shells] == [said(shell) for shell in scene.shells]
        assert canonical(parsed) == canonical(scene)


def test_wordings_are_many_and_use_the_whole_vocabulary():
    generator = seeded()
    scenes = sample_scenes(3000, "single", generator=generator) + sample_scenes(3000, "scene", generator=generator)
    texts = [caption(scene, generator) for scene in scenes]
    assert {word for text in texts for word in tokenize(text)} == set(VOCABULARY)
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert len({caption(scenes[0], generator) for _ in range(200)}) > 50


def test_some_captions_of_a_lone_shell_leave_things_out_and_captions_of_several_never():
    generator = seeded()
    scenes = sample_scenes(1000, "single", generator=generator)
    counts = [len(said(parse_caption(caption(scene, generator)).shells[0])) for scene in scenes]
    assert 0.6 < counts.count(5) / 1000 < 0.8
    assert 0.05 < counts.count(2) / 1000 < 0.15


def test_places_may_be_left_open_more_often():
    generator = seeded()
    lone = sample_scenes(2000, "single", generator=generator)
    said_of = [said(parse_caption(caption(scene, generator, open_places=0.4)).shells[0]) for scene in lone]
    without_place = [each for each in said_of if not each.keys() & {"column", "row"}]
    assert len(without_place) / 2000 == pytest.approx(0.7 * 0.4 + 0.15, abs=0.03)
    assert sum("size" in each for each in without_place) / 2000 == pytest.approx(0.25 * 0.4 + 0.05, abs=0.02)
    assert sum(len(each) == 5 for each in said_of) / 2000 == pytest.approx(0.7 * 0.6, abs=0.03)
    several = [scene for scene in sample_scenes(60, "scene", generator=generator) if len(scene.shells) > 1]
    for scene in several:
        found = parse_caption(caption(scene, generator, open_places=1.0)).shells
        assert all(len(said(shell)) == 5 for shell in found), "captions of several shells say everything"


def test_the_same_generator_gives_the_same_words():
    scene = sample_scenes(1, "scene", generator=seeded(5))[0]
    assert caption(scene, seeded(1)) == caption(scene, seeded(1))


@pytest.mark.parametrize(
    "text, plain",
    [
        ("A large RED peony bursts high on the left!", "a large red peony high on the left"),
        ("a red ring", "a red ring"),
        ("big, green and low", "a large green firework low"),
        ("red and blue", "a red firework and a blue firework"),
        ("a huge tangerine weeping willow", "a large orange willow"),
        ("a small palm after a ring", "a ring, then a small palm"),
        ("a red ring, a blue palm and a green peony", "a red ring and a blue palm and a green peony"),
        ("a red ring and a blue palm, then a gold pinwheel", "a red ring and a blue palm, then a gold spiral"),
        ("on the left a ring a palm on the right", "a ring on the left and a palm on the right"),
        ("a firework", "a firework"),
    ],
)
def test_looser_words_are_understood(text, plain):
    assert canonical(parse_caption(text)) == plain


def test_words_without_a_meaning_are_none_and_are_listed():
    assert parse_caption("") is None
    assert parse_caption("a cat on the moon") is None
    assert unknown_words("A cat, a red Cat on the moon") == ["cat", "moon"]
    assert unknown_words("a red ring") == []


def test_parsed_prompts_can_be_drawn_when_they_say_everything():
    scene = parse_caption("a large red peony high on the left, then a small blue ring low on the right")
    assert isinstance(scene, Scene) and [shell.burst for shell in scene.shells] == [2.9, 8.2]
