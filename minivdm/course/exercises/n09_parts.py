"""A small pipeline for the check of `generate`: four functions in closed form that notice how they are called."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from minivdm.course.compare import Problem
from minivdm.course.exercise import Case
from minivdm.course.inputs import randn
from minivdm.course.runner import call

WIDTH, ROWS = 7, 31  # of the embeddings, and how many of them there are


class Parts:
    """What `generate` is given: encode, null, velocity, decode and latent_shape (C, T, H, W).

    Every part is a formula in the width of its input. `tokens` is the length L of a text, `null_tokens` how many of
    them the null text really has. `complaints` collects what a network would have stumbled over: (kind, sentence).
    """

    def __init__(self, g: torch.Generator, latent_shape: tuple[int, ...], tokens: int, null_tokens: int):
        channels = latent_shape[0]
        self.latent_shape = latent_shape
        self.tokens, self.null_tokens = tokens, null_tokens
        self.complaints: list[tuple[str, str]] = []
        self.table = randn(g, ROWS, WIDTH)
        self.place = 0.3 * randn(g, tokens, WIDTH)
        self.nothing = randn(g, tokens, WIDTH)
        self.listen = randn(g, WIDTH, channels) / WIDTH**0.5
        self.mix = randn(g, channels, channels) / channels**0.5
        self.paint = 0.25 * randn(g, channels, 3)

    def __repr__(self) -> str:
        return f"Parts(latent_shape={self.latent_shape})"

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, L, D) and mask (B, L): one token a word and one for the end, then padding, which is not 0."""
        if isinstance(texts, str):
            self._complain("text for a list", "`encode` wants a list of texts, `[prompt]`, and got a bare text.")
            texts = [texts]
        words = [text.split()[: self.tokens - 1] for text in texts]
        rows = [[*map(_row, text), ROWS - 1] + [0] * (self.tokens - 1 - len(text)) for text in words]
        lengths = torch.tensor([len(text) + 1 for text in words])
        mask = torch.arange(self.tokens) < lengths[:, None]
        return self.table[torch.tensor(rows)] + self.place, mask

    def null(self, n: int) -> tuple[Tensor, Tensor]:
        """The learnt text of no words, n times, and its mask."""
        mask = torch.arange(self.tokens) < self.null_tokens
        return repeat(self.nothing, "l d -> n l d", n=n).clone(), repeat(mask, "l -> n l", n=n).clone()

    def velocity(self, z: Tensor, t: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """A velocity shaped like z that depends on the text's real tokens and on t, and that steps cannot undo."""
        self._require_latents("velocity", z)
        self._look_at(z, t, y)
        t, y = (torch.as_tensor(each).to(z) for each in (t, y))
        mask = torch.ones(y.shape[:2], dtype=torch.bool) if mask is None else mask
        real = rearrange(mask.to(z), "b l -> b l 1")
        heard = rearrange((y * real).sum(1) / real.sum(1) @ self.listen.to(z), "b c -> b c 1 1 1")
        level = t.reshape(-1, 1, 1, 1, 1) / 1000
        mixed = torch.einsum("b c t h w, c k -> b k t h w", z, self.mix.to(z))
        return torch.tanh(mixed + 1.5 * heard) * (1.2 + torch.cos(4 * level)) + 0.4 * torch.sin(9 * level) - 0.3 * z

    def decode(self, z: Tensor) -> Tensor:
        """A film (B, 3, T, 2H, 2W), some of it beyond [-1, 1]."""
        self._require_latents("decode", z)
        film = torch.einsum("b c t h w, c k -> b k t h w", z, self.paint.to(z))
        return repeat(film, "b k t h w -> b k t (h 2) (w 2)")

    def _require_latents(self, part: str, z: Tensor) -> None:
        if tuple(z.shape[1:]) != self.latent_shape or z.ndim != 5:
            told = f"{part} wants latents (B, {', '.join(map(str, self.latent_shape))}), not {tuple(z.shape)}"
            raise ValueError(told)

    def _look_at(self, z: Tensor, t: Tensor, y: Tensor) -> None:
        films = len(z)
        if len(y) != films:
            told = f"`velocity` got films in `z`: {films}, texts in `y`: {len(y)}. Every film needs a text of its own."
            self._complain("films and texts", told)
        if not isinstance(t, Tensor) or t.shape != (films,):
            found = f"a tensor {tuple(t.shape)}" if isinstance(t, Tensor) else f"a {type(t).__name__}"
            self._complain("times", f"`velocity` wants one time per film, a tensor ({films},), and got {found}.")

    def _complain(self, kind: str, told: str) -> None:
        self.complaints.append((kind, told))


def _row(word: str) -> int:
    """Where a word lies in the table; rows 0 and ROWS - 1 are the padding and the end."""
    return 1 + sum(place * ord(letter) for place, letter in enumerate(word, start=1)) % (ROWS - 2)


def with_own_parts(args: dict[str, Any]) -> dict[str, Any]:
    """Every call gets parts of its own, so that nobody hears complaints about another call."""
    return {**args, "parts": copy.deepcopy(args["parts"])}


def calls_the_parts_well(answer: Callable[..., Any], case: Case) -> Problem | None:
    """The parts were called in a way that a real network and a real encoder take as well."""
    outcome = call(answer, case.args, tie=case.tie)
    if outcome.error is not None:
        text = f"The film is right, but a second call raised `{type(outcome.error).__name__}: {outcome.error}`."
        return Problem("second call", f"{text}\nThink: what does your function remember from one call to the next?")
    for kind, told in outcome.inputs["parts"].complaints:
        text = f"The film is right, but only because these parts are patient: {told}"
        return Problem(kind, f"{text}\nThink: what would a real network do with this?")
    return None
