"""From prompts to what the denoiser reads: several prompts in one, scores in words, and the text that means none."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError


def text_for_denoiser(denoiser: STDiT3, embedder: nn.Module, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts -> y (B, L, D) and mask (B, L) bool, True for tokens to look at; an empty text is `no_text`.

    The one place that says what the denoiser sees of a text, in sampling as in training.
    """
    y, mask = embedder(list(texts))
    null, everything = no_text(denoiser, len(texts))
    empty = torch.tensor([not text.strip() for text in texts], device=null.device)
    y = torch.where(empty[:, None, None], null, y.to(null))
    return y, torch.where(empty[:, None], everything, mask.to(null.device))


def no_text(denoiser: STDiT3, batch: int, instead_of: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What stands for no text: the denoiser's null text, all of its tokens visible. y (B, L, D), mask (B, L).

    Open-Sora 1.2 shows only as many of these tokens as the prompt has that they stand for; its weights want that, with
    the mask of the prompts as `instead_of`. What the model does without a text then depends on how long the text was.
    """
    y = denoiser.null_text(batch)[:, 0]
    return y, torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if instead_of is None else instead_of


def split_clips(prompt: str) -> list[str]:
    """A prompt for each clip of a film: "|0| a red ring |2| a blue palm" -> [red ring, red ring, blue palm].

    A clip that is not mentioned has the prompt of the one before. Without numbers the prompt is for one clip.
    """
    if not re.match(r"\s*\|\s*\d+\s*\|", prompt):
        return [prompt]
    pieces = re.split(r"\|\s*(\d+)\s*\|", prompt)[1:]
    starts = [int(number) for number in pieces[::2]]
    if starts[0] != 0 or any(b <= a for a, b in zip(starts, starts[1:], strict=False)):
        raise UserError(f"clips {starts} in {prompt!r}: expected |0|, then larger and larger numbers")
    if starts[-1] >= 100:
        raise UserError(f"clip {starts[-1]} in {prompt!r}: expected at most 100 clips, numbered from 0")
    ends = [*starts[1:], starts[-1] + 1]
    texts = [text.strip() for text in pieces[1::2]]
    return [text for text, start, end in zip(texts, starts, ends, strict=True) for _ in range(start, end)]


def with_motion_score(prompt: str, score: float | None) -> str:
    """The prompt with a motion score appended in the words of Open-Sora 1.2, unless it names one or is empty."""
    if score is None or not prompt.strip() or "motion score:" in prompt:
        return prompt
    return f"{prompt} motion score: {score:.1f}."
