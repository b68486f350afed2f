"""Guidance: pushing a prediction further towards the condition than the model would go."""

from torch import Tensor


def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale · (cond - uncond), any shape (Ho & Salimans 2022, equation 6, with scale = 1 + w).

    Scale 0 ignores the condition, 1 is the conditional prediction unchanged, more than 1 exaggerates the difference.
    """
    return uncond + scale * (cond - uncond)


def image_and_text(full: Tensor, image: Tensor, none: Tensor, text_scale: float, image_scale: float) -> Tensor:
    """none + image_scale · (image - none) + text_scale · (full - image), any shape (Brooks et al. 2023, equation 3).

    `full` is predicted from text and image, `image` from the image alone, `none` from neither. Both scales 1 give
    `full`; `image_scale` 1 guides by the text only.
    """
    return none + image_scale * (image - none) + text_scale * (full - image)


def oscillating(scale: float, step: int, forced: int = 10) -> float:
    """The scale of step 0, 1, ...: `scale` in the first `forced` steps, then in even steps only and 1 in odd ones.

    Guidance in every step oversaturates; in every second one it still decides what is shown (Open-Sora 2.0).
    """
    return scale if step < forced or step % 2 == 0 else 1.0
