"""What is compared: one piece of work that two implementations do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[], Tensor]  # does the work once, and returns what can be compared


@dataclass(frozen=True)
class Work:
    """A row of the table.

    key: what `--only` calls it. name, peer: what is done, and who else does it (None: nobody).
    time, memory: how many times the peer's time and memory ours should take at most; None: no target.
    why: what stands in the way of a target that is missed; written below the table where it is.
    """

    key: str
    name: str
    peer: str | None
    time: float | None = None
    memory: float | None = None
    why: str = ""

    tensors = True  # whether its time goes into operators of PyTorch
    training = False  # whether memory is watched over two runs: only the second has an optimizer's state
    times_theirs = 1.0  # how often the peer would have to do what `theirs` does
    checks = 2  # runs whose outputs are compared

    def ours(self) -> Run:
        """Our implementation, ready to run."""
        raise NotImplementedError

    def theirs(self) -> Run:
        """The peer's, ready to run on the same inputs."""
        raise NotImplementedError

    def pair(self) -> tuple[Run, Run]:
        """Both, with the same weights."""
        return self.ours(), self.theirs()

    def difference(self, ours: Run, theirs: Run) -> float:
        """How far the outputs of two runs lie apart, in units of the largest: this is also the warm-up."""
        return max(relative(ours(), theirs()) for _ in range(self.checks))

    def remark(self) -> str:
        """What a reader must know about this row; may take a while to find out."""
        return ""


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over largest absolute value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Run:
    """Forward, backward and Adam; returns the loss, so that the second one also tells whether the gradients agree."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def run() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return run


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that are the same wherever they are drawn."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fixed_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """No layer left at zero, where many models begin: every part of them then has something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)
    return model


def options(model: Any) -> str:
    """The size of a model in words."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}M parameters"
