"""A bag of words hears which words occur, and nothing else."""

import pytest
import torch

from minivdm.errors import UserError
from minivdm.text.words import MAX_WORDS, BagOfWords, split_words


def test_words_are_lower_case_and_without_punctuation():
    assert split_words("A large, RED peony; high-up (it's 2)!") == [
        "a",
        "large",
        "red",
        "peony",
        "high",
        "up",
        "it's",
        "2",
    ]


def test_encode_marks_what_occurs_whatever_the_order():
    bag = BagOfWords(["blue", "red", "ring"])
    assert bag.encode(["a red ring", "ring red, red", "blue", ""]).tolist() == [
        [0, 1, 1],
        [0, 1, 1],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert bag.unknown("a red xylophone") == ["a", "xylophone"]


def test_vocabulary_keeps_the_most_frequent_words_in_order():
    captions = [f"common word{i}" for i in range(MAX_WORDS + 5)]
    bag = BagOfWords.from_captions(captions)
    assert bag.dim == MAX_WORDS and "common" in bag.vocabulary
    assert list(bag.vocabulary) == sorted(bag.vocabulary)
    assert bag.vocabulary == BagOfWords.from_captions(reversed(captions)).vocabulary


def test_no_captions_no_words():
    bag = BagOfWords.from_captions(["", ""])
    assert bag.dim == 0 and bag.encode(["a red ring"]).shape == torch.Size([1, 0])


def test_vocabulary_survives_a_file_and_other_files_are_refused(tmp_path):
    BagOfWords(["blue", "ring"]).save(tmp_path / "words.json")
    assert BagOfWords.load(tmp_path / "words.json").vocabulary == ("blue", "ring")
    for text in ('{"a": 1}', "[1, 2]", "hello"):
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(UserError, match="vocabulary"):
            BagOfWords.load(tmp_path / "wrong.json")
