"""The two optimizers of the trainer: Adam, and Muon for the matrices inside a transformer.

Adam rescales every number of a gradient by itself. But a matrix is used as a whole, and its gradient is mostly a few
directions said loudly over many said quietly. Muon (Jordan et al. 2024) sets all its singular values to about 1, so
that every direction is learnt at the same speed; the quiet ones no longer wait. Steps cost a little more, and fewer
are needed.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.settings import TrainingConfig
from minivdm.training.sharding import is_sharded, share

BETAS = (0.9, 0.99)
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: five rounds bring singular values from 0.01 to 1 near to 1


def make_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """What `training.optimizer` asks for, over all weights of `model` that are learnt."""
    if training.optimizer == "muon":
        return Muon(model, training.learning_rate, bf16=training.precision == "bf16")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.Adam(weights, lr=training.learning_rate, betas=BETAS, foreach=True)


class Muon(torch.optim.Adam):
    """Muon for the matrices of linear layers within lists of blocks, Adam for every other weight.

    A matrix moves by 0.2 `lr` per step (root mean square), which is what Adam comes to in practice (Liu et al. 2025),
    so a learning rate means the same to both. A matrix that is several square ones side by side (q, k and v; the parts
    of an MLP four times as wide) is taken apart into these. Sharded ones are put together for it, on every process.
    With `bf16` the directions are computed in it, at half the cost; what is summed up, the momentum and the weights,
    stays in single precision. Raises UserError for a model without such matrices.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float = 0.95, bf16: bool = False):
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        linear = [layer for blocks in lists for layer in blocks.modules() if isinstance(layer, nn.Linear)]
        matrices = list(dict.fromkeys(layer.weight for layer in linear if layer.weight.requires_grad))
        if not matrices:
            raise UserError(f"{type(model).__name__} has no blocks of linear layers; set training.optimizer to adam")
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        inside = set(matrices)
        rest = [weight for weight in model.parameters() if weight.requires_grad and weight not in inside]
        groups = [{"params": matrices, "momentum": momentum}, {"params": rest, "momentum": 0.0}]
        super().__init__(groups, lr=lr, betas=BETAS, foreach=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the matrices and leave them without gradients, which makes Adam pass them by."""
        group = self.param_groups[0]
        moved = [weight for weight in group["params"] if weight.grad is not None]
        for weight, direction in zip(moved, self._directions(moved, group["momentum"]), strict=True):
            weight.sub_(direction, alpha=0.2 * group["lr"])
            weight.grad = None
        return super().step(closure)

    def _directions(self, weights: list[Tensor], momentum: float) -> Iterable[Tensor]:
        """Where to move each weight: matrices whose numbers have root mean square 1."""
        shapes: list[torch.Size] = []
        pieces: dict[torch.Size, list[Tensor]] = {}
        for weight in weights:
            state = self.state[weight]
            if not state:
                state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
            state["step"] += 1
            state["exp_avg"].lerp_(weight.grad, 1 - momentum)
            ahead = weight.grad.lerp(state["exp_avg"], momentum)  # Nesterov's
            squares = _apart(ahead.full_tensor() if is_sharded(ahead) else ahead).to(self.dtype)
            shapes.append(squares.shape[1:])
            pieces.setdefault(shapes[-1], []).append(squares)
        done = {
            shape: iter(orthogonalised(torch.cat(blocks)).mul(math.sqrt(max(shape))).split([len(b) for b in blocks]))
            for shape, blocks in pieces.items()
        }
        moves = (_together(next(done[shape]), weight.shape) for shape, weight in zip(shapes, weights, strict=True))
        return [share(move.to(weight.dtype), weight) for move, weight in zip(moves, weights, strict=True)]


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with their singular vectors and with singular values between about 0.7 and 1.2.

    By Newton-Schulz iterations, which are products of matrices only; a matrix of zeros stays one.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-20)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT


def _apart(matrix: Tensor) -> Tensor:
    """(rows, columns) -> (n, side, side) if it is n squares side by side, else (1, rows, columns)."""
    rows, columns = matrix.shape
    if rows % columns == 0:
        return rearrange(matrix, "(n side) columns -> n side columns", side=columns)
    if columns % rows == 0:
        return rearrange(matrix, "rows (n side) -> n rows side", side=rows)
    return rearrange(matrix, "rows columns -> 1 rows columns")


def _together(pieces: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_apart`, for a matrix of this shape."""
    if pieces.shape[1] < shape[0]:
        return rearrange(pieces, "n side columns -> (n side) columns")
    return rearrange(pieces, "n rows side -> rows (n side)")
