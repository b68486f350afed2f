"""Muon: directions without lengths for the matrices of blocks, Adam for the rest, and the same bookkeeping for both.

(For sharded weights see `test_processes.py`.)
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.training.optimizers import Muon, make_optimizer, orthogonalised

SHAPES = [(7, 7), (21, 7), (7, 14), (5, 8)]  # a square, squares one above the other and side by side, neither


class Blocks(nn.Module):
    """A model with every kind of weight: in and out of blocks, matrices, biases, a frozen one, one without gradient."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(7, 7)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(columns, rows), nn.LayerNorm(rows)) for rows, columns in SHAPES
        )
        self.unused = nn.ModuleList([nn.Linear(3, 4)])
        self.frozen = nn.ModuleList([nn.Linear(3, 4)]).requires_grad_(False)


def _gradients(model, seed):
    chance = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "unused" not in name:
            weight.grad = torch.randn(weight.shape, generator=chance)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 99), size=st.floats(1e-6, 1e6))
def test_singular_vectors_stay_and_singular_values_become_about_1(rows, columns, seed, size):
    u, s, v = torch.linalg.svd(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), False)
    s = s.clamp(min=0.05 * s.max())  # what is smaller needs more than five rounds
    done = orthogonalised((size * (u * s) @ v)[None])[0]
    inside = u.T @ done @ v.T
    torch.testing.assert_close(done, u @ torch.diag(inside.diag()) @ v, rtol=0, atol=2e-3)
    assert 0.6 < inside.diag().min() and inside.diag().max() < 1.3


def test_every_matrix_in_a_batch_is_as_if_it_were_alone():
    matrices = (
        torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1e3, 0])[:, None, None]
    )
    alone = torch.cat([orthogonalised(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices), alone)
    assert not alone[2].any()


def test_matrices_of_blocks_move_along_directions_and_the_rest_as_with_adam():
    torch.manual_seed(0)
    model, other = Blocks(), Blocks()
    other.load_state_dict(model.state_dict())
    ours, adam = Muon(model, lr=0.01), torch.optim.Adam(other.parameters(), lr=0.01, betas=(0.9, 0.99))
    for step in range(3):
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        for net, optimizer in ((model, ours), (other, adam)):
            _gradients(net, step)
            optimizer.step()
    theirs, matrices = dict(other.named_parameters()), [model.blocks[k][0].weight for k in range(len(SHAPES))]
    for name, weight in model.named_parameters():
        if not any(weight is matrix for matrix in matrices):
            torch.testing.assert_close(weight, theirs[name], msg=name)
    for name, shape in zip([f"blocks.{k}.0.weight" for k in range(len(SHAPES))], SHAPES, strict=True):
        moved = (dict(model.named_parameters())[name] - before[name]) / (0.2 * 0.01)
        assert 0.65 < moved.square().mean().sqrt() < 1.2, f"{name} {shape}"
        side = min(shape)
        for piece in moved.reshape(-1, side, side) if shape[0] == 21 else [moved]:
            values = torch.linalg.svdvals(piece)
            assert values.min() > 0.3 * values.max(), f"{name} {shape}"


def test_the_momentum_is_nesterovs():
    """After gradients g1, g2 the direction is that of g2 (1 - m) + m b2, where b2 = (1 - m)(m g1 + g2)."""
    model = nn.ModuleList([nn.Linear(6, 6, bias=False)])
    optimizer, weight = Muon(model, lr=1.0, momentum=0.8), model[0].weight
    g1, g2 = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(3))
    for gradient in (g1, g2):
        before, weight.grad = weight.detach().clone(), gradient.clone()
        optimizer.step()
    expected = orthogonalised((0.2 * g2 + 0.8 * 0.2 * (0.8 * g1 + g2))[None])[0]
    torch.testing.assert_close(before - weight.detach(), 0.2 * 6**0.5 * expected, rtol=1e-4, atol=1e-5)


def test_in_bf16_the_directions_are_nearly_the_same_and_the_momentum_exactly():
    torch.manual_seed(0)
    model, other = Blocks(), Blocks()
    other.load_state_dict(model.state_dict())
    exact, coarse = Muon(model, lr=0.01), Muon(other, lr=0.01, bf16=True)
    for step in range(3):
        before = [block[0].weight.detach().clone() for block in other.blocks]
        for net, optimizer in ((model, exact), (other, coarse)):
            _gradients(net, step)
            optimizer.step()
        for block, same, start in zip(model.blocks, other.blocks, before, strict=True):
            direction = (start - same[0].weight.detach()) / (0.2 * 0.01)
            one, two = (opt.state[w]["exp_avg"] for opt, w in ((exact, block[0].weight), (coarse, same[0].weight)))
            assert torch.equal(one, two)
            assert same[0].weight.dtype == torch.float32 and 0.6 < direction.square().mean().sqrt() < 1.25
            torch.testing.assert_close(same[0].weight, block[0].weight, rtol=0, atol=(step + 1) * 0.2 * 0.01 * 0.1)


def test_its_state_survives_a_file_bit_for_bit(tmp_path):
    torch.manual_seed(1)
    model, other = Blocks(), Blocks()
    one, two = Muon(model, lr=0.01), Muon(other, lr=0.01)
    for step in range(2):
        _gradients(model, step)
        one.step()
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.load_state_dict(model.state_dict())
    for net, optimizer in ((model, one), (other, two)):
        _gradients(net, 7)
        optimizer.step()
    for weight, same in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_directions_are_computed_in_the_precision_of_the_training():
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        training = load_preset("toy", {"training.optimizer": "muon", "training.precision": precision}).training
        assert make_optimizer(Blocks(), training).dtype == dtype


def test_a_model_without_blocks_is_told():
    training = load_preset("toy", {"training.optimizer": "muon"}).training
    with pytest.raises(UserError, match="Linear has no blocks of linear layers; set training.optimizer to adam"):
        make_optimizer(nn.Linear(3, 3), training)
