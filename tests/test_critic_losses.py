import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minivdm.errors import UserError
from minivdm.vae.losses import (
    AdversarialLoss,
    LeCam,
    adaptive_weight,
    adopt_weight,
    generator_loss,
    gradient_penalty,
    hinge_d_loss,
    sigmoid_cross_entropy,
    vanilla_d_loss,
    wgan_d_loss,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_hinge_is_satisfied_beyond_one_and_half_of_two_for_a_critic_that_knows_nothing():
    assert hinge_d_loss(torch.ones(2, 3), -torch.ones(5)) == 0
    assert hinge_d_loss(torch.full((2, 3), 7.0), torch.full((5,), -9.0)) == 0
    assert hinge_d_loss(torch.zeros(2), torch.zeros(3)) == 1
    assert hinge_d_loss(torch.tensor([0.5]), torch.tensor([-0.25])) == 0.5 * (0.5 + 0.75)


def test_vanilla_is_log_two_for_a_critic_that_knows_nothing_and_finite_for_any_score():
    assert vanilla_d_loss(torch.zeros(2), torch.zeros(3)).item() == pytest.approx(math.log(2))
    assert vanilla_d_loss(torch.tensor([-200.0]), torch.tensor([200.0])) == 200
    assert vanilla_d_loss(torch.tensor([200.0]), torch.tensor([-200.0])) == 0


@given(st.floats(-9, 9), st.floats(-9, 9))
@settings(deadline=None, max_examples=20)
def test_vanilla_is_the_mean_of_two_cross_entropies(real, fake):
    expected = -0.5 * (math.log(1 / (1 + math.exp(-real))) + math.log(1 - 1 / (1 + math.exp(-fake))))
    assert vanilla_d_loss(torch.tensor([real]), torch.tensor([fake])).item() == pytest.approx(expected, abs=2e-3)


def test_wgan_is_half_the_difference_and_grows_without_end():
    real, fake = normal(2, 1, 3), normal(4, 1, 5, seed=1)
    assert torch.allclose(wgan_d_loss(real, fake), (fake.mean() - real.mean()) / 2)
    assert torch.allclose(wgan_d_loss(10 * real, 10 * fake), 10 * wgan_d_loss(real, fake), atol=1e-5)


@pytest.mark.parametrize("kind", ["hinge", "vanilla", "wgan"])
def test_the_generator_gains_when_scores_of_its_patches_rise(kind):
    fake = normal(2, 1, 3, 5).requires_grad_(True)
    (slope,) = torch.autograd.grad(generator_loss(fake, kind), fake)
    assert (slope < 0).all()


def test_an_unknown_kind_is_one_line():
    with pytest.raises(UserError, match="unknown kind of critic 'lsgan'; choose one of hinge, vanilla, wgan"):
        AdversarialLoss("lsgan")


def test_cross_entropy_is_elementwise():
    logits, labels = normal(2, 3), torch.tensor([[0.0, 1.0, 0.5]] * 2)
    expected = -labels * logits.sigmoid().log() - (1 - labels) * (1 - logits.sigmoid()).log()
    assert torch.allclose(sigmoid_cross_entropy(logits, labels), expected, atol=1e-6)


def test_penalty_of_a_linear_critic_is_known():
    weight = normal(3, 4, 5)
    real, fake, alpha = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1), torch.tensor([0.2, 0.9])
    penalty = gradient_penalty(lambda x: (x * weight).flatten(1).sum(1), real, fake, alpha)
    assert torch.allclose(penalty, (weight.norm() - 1).square())


def test_penalty_looks_at_the_mixture_that_alpha_asks_for():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().sum((2, 3))  # any shape of scores

    real, fake, alpha = normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1), torch.tensor([0.0, 1.0, 0.25])
    penalty = gradient_penalty(critic, real, fake, alpha)
    mixed = torch.stack([fake[0], real[1], 0.25 * real[2] + 0.75 * fake[2]])
    assert torch.allclose(seen[0], mixed)
    assert torch.allclose(penalty, (2 * mixed.flatten(1).norm(dim=1) - 1).square().mean())


def test_penalty_trains_the_critic():
    critic = nn.Conv3d(2, 1, 3)
    x, y = normal(2, 2, 3, 4, 5), normal(2, 2, 3, 4, 5, seed=1)
    gradient_penalty(critic, x, y, torch.tensor([0.3, 0.6])).backward()
    assert critic.weight.grad.abs().sum() > 0


def test_penalty_of_unequal_shapes_is_one_line():
    with pytest.raises(UserError, match="the penalty mixes equal shapes"):
        gradient_penalty(nn.Identity(), normal(2, 3), normal(2, 4), torch.ones(2))


def test_adopt_weight_changes_at_the_threshold_itself():
    assert [adopt_weight(0.7, step, 100, 0.1) for step in (0, 99, 100, 101)] == [0.1, 0.1, 0.7, 0.7]


def test_adaptive_weight_makes_both_gradients_equally_long():
    weight = normal(3, 4).requires_grad_(True)
    rec = (5 * weight).square().sum()
    gan = -(weight * normal(3, 4, seed=1)).sum()
    factor = adaptive_weight(rec, gan, weight)
    by_rec, by_gan = (torch.autograd.grad(loss, weight)[0].norm() for loss in (rec, gan))
    assert not factor.requires_grad
    assert weight.grad is None
    assert factor * by_gan == pytest.approx(by_rec.item(), rel=1e-3)


def test_adaptive_weight_is_clamped_when_the_critic_has_nothing_to_say():
    weight = normal(3, 4).requires_grad_(True)
    assert adaptive_weight(weight.square().sum(), 0.0 * weight.sum(), weight) == 1e4


def test_before_its_start_the_critic_costs_nothing_and_every_weight_gets_a_gradient():
    weight = normal(3, 4).requires_grad_(True)
    adversary = AdversarialLoss("hinge", start=10)
    loss, raw = adversary.generator(weight @ normal(4, 2), weight.square().sum(), weight, step=9)
    assert loss == 0 and raw != 0
    assert (torch.autograd.grad(loss, weight)[0] == 0).all()
    assert adversary.discriminator(normal(2, 3), normal(2, 3), step=9) == 0
    assert adversary.discriminator(normal(2, 3), normal(2, 3), step=10) > 0


def test_lecam_is_nothing_while_scores_stay_as_usual():
    lecam = LeCam(decay=0.5)
    for _ in range(60):
        lecam.update(torch.full((2, 3), 0.5), torch.full((4,), 0.5))
    assert lecam(torch.tensor(0.5), torch.tensor(0.5)) == pytest.approx(0, abs=1e-10)
    assert lecam(torch.tensor(1.5), torch.tensor(-0.5)) == pytest.approx(2.0, abs=1e-5)
