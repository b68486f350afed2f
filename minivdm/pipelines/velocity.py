"""The denoiser as the sampler of rectified flow wants it: with the texts bound, and guided."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minivdm.diffusion.guidance import classifier_free, image_and_text, oscillating

# (z (B, C, T, h, w), t (B,), text (B, L, D), its mask (B, L), frame mask (B, T) or None) -> velocity, shaped like z
Denoise = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
Text = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GuidedVelocity:
    """`velocity(z, t, frames)` for `RectifiedFlow.sample`, from two or three predictions made in one batch.

    denoise: the network.
    text, null: (y, mask) of the prompts, and of no text.
    scale: guidance by the text; 1 is the conditional model.
    image_scale: guidance by the given frames; 1 guides by the text only.
    hide: (z, t, frames) -> z whose given frames are as noisy as the others, so that they say nothing.
    times: of the sampler, from which the number of the step is read, where guidance oscillates; None: it does not.
    """

    denoise: Denoise
    text: Text
    null: Text
    scale: float
    image_scale: float = 1.0
    hide: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    times: Tensor | None = None

    def __call__(self, z: Tensor, t: Tensor, frames: Tensor | None) -> Tensor:
        if frames is not None and not frames.any():  # all given: nothing is moved
            return torch.zeros_like(z)
        scale, image_scale = self._scales(t)
        if frames is None or self.hide is None:
            image_scale = 1.0
        if scale == image_scale == 1:
            return self.denoise(z, t, *self.text, frames)
        if image_scale == 1:
            z, (t, frames) = torch.cat([z, z]), (_repeat(part, 2) for part in (t, frames))
            return classifier_free(*self.denoise(z, t, *_join(self.text, self.null), frames).chunk(2), scale)
        hidden, everything = self.hide(z, t, frames), torch.ones_like(frames)
        predictions = self.denoise(
            torch.cat([z, z, hidden]),
            _repeat(t, 3),
            *_join(self.text, self.null, self.null),
            torch.cat([frames, frames, everything]),
        )
        return image_and_text(*predictions.chunk(3), scale, image_scale)

    def _scales(self, t: Tensor) -> tuple[float, float]:
        if self.times is None:
            return self.scale, self.image_scale
        step = int((self.times >= t[0].to(self.times)).sum()) - 1  # midpoints belong to the step that they halve
        return oscillating(self.scale, step), oscillating(self.image_scale, step)


def _repeat(part: Tensor | None, times: int) -> Tensor | None:
    return None if part is None else torch.cat([part] * times)


def _join(*texts: Text) -> Text:
    y, mask = (torch.cat(parts) for parts in zip(*texts, strict=True))
    return y, mask
