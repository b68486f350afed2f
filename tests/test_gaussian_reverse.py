"""The reverse process: from noise to data."""

import pytest
import torch

from minivdm.diffusion import GaussianDiffusion, cosine_betas, extract, linear_betas
from minivdm.diffusion.schedules import rescale_zero_terminal_snr
from minivdm.errors import UserError

SHAPE = (3, 2, 5, 4, 6)  # B C T H W


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


def exact(num_steps=40, **options):
    """A process in float64 with the cosine schedule."""
    return GaussianDiffusion(cosine_betas(num_steps), dtype=torch.float64, **options)


def test_p_mean_variance_keeps_x0_in_range(generator):
    """At t = 0 the posterior's mean is the estimate of x0 itself."""
    t = torch.zeros(3, dtype=torch.long)
    step = exact().p_mean_variance(lambda x, t: 5 * x, normal(generator), t)
    assert step.mean.abs().max() == 1


@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_p_mean_variance_of_a_perfect_predictor_is_the_posterior(prediction, generator):
    diffusion = exact(prediction=prediction, threshold=None)
    x0, noise, t = normal(generator), normal(generator), torch.tensor([0, 17, 39])
    x_t = diffusion.q_sample(x0, t, noise)
    step = diffusion.p_mean_variance(lambda x, t: diffusion.target(x0, t, noise), x_t, t)
    for found, expected in zip(step, diffusion.q_posterior(x0, x_t, t), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_p_sample_adds_the_posterior_deviation_except_at_t_0(generator):
    diffusion, x_t, z, t = exact(), normal(generator), normal(generator), torch.tensor([0, 17, 39])
    model = lambda x, t: 0.3 * x  # noqa: E731
    added = diffusion.p_sample(model, x_t, t, z) - diffusion.p_mean_variance(model, x_t, t).mean
    assert (added[0] == 0).all()
    deviation = extract(diffusion.posterior_variance, t, SHAPE).sqrt()
    torch.testing.assert_close(added[1:], (deviation * z)[1:])


def test_loop_calls_the_model_once_per_step_from_noise_to_data(generator):
    diffusion, seen = exact(25), []

    def model(x, t):
        assert x.shape == SHAPE and t.shape == (3,) and t.dtype == torch.long
        seen.append(t.tolist())
        return 0.1 * x

    x_T = normal(generator)
    states = diffusion.p_sample_loop(model, x_T, generator=generator, return_all=True)
    assert seen == [[t] * 3 for t in range(24, -1, -1)]
    assert states.shape == (26, *SHAPE) and torch.equal(states[0], x_T)
    seen.clear()
    diffusion.p_sample_loop(model, x_T, generator=generator, first_step=6)
    assert [t[0] for t in seen] == [6, 5, 4, 3, 2, 1, 0]


def test_loop_is_decided_by_its_generator_or_noises(generator):
    diffusion, model, x_T = exact(25), (lambda x, t: 0.1 * x), normal(generator)
    run = lambda seed: diffusion.p_sample_loop(model, x_T, torch.Generator().manual_seed(seed))  # noqa: E731
    before = torch.get_rng_state()
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), before)
    source = torch.Generator().manual_seed(1)
    noises = [normal(source) for _ in range(25)]
    assert torch.equal(diffusion.p_sample_loop(model, x_T, noises=noises), run(1))


def test_without_a_generator_noise_comes_from_the_global_one():
    diffusion, x_T = exact(5), torch.zeros(SHAPE, dtype=torch.float64)
    results = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(diffusion.p_sample_loop(lambda x, t: 0.1 * x, x_T))
    assert torch.equal(*results[:2]) and not torch.equal(*results[1:])


def test_loop_recovers_the_single_clip_that_the_model_knows(generator):
    diffusion, x0 = exact(25), normal(generator).clamp(-1, 1)
    model = lambda x, t: diffusion.predict_noise_from_start(x, t, x0)  # noqa: E731
    torch.testing.assert_close(diffusion.p_sample_loop(model, normal(generator), generator), x0, rtol=0, atol=1e-8)


def test_ancestral_sampling_of_a_gaussian_recovers_mean_and_variance(generator):
    """With the exact denoiser of N(0.3, 0.4²), many small steps end in N(0.3, 0.4²)."""
    mean, deviation = 0.3, 0.4
    diffusion = GaussianDiffusion(cosine_betas(200), prediction="x0", threshold=None, dtype=torch.float64)

    def model(x, t):
        abar = extract(diffusion.alphas_cumprod, t, x.shape)
        gain = abar.sqrt() * deviation**2 / (abar * deviation**2 + 1 - abar)
        return mean + gain * (x - abar.sqrt() * mean)

    x0 = diffusion.p_sample_loop(model, normal(generator, 20_000, 1), generator)
    assert x0.mean().item() == pytest.approx(mean, abs=0.01)
    assert x0.std().item() == pytest.approx(deviation, rel=0.03)


def test_interpolation_noises_both_ends_and_walks_back(generator):
    diffusion, seen = exact(25), []
    a, b = normal(generator), normal(generator)
    model = lambda x, t: seen.append((t[0].item(), x)) or 0.1 * x  # noqa: E731
    noises = [normal(generator) for _ in range(12)]
    clip = diffusion.interpolate(model, a, b, t=9, weight=0.25, noises=noises)
    t = torch.full((3,), 9)
    mixed = 0.75 * diffusion.q_sample(a, t, noises[0]) + 0.25 * diffusion.q_sample(b, t, noises[1])
    assert [step for step, _ in seen] == list(range(9, -1, -1))
    torch.testing.assert_close(seen[0][1], mixed)
    torch.testing.assert_close(clip, diffusion.p_sample_loop(model, mixed, noises=noises[2:], first_step=9))
    again = [diffusion.interpolate(model, a, b, 9, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*again)


def test_a_schedule_that_ends_at_pure_noise_works_with_v_and_x0(generator):
    betas = rescale_zero_terminal_snr(linear_betas(20))
    for prediction in ("v", "x0"):
        diffusion = GaussianDiffusion(betas, prediction)
        x = diffusion.p_sample_loop(lambda x, t: 0.1 * x, normal(generator).float(), generator)
        assert torch.isfinite(x).all()
    with pytest.raises(UserError, match="'v' or 'x0'"):
        GaussianDiffusion(betas, "noise")
