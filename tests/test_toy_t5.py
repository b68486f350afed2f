"""What the toy T5 is taught with: numbers for words, lists of shells, whose word is whose, and hidden words."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from minivdm.data.captions import (
    ANY_SHAPE,
    MEANING,
    THEN,
    THEN_3,
    TOGETHER,
    TOGETHER_3,
    VOCABULARY,
    canonical,
    caption,
    caption_with_owners,
    parse_caption,
    tokenize,
)
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.scenes import ATTRIBUTES, Scene, Shell, sample_scenes
from minivdm.text.toy_t5 import (
    HIDDEN,
    MAX_TOKENS,
    NOBODY,
    QUESTIONS,
    SENTINELS,
    SPAN,
    UNSAID,
    WHEN,
    answers_for,
    burst_steps,
    corrupt_spans,
    listing,
    make_tokenizer,
)
from minivdm.training.toy_t5_task import Captions

TOKENIZER = make_tokenizer()
seeds = st.integers(0, 2**40)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def scenes_for(seed, count=12):
    generator = seeded(seed)
    return sample_scenes(count, "scene", "test", generator=generator), generator


def said(shell):
    return {name: getattr(shell, name) for name in ATTRIBUTES if getattr(shell, name) is not None}


# Tokens


def test_words_marks_and_what_is_unknown():
    assert TOKENIZER.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    numbers = TOKENIZER("A large, RED ring: moonlight;")["input_ids"]
    assert TOKENIZER.convert_ids_to_tokens(numbers) == ["a", "large", ",", "red", "ring", ":", "<unk>", ";", "</s>"]
    assert TOKENIZER.tokenize("red <extra_id_3> <extra_id_7>") == ["red", "<extra_id_3>", "<extra_id_7>"]
    padded = TOKENIZER(["a red ring", ""], padding=True)
    assert padded["input_ids"][1] == [1, 0, 0, 0] and padded["attention_mask"] == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_every_word_of_captions_and_listings_has_its_own_number(tmp_path):
    numbers = [TOKENIZER(word)["input_ids"] for word in VOCABULARY]
    assert all(len(row) == 2 and row[0] > 2 and row[1] == 1 for row in numbers)
    assert len({row[0] for row in numbers}) == len(VOCABULARY)
    TOKENIZER.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = [caption(scene, seeded(3)) for scene in scenes_for(3, 50)[0]]
    for text in (*texts, *map(listing, texts), "moonlight"):
        assert again(text)["input_ids"] == TOKENIZER(text)["input_ids"]
        assert (2 in TOKENIZER(text)["input_ids"]) == (text == "moonlight")
        assert TOKENIZER.tokenize(text) != [] and len(TOKENIZER(text)["input_ids"]) <= MAX_TOKENS


# Lists of shells


PLAIN = ("a large red peony high on the left", "a small blue ring low on the right", "a small gold palm high centre")
ENTRIES = ("high left : large red peony {}", "low right : small blue ring {}", "high centre : small gold palm {}")


@pytest.mark.parametrize(("join", "order"), [
    ("{0}", (0,)),
    *((join, (0, 0)) for join in TOGETHER),
    *((join, (0, 0, 0)) for join in TOGETHER_3),
    *((join, (0, 1)) for join in THEN),
    *((join, (0, 1, 2)) for join in THEN_3),
])  # fmt: skip
def test_a_list_says_who_is_where_and_when(join, order):
    when = ("first", "second", "third")
    entries = [entry.format(when[step]) for entry, step in zip(ENTRIES, order, strict=False)]
    assert listing(join.format(*PLAIN)) == " ; ".join(sorted(entries))


def test_lists_of_the_docstring_and_of_texts_that_say_little():
    text = "a tiny red ring on the left high up, then a big palm in blue at the bottom right"
    assert listing(text) == "high left : small red ring first ; low right : large blue palm second"
    assert listing("a green firework") == "somewhere : green firework first"
    assert listing("something low, large") == "low : large firework first"
    assert listing("moonlight") == listing("") == ""


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_equal_scenes_have_equal_lists_whatever_the_words(seed):
    scenes, generator = scenes_for(seed)
    for scene in scenes:
        texts = [caption(scene, generator) for _ in range(3)]
        assert all(listing(text) == listing(canonical(parse_caption(text))) for text in texts)
        if len(scene.shells) > 1:  # of a lone shell a caption may leave something out
            assert {listing(text) for text in texts} == {listing(canonical(scene))}
            assert len(listing(texts[0]).split(" ; ")) == len(scene.shells)


def test_scenes_that_differ_have_lists_that_differ():
    texts = {listing(canonical(scene)) for scene in scenes_for(5, 300)[0]}
    plain = {canonical(scene) for scene in scenes_for(5, 300)[0]}
    assert len(texts) == len(plain) > 290


# Whose word it is


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_the_words_of_a_shell_say_what_that_shell_is(seed):
    for number, scene in enumerate(scenes_for(seed)[0]):
        text, owners = caption_with_owners(scene, seeded(seed + number))
        assert text == caption(scene, seeded(seed + number))
        words = tokenize(text)
        assert len(owners) == len(words)
        assert set(owners) - {None} == set(range(len(scene.shells)))
        for owner, shell in enumerate(scene.shells):
            own = " ".join(word for word, whose in zip(words, owners, strict=True) if whose == owner)
            (found,) = parse_caption(own).shells
            assert said(found).items() <= said(shell).items(), text
            assert len(scene.shells) == 1 or said(found) == said(shell), text
        assert not [word for word, whose in zip(words, owners, strict=True) if whose is None and word in MEANING], text


def test_answers_of_a_caption_by_hand():
    one, other = Shell("red", "peony", "left", "high", "large", 3.0), Shell("blue", "ring", None, "low", None, 8.0)
    tokens = TOKENIZER.tokenize("first a large peony, red, then a ring low")
    owners = [None, 0, 0, 0, 0, None, 1, 1, 1]
    answers = answers_for(tokens, owners, Scene((one, other)))
    whole, part = ([1 + names.index(name) for names, name in zip(QUESTIONS.values(), row, strict=True)] for row in (
        ("red", "peony", "left", "high", "large", "first"),
        ("blue", "ring", "left", "low", "small", "second"),
    ))  # fmt: skip
    part[2] = part[4] = UNSAID

    def asked(row, own=None):
        return [k for k, question in enumerate(QUESTIONS) if question in ("column", "row", "when", own)], row

    expected = [
        None, asked(whole), asked(whole, "size"), asked(whole, "shape"), None, asked(whole, "colour"), None, None,
        asked(part), asked(part, "shape"), asked(part),
    ]  # fmt: skip
    rows = [[NOBODY if each is None or k not in each[0] else each[1][k] for k in range(6)] for each in expected]
    assert answers.tolist() == rows
    assert list(QUESTIONS) == [*ATTRIBUTES, "when"] and answers.dtype == torch.int64


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_every_word_with_a_meaning_is_asked_for_it(seed):
    items = Captions(FireworksDataset(20, "scene", "test", seed=seed), TOKENIZER)
    for index in range(20):
        item, scene = items[index, 2], items.dataset.scenes[index]
        tokens = TOKENIZER.tokenize(item["caption"])
        assert item["caption"] == items.dataset.caption(index, 2) and item["answers"].shape == (len(tokens), 6)
        for token, answers in zip(tokens, item["answers"].tolist(), strict=True):
            said = dict(zip(QUESTIONS, answers, strict=True))
            attribute, name = MEANING.get(token, (None, None))
            if attribute:
                assert said[attribute] == 1 + ATTRIBUTES[attribute].index(name)
            others = {said[question] for question in ("colour", "shape", "size") if question != attribute}
            assert others <= {NOBODY} or (token in ANY_SHAPE and said["shape"] == UNSAID)
            assert (said["row"] == NOBODY) == (answers == [NOBODY] * 6)
            assert token[0].isalnum() or said["row"] == NOBODY
        asked = {row[-1] for row in item["answers"].tolist()} - {NOBODY}
        steps = burst_steps(scene)
        assert asked == ({1 + WHEN.index("at once")} if scene.order == "together" else {2 + step for step in steps})


# Hidden words


@settings(max_examples=200, deadline=None)
@given(seed=seeds, length=st.integers(1, MAX_TOKENS - 1))
def test_what_is_hidden_can_be_put_back(seed, length):
    first = TOKENIZER.convert_tokens_to_ids(SENTINELS[0])
    sentinels = [first + k for k in range(len(SENTINELS))]
    assert TOKENIZER.convert_ids_to_tokens(sentinels) == list(SENTINELS)
    text = [*torch.randint(3, first, (length,), generator=seeded(seed)).tolist(), 1]
    inputs, targets = (part.tolist() for part in corrupt_spans(torch.tensor(text), seeded(seed), first))
    used = [token for token in inputs if token in sentinels]
    assert used == sentinels[: len(used)] and [token for token in targets if token in sentinels] == used
    hidden = {}
    for token in targets[:-1]:
        if token in sentinels:
            hidden[token] = []
        else:
            hidden[next(reversed(hidden))].append(token)
    assert all(hidden.values()) and used
    assert list(itertools.chain.from_iterable(hidden.get(token, [token]) for token in inputs)) == text
    assert targets[-1] == inputs[-1] == 1
    assert sum(map(len, hidden.values())) <= len(used) * (2 * SPAN - 1)
    again = corrupt_spans(torch.tensor(text), seeded(seed), first)
    assert again[0].tolist() == inputs and again[1].tolist() == targets


def test_about_as_much_is_hidden_as_is_meant():
    text = torch.tensor([*range(3, 33), 1])
    shares = [(len(corrupt_spans(text, seeded(seed), 100)[1]) - 1 - 4) / 30 for seed in range(400)]
    assert 0.8 * HIDDEN < sum(shares) / 400 < 1.05 * HIDDEN  # spans that meet or reach the end are shorter
