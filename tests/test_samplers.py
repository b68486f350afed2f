import pytest
import torch
from gaussian_data import DEVIATION, MEAN, exact, gaussian_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.diffusion import (
    GaussianDiffusion,
    classifier_free,
    cosine_betas,
    ddim_sample,
    ddim_step,
    ddim_timesteps,
    linear_betas,
    sample,
)
from minivdm.diffusion.schedules import rescale_zero_terminal_snr
from minivdm.errors import UserError

SHAPE = (3, 2, 5, 4, 6)  # B C T H W


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=80)
@given(data=st.data(), num_steps=st.integers(1, 1000), spacing=st.sampled_from(["linspace", "trailing", "leading"]))
def test_any_number_of_timesteps_descends_through_the_trained_ones(data, num_steps, spacing):
    steps = data.draw(st.integers(1, num_steps))
    timesteps = ddim_timesteps(num_steps, steps, spacing)
    assert len(timesteps) == steps and all(type(t) is int for t in timesteps)
    assert all(a > b for a, b in zip(timesteps, timesteps[1:], strict=False))
    assert 0 <= timesteps[-1] <= timesteps[0] < num_steps
    if spacing != "leading":
        assert timesteps[0] == num_steps - 1
    if spacing == "linspace" and steps > 1:
        assert timesteps[-1] == 0


def test_three_hundred_of_a_thousand():
    """Counting by a whole stride from 1 gives 334 steps and the index 1000."""
    timesteps = ddim_timesteps(1000, 300)
    assert len(timesteps) == 300 and timesteps[0] == 999 and timesteps[-1] == 0
    assert ddim_timesteps(10, 10) == list(range(9, -1, -1))
    assert ddim_timesteps(10, 1) == [9]


def test_published_spacings():
    assert ddim_timesteps(1000, 5, "leading", offset=1) == [801, 601, 401, 201, 1]
    assert ddim_timesteps(1000, 5, "leading") == [800, 600, 400, 200, 0]
    assert ddim_timesteps(1000, 5, "trailing") == [999, 799, 599, 399, 199]
    assert ddim_timesteps(1000, 5) == [999, 749, 500, 250, 0]


@pytest.mark.parametrize("steps", [0, -1, 11, 2.5])
def test_impossible_step_counts_are_named(steps):
    diffusion, x = exact(10), torch.zeros(SHAPE)
    for method in ("ddpm", "ddim", "dpmpp"):
        with pytest.raises(UserError, match="1 to 10") as caught:
            sample(diffusion, lambda x, t: x, x, method, steps=steps)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "heun"}, "'heun'.*ddpm, ddim, dpmpp"),
        ({"method": "ddim", "eta": 1.5}, "eta is 1.5"),
        ({"method": "ddim", "eta": -0.5}, "eta is -0.5"),
        ({"method": "ddpm", "eta": 0.5}, "only 'ddim'"),
        ({"method": "dpmpp", "eta": 0.5}, "only 'ddim'"),
    ],
)
def test_impossible_choices_are_named_in_one_line(options, says):
    with pytest.raises(UserError, match=says) as caught:
        sample(exact(10), lambda x, t: x, torch.zeros(SHAPE), **options)
    assert "\n" not in str(caught.value)


