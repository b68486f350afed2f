import pytest
import torch
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
from minivdm.diffusion.dpm_solver import dpmpp_sample, dpmpp_step, karras_ratios, level, nearest_timesteps, noise_ratios
from minivdm.diffusion.flow_euler import euler_flow, flow_mix, flow_sigmas, shift_sigma
from minivdm.diffusion.schedules import rescale_zero_terminal_snr
from minivdm.diffusion.tables import extract
from minivdm.errors import UserError

SHAPE = (3, 2, 5, 4, 6)  # B C T H W
MEAN, DEVIATION = 0.3, 0.4


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


def exact(num_steps=1000, betas=cosine_betas, **options):
    """A process in float64 without a threshold."""
    return GaussianDiffusion(betas(num_steps), **{"threshold": None, "dtype": torch.float64, **options})


def gaussian_denoiser(diffusion):
    """The best prediction of the noise when the data are N(MEAN, DEVIATION²), in closed form."""

    def model(x, t):
        abar = extract(diffusion.alphas_cumprod, t, x.shape)
        variance = abar * DEVIATION**2 + 1 - abar
        return (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / variance

    return model


def gaussian_path(x_T, start, here):
    """Where the deterministic path from x_T at abar = `start` is at abar = `here`, in closed form."""
    spread = lambda abar: (abar * DEVIATION**2 + 1 - abar) ** 0.5  # noqa: E731
    return here**0.5 * MEAN + spread(here) / spread(start) * (x_T - start**0.5 * MEAN)


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
        "order 4": lambda: dpmpp_sample(diffusion, lambda x, t: x, x, [9, 4], order=4),
        "solver 'euler'": lambda: dpmpp_sample(diffusion, lambda x, t: x, x, [9, 4], solver="euler"),
        "into": lambda: ddim_sample(diffusion, lambda x, t: x[:1], x, [9, 4]),
        "0 steps": lambda: flow_sigmas(0),
        "shift 0": lambda: flow_sigmas(3, shift=0),
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
    results = [sample(diffusion, model, x_T, "ddim", 7, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    assert torch.equal(*results)
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
    torch.testing.assert_close(states[1], 0.9**0.5 * x0 + 0.1**0.5 * at_9)


@pytest.mark.parametrize(("method", "steps"), [("ddpm", 200), ("ddim", 200), ("dpmpp", 20)])
def test_the_exact_denoiser_of_a_gaussian_gives_its_mean_and_variance(method, steps, generator):
    diffusion = exact(200)
    x_T = normal(generator, 20_000, 1)
    x0 = sample(diffusion, gaussian_denoiser(diffusion), x_T, method, steps, generator=generator)
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.012)
    assert x0.std().item() == pytest.approx(DEVIATION, rel=0.03)


def error_on_the_way(steps, **options):
    """Distance from the true path, after `steps` even steps of lambda from almost pure noise to low noise."""
    clock = torch.linspace(-5, 2, steps + 1, dtype=torch.float64)
    levels, states = [level((-lam).exp()) for lam in clock], []
    diffusion = exact(10, prediction="x0")

    def model(x, t):
        alpha, sigma, _ = levels[len(states)]
        return MEAN + alpha * DEVIATION**2 * (x - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2)

    keep = lambda k, t, x, x0: states.append(x)  # noqa: E731
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    dpmpp_sample(diffusion, model, x_T, [0] * (steps + 1), levels=levels, callback=keep, **options)
    true = gaussian_path(x_T, levels[0].alpha ** 2, levels[-1].alpha ** 2)
    return (states[-2] - true).abs().max().item()  # the last step leaves the path, for clean data


@pytest.mark.parametrize(
    ("options", "gain"),
    [({"order": 1}, 2), ({"order": 2}, 4), ({"order": 2, "solver": "heun"}, 4), ({"order": 3}, 8)],
)
def test_halving_the_step_shrinks_the_error_by_the_order(options, gain):
    errors = [error_on_the_way(steps, **options) for steps in (80, 160, 320)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 0.8 * gain < coarse / fine < 1.3 * gain


def test_second_order_beats_ddim_at_equal_cost():
    """Order 1 is DDIM, as the next test shows."""
    for steps in (10, 20, 40):
        assert error_on_the_way(steps) < 0.35 * error_on_the_way(steps, order=1)


@pytest.mark.parametrize(("steps", "order_before_last"), [(14, 2), (15, 3)])
def test_third_order_is_careful_before_the_last_of_few_steps(steps, order_before_last, generator):
    diffusion, timesteps, seen = exact(), ddim_timesteps(1000, steps, "trailing"), []
    dpmpp_sample(
        diffusion,
        gaussian_denoiser(diffusion),
        normal(generator),
        timesteps,
        order=3,
        callback=lambda k, t, x, x0: seen.append((x, x0)),
    )
    levels = [level(ratio) for ratio in noise_ratios(diffusion.alpha_bars)[timesteps]]
    memory = [(levels[k].half_log_snr, seen[k][1]) for k in range(steps - 2, -1, -1)]
    expected = dpmpp_step(seen[-3][0], memory[:order_before_last], levels[-2], levels[-1])
    torch.testing.assert_close(seen[-2][0], expected)


def test_first_order_is_ddim(generator):
    model = lambda x, t: 0.6 * torch.sin(x + 0.01 * t[0])  # noqa: E731
    for prediction in ("noise", "x0", "v"):
        for threshold in ("static", None):
            diffusion = exact(100, prediction=prediction, threshold=threshold)
            x_T, timesteps = normal(generator), ddim_timesteps(100, 9, "trailing")
            first_order = dpmpp_sample(diffusion, model, x_T, timesteps, order=1)
            torch.testing.assert_close(first_order, ddim_sample(diffusion, model, x_T, timesteps), rtol=1e-8, atol=1e-8)


def test_all_samplers_start_from_pure_noise_without_signal(generator):
    diffusion = GaussianDiffusion(rescale_zero_terminal_snr(linear_betas(50)), "v")
    for method in ("ddpm", "ddim", "dpmpp"):
        x = sample(diffusion, lambda x, t: 0.1 * x, normal(generator).float(), method, 6, generator=generator)
        assert torch.isfinite(x).all() and x.dtype == torch.float32


def test_level_is_on_the_unit_circle_up_to_pure_noise():
    alpha, sigma, clock = level(torch.tensor([0.5, 3.0, torch.inf], dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(sigma[:2] / alpha[:2], torch.tensor([0.5, 3.0], dtype=torch.float64))
    torch.testing.assert_close(clock, (alpha / sigma).log())
    assert (alpha[2], sigma[2]) == (0, 1)


def test_karras_spacing_has_the_ends_of_training_and_finer_steps_at_low_noise():
    diffusion = exact(betas=linear_betas)
    training = noise_ratios(diffusion.alpha_bars)
    torch.testing.assert_close(training**2, 1 / diffusion.alphas_cumprod - 1)
    ratios = karras_ratios(training, 9)
    torch.testing.assert_close(ratios[[0, -1]], training[[-1, 0]])
    roots = ratios ** (1 / 7)
    torch.testing.assert_close(roots[1:] - roots[:-1], (roots[1] - roots[0]).expand(8))
    assert nearest_timesteps(training[[999, 411, 0]], training) == [999, 411, 0]
    model = gaussian_denoiser(diffusion)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    timesteps = nearest_timesteps(karras_ratios(training, 40), training)
    levels = [level(ratio) for ratio in karras_ratios(training, 40)]
    x0 = dpmpp_sample(diffusion, model, x_T, timesteps, levels=levels)
    torch.testing.assert_close(x0, gaussian_path(x_T, diffusion.alpha_bar(999), 1.0), rtol=0, atol=0.02)


def test_guidance_is_a_line_through_both_predictions(generator):
    cond, uncond = normal(generator), normal(generator)
    torch.testing.assert_close(classifier_free(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(classifier_free(cond, uncond, 1.0), cond)
    torch.testing.assert_close(classifier_free(cond, uncond, 3.0), 3 * cond - 2 * uncond)


def test_shifted_sigmas_keep_their_ends():
    assert flow_sigmas(4, smallest=0.25) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = flow_sigmas(4, shift=3.0, smallest=0.25)
    assert shifted == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    assert [shift_sigma(s, 1 / 3) for s in shifted] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_euler_is_exact_on_straight_paths(generator):
    x0, noise = normal(generator), normal(generator)
    seen = []
    x = euler_flow(
        lambda x, sigma: noise - x0, noise, flow_sigmas(5, shift=2.0), callback=lambda *state: seen.append(state)
    )
    torch.testing.assert_close(x, x0)
    for _, sigma, state in seen:
        torch.testing.assert_close(state, flow_mix(x0, noise, sigma))
    assert [k for k, _, _ in seen] == list(range(5)) and [sigma for _, sigma, _ in seen] == flow_sigmas(5, 2.0)[1:]


def test_euler_is_first_order():
    """dx/dsigma = x grows by e from 0 to 1; walked back from e it ends at 1."""
    start = torch.full((3, 2), torch.e, dtype=torch.float64)
    coarse, fine = (euler_flow(lambda x, s: x, start, flow_sigmas(n, smallest=1 / n)) for n in (50, 100))
    assert 1.8 < ((coarse - 1) / (fine - 1)).max() < 2.2
    seen = []
    euler_flow(lambda x, sigma: seen.append(sigma) or x, start, [1.0, 0.6, 0.1])
    assert seen == [1.0, 0.6]
