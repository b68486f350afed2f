import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.denoisers.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding, rotate
from minivdm.errors import UserError


def test_sinusoid_is_sines_then_cosines_from_frequency_1_down_to_1_in_10000():
    dim, steps = 10, [0, 1, 7, 999]
    ours = SinusoidalEmbedding(dim)(torch.tensor(steps))
    assert ours.shape == (len(steps), dim)
    for row, t in enumerate(steps):
        for j in range(dim // 2):
            angle = t * 10000 ** (-j / (dim // 2 - 1))
            assert ours[row, j].item() == pytest.approx(math.sin(angle), abs=2e-4)
            assert ours[row, dim // 2 + j].item() == pytest.approx(math.cos(angle), abs=2e-4)


@pytest.mark.parametrize("dim", [2, 7])
def test_sinusoid_of_an_impossible_width_is_refused(dim):
    with pytest.raises(UserError, match=f"width {dim}"):
        SinusoidalEmbedding(dim)


@settings(deadline=None, max_examples=20)
@given(first=st.integers(0, 30), second=st.integers(0, 30), shift=st.integers(0, 30))
def test_rotated_scores_depend_on_the_distance_of_frames_only(first, second, shift):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    rotation = RotaryEmbedding(12, 8)(61)

    def score(i, j):
        return rotate(query, rotation[i]) @ rotate(key, rotation[j])

    assert score(first, second).item() == pytest.approx(score(first + shift, second + shift).item(), abs=1e-4)


def test_rotation_turns_neighbouring_features_and_leaves_the_rest():
    frames, dim_head, dim = 5, 10, 6
    x = torch.randn(frames, dim_head, generator=torch.Generator().manual_seed(0))
    y = rotate(x, RotaryEmbedding(dim_head, dim)(frames))
    assert torch.equal(y[:, dim:], x[:, dim:])
    assert torch.equal(y[0], x[0])
    angle = 3 * 10000 ** (-2 / 6)  # frame 3, second pair
    assert y[3, 2].item() == pytest.approx((x[3, 2] * math.cos(angle) - x[3, 3] * math.sin(angle)).item(), abs=1e-5)
    assert y[3, 3].item() == pytest.approx((x[3, 2] * math.sin(angle) + x[3, 3] * math.cos(angle)).item(), abs=1e-5)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize(("dim_head", "dim"), [(7, 6), (8, 5), (4, 6)])
def test_rotation_of_odd_or_too_many_features_is_refused(dim_head, dim):
    with pytest.raises(UserError, match="even"):
        RotaryEmbedding(dim_head, dim)


def test_past_and_future_have_different_buckets_and_far_ones_share_the_last():
    buckets = RelativePositionBias(heads=3, num_buckets=32, max_distance=32).buckets(80)
    row = buckets[40]  # seen from frame 40: keys before it, itself, keys after it
    past, future = row[:40].flip(0), row[41:]
    assert row[40] == 0
    assert past[:7].tolist() == list(range(1, 8)) and future[:7].tolist() == list(range(17, 24))
    assert set(past.tolist()).isdisjoint(future.tolist())
    assert past[31:].unique().tolist() == [15] and future[31:].unique().tolist() == [31]
    assert (past.diff() >= 0).all() and (future.diff() >= 0).all()


def test_bias_is_the_same_along_diagonals_and_differs_per_head():
    position_bias = RelativePositionBias(heads=3)
    bias = position_bias(7)
    assert bias.shape == (3, 7, 7)
    torch.testing.assert_close(bias[:, 1:, 1:], bias[:, :-1, :-1])
    assert bias[2, 4, 1] == position_bias.table[3, 2] and bias[2, 1, 4] == position_bias.table[19, 2]
