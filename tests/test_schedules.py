import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.diffusion.schedules import (
    SCHEDULES,
    alphas_cumprod,
    betas_from_alphas_cumprod,
    cosine_betas,
    linear_betas,
    make_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    snr,
)
from minivdm.errors import UserError


def test_linear_betas_are_evenly_spaced():
    betas = linear_betas(7, 0.1, 0.7)
    assert betas.dtype == torch.float64
    torch.testing.assert_close(betas, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64))


def test_scaled_linear_betas_are_squares_of_evenly_spaced_roots():
    betas = scaled_linear_betas(4, 0.01, 0.16)
    torch.testing.assert_close(betas, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) ** 2)


def test_cosine_betas_leave_a_squared_cosine():
    num_steps, s = 50, 0.02
    curve = [math.cos((k / num_steps + s) / (1 + s) * math.pi / 2) ** 2 for k in range(num_steps + 1)]
    left = alphas_cumprod(cosine_betas(num_steps, s))
    for t in range(num_steps - 1):  # the last step is clipped
        assert left[t].item() == pytest.approx(curve[t + 1] / curve[0], rel=1e-12)
    assert cosine_betas(num_steps)[-1] == 0.9999
    assert cosine_betas(num_steps, max_beta=0.5).max() == 0.5


@pytest.mark.parametrize(
    ("name", "left_at_the_end"), [("cosine", 2.4e-10), ("linear", 4.0e-5), ("scaled_linear", 4.66e-3)]
)
def test_signal_left_after_a_thousand_steps(name, left_at_the_end):
    """The published defaults; Stable Diffusion's is famous for not reaching zero."""
    left = alphas_cumprod(make_betas(name, 1000))[-1].item()
    assert left == pytest.approx(left_at_the_end, rel=0.02)


def test_published_ends():
    assert linear_betas(1000)[[0, -1]].tolist() == [1e-4, 0.02]
    assert scaled_linear_betas(1000)[[0, -1]].tolist() == pytest.approx([0.00085, 0.012])
    assert cosine_betas(1000)[0].item() == pytest.approx(4.1284e-5, rel=1e-4)


def test_linear_does_not_scale_itself():
    assert alphas_cumprod(linear_betas(100))[-1] > 1 / 3


def test_alphas_cumprod_is_the_running_product():
    betas = torch.tensor([0.1, 0.5, 0.25], dtype=torch.float64)
    expected = torch.tensor([0.9, 0.45, 0.3375], dtype=torch.float64)
    torch.testing.assert_close(alphas_cumprod(betas), expected)
    torch.testing.assert_close(betas_from_alphas_cumprod(expected), betas)


def test_snr_is_a_ratio_of_variances():
    torch.testing.assert_close(snr(torch.tensor([0.8, 0.5, 0.2])), torch.tensor([4.0, 1.0, 0.25]))


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_moves_only_what_it_must(name):
    before = alphas_cumprod(make_betas(name, 30)).sqrt()
    betas = rescale_zero_terminal_snr(make_betas(name, 30))
    after = alphas_cumprod(betas).sqrt()
    assert betas[-1] == 1 and after[-1] == 0
    assert after[0].item() == pytest.approx(before[0].item(), rel=1e-12)
    stretch = (after[1:] - after[:-1]) / (before[1:] - before[:-1])
    torch.testing.assert_close(stretch, stretch[:1].expand_as(stretch), rtol=1e-6, atol=0)  # one straight line


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(sorted(SCHEDULES)), num_steps=st.integers(1, 400))
def test_any_length_adds_noise_in_every_step(name, num_steps):
    betas = make_betas(name, num_steps)
    assert betas.shape == (num_steps,) and betas.dtype == torch.float64
    assert ((betas > 0) & (betas <= 1)).all()
    left = alphas_cumprod(betas)
    assert (left[1:] < left[:-1]).all() and left[0] < 1
    torch.testing.assert_close(betas_from_alphas_cumprod(left), betas, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -3, 2.5])
def test_impossible_lengths(wrong):
    for make in SCHEDULES.values():
        with pytest.raises(UserError, match="at least 1"):
            make(wrong)


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(UserError, match="'sigmoid'.*linear, cosine, scaled_linear") as caught:
        make_betas("sigmoid", 10)
    assert "\n" not in str(caught.value)
