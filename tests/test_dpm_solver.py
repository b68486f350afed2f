import pytest
import torch
from gaussian_data import DEVIATION, MEAN, exact, gaussian_denoiser, gaussian_path

from minivdm.diffusion import ddim_sample, ddim_timesteps, linear_betas
from minivdm.diffusion.dpm_solver import dpmpp_sample, dpmpp_step, karras_ratios, level, nearest_timesteps, noise_ratios
from minivdm.errors import UserError

SHAPE = (3, 2, 5, 4, 6)  # B C T H W


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


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
    between = training[500] * (training[501] / training[500]) ** torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert nearest_timesteps(between, training) == [500, 501]
    model = gaussian_denoiser(diffusion)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    timesteps = nearest_timesteps(karras_ratios(training, 40), training)
    levels = [level(ratio) for ratio in karras_ratios(training, 40)]
    x0 = dpmpp_sample(diffusion, model, x_T, timesteps, levels=levels)
    torch.testing.assert_close(x0, gaussian_path(x_T, diffusion.alpha_bar(999), 1.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(("options", "says"), [({"order": 4}, "order 4"), ({"solver": "euler"}, "'euler'")])
def test_impossible_choices_are_named(options, says):
    x = torch.zeros(SHAPE)
    with pytest.raises(UserError, match=says):
        dpmpp_sample(exact(10), lambda x, t: x, x, [9, 4], **options)


@pytest.mark.parametrize(
    ("degree", "options", "exact_up_to"),
    [
        (1, {}, 0),
        (2, {"solver": "heun"}, 1),
        (2, {"solver": "midpoint"}, 0),
        (3, {}, 2),
        (3, {"curvature_weight": 0.5}, 1),
    ],
)
def test_a_step_is_exact_when_the_estimate_is_a_polynomial_of_lambda(degree, options, exact_up_to):
    """With d estimates remembered, the integral of a polynomial of degree d - 1 should come out without error."""
    clock = torch.tensor([-1.0, -0.6, 0.1, 0.5], dtype=torch.float64)
    _, _, now, target = [level((-lam).exp()) for lam in clock]
    x = torch.tensor([0.7], dtype=torch.float64)
    fine = torch.linspace(0.1, 0.5, 20_001, dtype=torch.float64)
    for power in range(4):
        memory = [(lam, lam.reshape(1) ** power) for lam in clock[:3].flip(0)][:degree]
        true = target.sigma / now.sigma * x + target.sigma * torch.trapezoid(fine.exp() * fine**power, fine)
        error = (dpmpp_step(x, memory, now, target, **options) - true).abs().item()
        assert (error < 1e-9) == (power <= exact_up_to), (power, error)
