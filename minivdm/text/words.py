"""The simplest text encoder there is: which words occur, and nothing about their order.

It is enough for one firework ("a large red peony, high on the left") and hopeless for two, where it cannot tell which
colour belongs to which shell. Lesson 09 makes that failure visible and repairs it with a language model.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minivdm.errors import UserError

MAX_WORDS = 256


def split_words(text: str) -> list[str]:
    """Lower-case words of a caption, punctuation dropped."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


class BagOfWords:
    """`encode(texts) -> (B, V)`: 1 where the word occurs in the caption, 0 elsewhere."""

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = tuple(vocabulary)
        self._index = {word: i for i, word in enumerate(self.vocabulary)}

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "BagOfWords":
        """A vocabulary of the words in `captions`: the most frequent ones, at most MAX_WORDS, in alphabetical order."""
        counts = Counter(word for caption in captions for word in set(split_words(caption)))
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_WORDS]
        return cls(sorted(frequent))

    @classmethod
    def load(cls, path: Path) -> "BagOfWords":
        """The vocabulary that `save` wrote. Raises UserError when the file is missing or something else."""
        try:
            vocabulary = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the vocabulary {path}: {error}") from None
        if not isinstance(vocabulary, list) or not all(isinstance(word, str) for word in vocabulary):
            raise UserError(f"{path} is not a vocabulary; expected a list of words")
        return cls(vocabulary)

    def save(self, path: Path) -> None:
        """Write the words as a JSON list."""
        path.write_text(json.dumps(self.vocabulary), encoding="utf-8")

    @property
    def dim(self) -> int:
        """V, the number of words."""
        return len(self.vocabulary)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Captions to a multi-hot (B, V) float tensor; words outside the vocabulary are not seen."""
        bags = torch.zeros(len(texts), self.dim)
        for row, text in enumerate(texts):
            for word in split_words(text):
                if word in self._index:
                    bags[row, self._index[word]] = 1.0
        return bags

    def unknown(self, text: str) -> list[str]:
        """Words of `text` that the model cannot hear, in their order."""
        return [word for word in split_words(text) if word not in self._index]
