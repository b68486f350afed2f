import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from minivdm.errors import UserError
from minivdm.vae import DiagonalGaussianDistribution

SHAPES = [(2, 6, 5, 4), (2, 6, 3, 5, 4)]


def moments(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_torch(posterior):
    """The same distribution in torch.distributions: one event is everything but the batch."""
    return Independent(Normal(posterior.mean, posterior.std), posterior.mean.ndim - 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_and_nll_are_those_of_torch_for_pictures_and_clips(shape):
    posterior, other = (DiagonalGaussianDistribution(moments(shape, seed)) for seed in (1, 2))
    standard = DiagonalGaussianDistribution(torch.zeros(shape, dtype=torch.float64))
    x = posterior.sample(generator=torch.Generator().manual_seed(3))
    assert posterior.kl().shape == (2,)
    torch.testing.assert_close(posterior.kl(), kl_divergence(of_torch(posterior), of_torch(standard)))
    torch.testing.assert_close(posterior.kl(other), kl_divergence(of_torch(posterior), of_torch(other)))
    torch.testing.assert_close(posterior.nll(x), -of_torch(posterior).log_prob(x))
    torch.testing.assert_close(posterior.kl(posterior), torch.zeros(2, dtype=torch.float64))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=4), st.integers(0, 99))
def test_kl_is_not_negative_and_one_number_a_sample(rest, seed):
    posterior = DiagonalGaussianDistribution(moments((3, 4, *rest), seed))
    assert posterior.kl().shape == (3,) and (posterior.kl() >= 0).all()


def test_the_two_halves_are_mean_and_logvar():
    stacked = moments((2, 6, 3, 5, 4))
    posterior = DiagonalGaussianDistribution(stacked)
    assert torch.equal(posterior.mean, stacked[:, :3]) and torch.equal(posterior.mode(), stacked[:, :3])
    torch.testing.assert_close(posterior.var, stacked[:, 3:].exp())
    torch.testing.assert_close(posterior.std.square(), posterior.var)


def test_extreme_logvars_stay_finite():
    stacked = torch.cat([torch.zeros(1, 2, 3, 3), torch.tensor([1e9, -1e9]).view(1, 2, 1, 1).expand(1, 2, 3, 3)], 1)
    posterior = DiagonalGaussianDistribution(stacked)
    assert posterior.logvar.max() == 20 and posterior.logvar.min() == -30
    assert posterior.kl().isfinite().all() and posterior.sample().isfinite().all()


def test_sampling_carries_gradients_to_both_moments():
    stacked = moments((2, 4, 3, 5)).requires_grad_()
    posterior = DiagonalGaussianDistribution(stacked)
    noise = moments((2, 2, 3, 5), 9)
    posterior.sample(noise).sum().backward()
    torch.testing.assert_close(stacked.grad[:, :2], torch.ones_like(noise))
    torch.testing.assert_close(stacked.grad[:, 2:], 0.5 * posterior.std.detach() * noise)


def test_draws_repeat_with_their_generator_and_have_the_right_spread():
    posterior = DiagonalGaussianDistribution(
        torch.cat([torch.full((1, 1, 4000), 2.0), torch.full((1, 1, 4000), -1.0)], 1)
    )
    a, b = (posterior.sample(generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.mean().item() == pytest.approx(2, abs=0.05) and a.std().item() == pytest.approx(math.exp(-0.5), abs=0.05)


def test_silent_channels_are_those_that_the_input_does_not_move():
    told = torch.zeros(3, 2 * 5, 4, 6, 7)
    told[:, 1] = torch.randn(3, 4, 6, 7, generator=torch.Generator().manual_seed(1))  # moves
    told[:, 5 + 3] = -4  # drawn narrowly
    told[:, 4] = 0.1  # moves by next to nothing
    assert DiagonalGaussianDistribution(told).silent() == 3
    assert DiagonalGaussianDistribution(torch.zeros(2, 6)).silent() == 3
    assert DiagonalGaussianDistribution(told, deterministic=True).silent() == 0


def test_a_point_has_no_spread_no_kl_and_no_nll():
    stacked = moments((3, 4, 5, 2))
    point = DiagonalGaussianDistribution(stacked, deterministic=True)
    assert point.std.abs().max() == 0 and torch.equal(point.sample(), point.mean)
    for value in (point.kl(), point.nll(point.mean)):
        assert value.shape == (3,) and value.dtype == stacked.dtype and value.abs().max() == 0


def test_sums_of_half_precision_are_taken_in_single():
    posterior = DiagonalGaussianDistribution(moments((2, 8, 16, 16)).bfloat16())
    assert posterior.kl().dtype == torch.float32
    exact = DiagonalGaussianDistribution(posterior.moments.double()).kl()
    torch.testing.assert_close(posterior.kl().double(), exact, rtol=5e-3, atol=0)


def test_wrong_shapes_are_one_line():
    with pytest.raises(UserError, match=r"\(2, 3, 4, 4\).*expected \(B, 2C"):
        DiagonalGaussianDistribution(torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match=r"noise has shape \(1,\)"):
        DiagonalGaussianDistribution(torch.zeros(2, 4, 4, 4)).sample(torch.zeros(1))