def test_impossible_details_are_named():
    diffusion, x = exact(10), torch.zeros(SHAPE)
    for says, call in {
        "spacing 'even'": lambda: ddim_timesteps(10, 3, "even"),
        "timestep 10": lambda: ddim_timesteps(10, 10, "leading", offset=1),
        "into": lambda: ddim_sample(diffusion, lambda x, t: x[:1], x, [9, 4]),
    }.items():
        with pytest.raises(UserError, match=says):
            call()


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpmpp"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, None])
def test_one_model_call_per_step_from_noise_down(method, steps, generator):
    diffusion, seen, reported = exact(20), [], []

    def model(x, t):
        assert x.shape == SHAPE and t.dtype == torch.long
        seen.append(t.tolist())
        return 0.1 * x

    x0 = sample(
        diffusion,
        model,
        normal(generator),
        method,
        steps,
        generator=generator,
        callback=lambda *state: reported.append(state),
    )
    assert len(seen) == (steps or 20) and seen[0] == [19] * 3
    assert all(len(set(t)) == 1 for t in seen) and sorted(seen, reverse=True) == seen
    assert [(k, t) for k, t, _, _ in reported] == [(k, t[0]) for k, t in enumerate(seen)]
    assert x0.shape == SHAPE and torch.equal(reported[-1][2], x0)
    torch.testing.assert_close(reported[-1][3], x0)  # the last step goes to the estimate itself


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpmpp"])
@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
@pytest.mark.parametrize("threshold", ["static", "dynamic", None])
def test_a_model_that_knows_the_clip_arrives_at_it(method, prediction, threshold, generator):
    diffusion, x0 = exact(50, prediction=prediction, threshold=threshold), normal(generator).clamp(-1, 1)

    def model(x, t):
        return diffusion.target(x0, t, diffusion.predict_noise_from_start(x, t, x0))

    for steps in (1, 3, 20):
        found = sample(diffusion, model, normal(generator), method, steps, generator=generator)
        torch.testing.assert_close(found, x0, rtol=0, atol=1e-8)


def test_ddim_lands_on_the_same_noise_at_the_next_level(generator):
    diffusion, x0, noise = exact(), normal(generator), normal(generator)
    for t, t_prev in [(999, 400), (400, 399), (30, 0)]:
        here, there = diffusion.alpha_bar(t), diffusion.alpha_bar(t_prev)
        expected = diffusion.q_sample(x0, torch.full((3,), t_prev), noise)
        torch.testing.assert_close(ddim_step(x0, noise, here, there), expected)
    assert torch.equal(ddim_step(x0, noise, diffusion.alpha_bar(10), 1.0), x0)


