import math

import pytest
import torch
from einops import rearrange, repeat
from torch import nn

from minivdm.errors import UserError
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.losses import CombinedVAELoss, VAELoss, batch_mean, l1, l2, measure_perplexity


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class MeanSquare(nn.Module):
    def forward(self, x, y):
        assert x.shape[1] == 3
        return (x - y).square().mean((1, 2, 3), keepdim=True)


FILM, COPY = normal(2, 3, 4, 6, 5), normal(2, 3, 4, 6, 5, seed=1)
POSTERIOR = DiagonalGaussianDistribution(normal(2, 8, 2, 3, 4, seed=2))


def test_distances_by_hand():
    x, y = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    assert l1(x, y).tolist() == [0.5, 3.0]
    assert l2(x, y).tolist() == [0.25, 9.0]
    assert batch_mean(torch.ones(4, 3, 2)) == 6


@pytest.mark.parametrize("shape", [(64,), (4, 16), (2, 4, 8)])
def test_perplexity_counts_equally_used_codes(shape):
    perplexity, used = measure_perplexity(torch.arange(64).reshape(shape), 64)
    assert perplexity.item() == pytest.approx(64, rel=1e-5)
    assert perplexity.ndim == 0 and used == 64


def test_perplexity_of_a_collapse_is_one():
    perplexity, used = measure_perplexity(torch.full((3, 5), 7), 16)
    assert perplexity.item() == pytest.approx(1)
    assert used == 1


def test_perplexity_of_one_half_a_quarter_a_quarter():
    perplexity, used = measure_perplexity(torch.tensor([2, 2, 5, 9]), 16)
    assert perplexity.item() == pytest.approx(math.exp(1.5 * math.log(2)), rel=1e-5)
    assert used == 3


def test_a_film_costs_what_its_frames_cost_as_pictures():
    loss = VAELoss(0.3, 1e-3, MeanSquare(), logvar_init=0.2)
    film = loss(FILM, COPY, POSTERIOR)
    frames = [rearrange(x, "b c t h w -> (b t) c h w") for x in (FILM, COPY)]
    pictures = loss(*frames, POSTERIOR)
    for name in film._fields:
        assert torch.allclose(getattr(film, name), getattr(pictures, name)), name


def test_nll_by_hand():
    loss = VAELoss(0.3, 1e-3, MeanSquare(), logvar_init=0.2)
    distance = rearrange((FILM - COPY).abs(), "b c t h w -> (b t) c h w")
    perceptual = rearrange((FILM - COPY).square(), "b c t h w -> (b t) c h w").mean((1, 2, 3), keepdim=True)
    expected = ((distance + 0.3 * perceptual) / math.exp(0.2) + 0.2).sum() / 8
    nll, weighted, kl = loss(FILM, COPY, POSTERIOR)
    assert torch.allclose(nll, expected)
    assert torch.equal(nll, weighted)
    assert torch.allclose(kl, 1e-3 * POSTERIOR.kl().mean())


@pytest.mark.parametrize("shape", [(2, 1, 4, 6, 5), (2, 1, 1, 1, 1), (8, 1, 1, 1)])
def test_places_can_count_differently(shape):
    loss = VAELoss(0.0, 0.0)
    weights = normal(*shape, seed=3).abs()
    frames = weights if len(shape) == 4 else rearrange(weights.expand(-1, -1, 4, -1, -1), "b c t h w -> (b t) c h w")
    expected = (rearrange((FILM - COPY).abs(), "b c t h w -> (b t) c h w") * frames).sum() / 8
    nll, weighted, _ = loss(FILM, COPY, None, weights)
    assert torch.allclose(weighted, expected)
    assert torch.allclose(nll, (FILM - COPY).abs().sum() / 8)


def test_divergence_per_frame_does_not_grow_with_the_clip():
    per_clip, per_frame = (VAELoss(0.0, 1e-3, kl_per=per)(FILM, COPY, POSTERIOR).kl for per in ("clip", "frame"))
    assert torch.allclose(per_clip, 2 * per_frame)
    assert VAELoss(0.0, 1e-3)(FILM, COPY, None).kl == 0


def test_gradients_reach_the_copy_the_noise_level_and_the_posterior():
    copy, moments = COPY.clone().requires_grad_(True), normal(2, 8, 2, 3, 4).requires_grad_(True)
    loss = VAELoss(0.5, 1e-3, MeanSquare())
    terms = loss(FILM, copy, DiagonalGaussianDistribution(moments))
    (terms.nll_weighted + terms.kl).backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in (copy, moments, loss.logvar))


def test_grey_films_are_shown_to_the_perceptual_distance_in_three_channels():
    grey = VAELoss(0.3, 0.0, MeanSquare())(FILM[:, :1], COPY[:, :1])
    colour = MeanSquare()(*(repeat(x[:, :1], "b 1 t h w -> (b t) 3 h w") for x in (FILM, COPY)))
    distance = rearrange((FILM - COPY)[:, :1].abs(), "b c t h w -> (b t) c h w")
    assert torch.allclose(grey.nll, (distance + 0.3 * colour).sum() / 8)


def test_terms_are_the_parts_of_the_whole():
    loss = VAELoss(0.3, 1e-3, MeanSquare(), kl_per="frame")
    terms = loss.terms(FILM, COPY, POSTERIOR)
    assert list(terms) == ["nll_loss", "kl_loss", "recon_loss", "perceptual_loss"]
    assert torch.allclose(terms["nll_loss"], terms["recon_loss"] + 0.3 * terms["perceptual_loss"], rtol=1e-4)


@pytest.mark.parametrize("step, perceptual, kl", [(0, 0, 0), (499, 0, 0), (500, 0, 1), (999, 0, 1), (1000, 1, 1)])
def test_combined_loss_lets_its_terms_wait(step, perceptual, kl):
    found = CombinedVAELoss(MeanSquare())(FILM, COPY, POSTERIOR, step)
    assert list(found) == ["total_loss", "recon_loss", "lpips_loss", "kl_loss"]
    assert torch.allclose(found["recon_loss"], (FILM - COPY).square().mean())
    assert torch.allclose(found["lpips_loss"], found["recon_loss"])
    assert torch.allclose(found["kl_loss"], POSTERIOR.kl().mean())
    expected = found["recon_loss"] + perceptual * found["lpips_loss"] + kl * 1e-6 * found["kl_loss"]
    assert torch.allclose(found["total_loss"], expected, rtol=1e-6)


def test_combined_loss_takes_pictures_too():
    found = CombinedVAELoss(MeanSquare())(FILM[:, :, 0], COPY[:, :, 0], POSTERIOR, 2000)
    assert found["total_loss"].ndim == 0


@pytest.mark.parametrize("loss", [VAELoss(0.0), lambda x, y: CombinedVAELoss(MeanSquare())(x, y, POSTERIOR, 0)])
def test_unequal_shapes_are_one_line(loss):
    with pytest.raises(UserError, match=r"video \(2, 3, 4, 6, 5\) and reconstruction \(2, 3, 3, 6, 5\)"):
        loss(FILM, COPY[:, :, :3])


def test_an_unknown_way_to_average_is_one_line():
    with pytest.raises(UserError, match="kl_per is 'pixel'; expected 'clip' or 'frame'"):
        VAELoss(0.0, kl_per="pixel")
