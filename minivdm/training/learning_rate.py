"""How large the steps of a training are, from the first to the last."""

import math

from minivdm.settings import TrainingConfig


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Rises over `warmup` steps, stays, and after the fraction `decay_from` of all steps falls to 0 (cosine)."""
    start = training.decay_from * training.steps
    fallen = max(0.0, step - start) / max(1.0, training.steps - start)
    rise = min(1.0, (step + 1) / (training.warmup + 1))
    return training.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * fallen))