@pytest.mark.parametrize("betas", [cosine_betas, linear_betas])
def test_ddim_with_eta_1_is_the_ancestral_posterior(betas, generator):
    diffusion, x0, noise = exact(betas=betas), normal(generator), normal(generator)
    for step in (999, 500, 3, 1, 0):
        t = torch.full((3,), step)
        posterior = diffusion.q_posterior(x0, diffusion.q_sample(x0, t, noise), t)
        levels = diffusion.alpha_bar(step), diffusion.alpha_bar(step - 1)
        still, shaken = (ddim_step(x0, noise, *levels, eta=1.0, z=torch.full_like(x0, z)) for z in (0.0, 1.0))
        torch.testing.assert_close(still, posterior.mean, rtol=0, atol=1e-9)
        torch.testing.assert_close((shaken - still) ** 2, posterior.variance.expand(SHAPE), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_marginal_whatever_eta(eta):
    """Noise that is kept and noise that is new add up to the variance of x_prev: DDIM's defining property."""
    here, there = 0.2, 0.7
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    kept = ddim_step(zero, one, here, there, eta, zero)
    new = ddim_step(zero, zero, here, there, eta, one)
    assert (kept**2 + new**2).item() == pytest.approx(1 - there)
    assert new.item() == pytest.approx(eta * ((1 - there) / (1 - here) * (1 - here / there)) ** 0.5)


def test_ddim_with_eta_0_is_decided_by_its_start(generator):
    diffusion = exact(50)
    model, x_T = gaussian_denoiser(diffusion), normal(generator)
    unused = generator.get_state()
    results = [sample(diffusion, model, x_T, "ddim", 7, generator=g) for g in (generator, None)]
    assert torch.equal(*results) and torch.equal(generator.get_state(), unused)
    shaken = [
        sample(diffusion, model, x_T, "ddim", 7, eta=0.5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(*shaken[:2]) and not torch.equal(*shaken[1:])


@pytest.mark.parametrize("threshold", ["static", None])
def test_ddpm_is_the_ancestral_loop(threshold, generator):
    diffusion, x_T = exact(30, threshold=threshold), normal(generator)
    model = lambda x, t: 0.6 * torch.sin(x + 0.1 * t[0])  # noqa: E731
    noises = [normal(generator) for _ in range(30)]
    loop = diffusion.p_sample_loop(model, x_T, noises=noises)
    walk = ddim_sample(diffusion, model, x_T, ddim_timesteps(30, 30), eta=1.0, noises=noises)
    torch.testing.assert_close(walk, loop, rtol=0, atol=1e-8)
    loop = diffusion.p_sample_loop(model, x_T, torch.Generator().manual_seed(1))
    walk = sample(diffusion, model, x_T, "ddpm", generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(walk, loop, rtol=0, atol=1e-8)


def test_predicted_noise_can_be_kept_when_x0_is_clamped(generator):
    diffusion, x_T = exact(30, threshold="static"), normal(generator)
    model, levels = (lambda x, t: -x), (exact(30).alpha_bar(29), exact(30).alpha_bar(9))
    first = []
    for keep in (False, True):
        ddim_sample(
            diffusion,
            model,
            x_T,
            [29, 9],
            keep_predicted_noise=keep,
            callback=lambda k, t, x, x0: first.append((x, x0)),
        )
    (moved, x0), (kept, same) = first[0], first[2]
    assert torch.equal(x0, same)
    torch.testing.assert_close(kept, ddim_step(x0, -x_T, *levels))
    noise = diffusion.predict_noise_from_start(x_T, torch.full((3,), 29), x0)
    torch.testing.assert_close(moved, ddim_step(x0, noise, *levels))


def test_where_a_step_lands_can_be_set(generator):
    diffusion, x0 = exact(30), normal(generator)
    model = lambda x, t: diffusion.predict_noise_from_start(x, t, x0)  # noqa: E731
    x_T, states = normal(generator), []
    ddim_sample(
        diffusion,
        model,
        x_T,
        [29, 9],
        previous=[12, -7],
        final_alpha_bar=0.9,
        callback=lambda k, t, x, x0: states.append(x),
    )
    noise = model(x_T, torch.full((3,), 29))
    torch.testing.assert_close(states[0], diffusion.q_sample(x0, torch.full((3,), 12), noise))
    at_9 = model(states[0], torch.full((3,), 9))
    landed = 0.9**0.5 * x0 + 0.1**0.5 * at_9
    torch.testing.assert_close(states[1], landed)
    torch.testing.assert_close(ddim_sample(diffusion, model, states[0], [9], final_alpha_bar=0.9), landed)


@pytest.mark.parametrize(("method", "steps"), [("ddpm", 200), ("ddim", 200), ("dpmpp", 20)])
def test_the_exact_denoiser_of_a_gaussian_gives_its_mean_and_variance(method, steps, generator):
    diffusion = exact(200)
    x_T = normal(generator, 20_000, 1)
    x0 = sample(diffusion, gaussian_denoiser(diffusion), x_T, method, steps, generator=generator)
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.012)
    assert x0.std().item() == pytest.approx(DEVIATION, rel=0.03)


def test_all_samplers_start_from_pure_noise_without_signal(generator):
    diffusion = GaussianDiffusion(rescale_zero_terminal_snr(linear_betas(50)), "v")
    for method in ("ddpm", "ddim", "dpmpp"):
        x = sample(diffusion, lambda x, t: 0.1 * x, normal(generator).float(), method, 6, generator=generator)
        assert torch.isfinite(x).all() and x.dtype == torch.float32


def test_guidance_is_a_line_through_both_predictions(generator):
    cond, uncond = normal(generator), normal(generator)
    torch.testing.assert_close(classifier_free(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(classifier_free(cond, uncond, 1.0), cond)
    torch.testing.assert_close(classifier_free(cond, uncond, 3.0), 3 * cond - 2 * uncond)
