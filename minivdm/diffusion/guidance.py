"""Guidance: pushing a prediction further towards the condition than the model would go."""

from torch import Tensor


def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale · (cond - uncond), any shape (Ho & Salimans 2022, equation 6, with scale = 1 + w).

    Scale 0 ignores the condition, 1 is the conditional prediction unchanged, more than 1 exaggerates the difference.
    """
    return uncond + scale * (cond - uncond)
