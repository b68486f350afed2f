import numpy as np
import pytest
import torch

from minivdm.diffusion import GaussianDiffusion, cosine_betas, extract, make_betas
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


def test_extract_equals_a_loop():
    a, t = torch.arange(7.0) ** 2, torch.tensor([6, 0, 3])
    picked = extract(a, t, SHAPE)
    assert picked.shape == (3, 1, 1, 1, 1)
    assert picked.flatten().tolist() == [a[i].item() for i in t.tolist()]
    assert extract(a, t, (3, 2)).shape == (3, 1)


@pytest.mark.parametrize(
    ("t", "says"),
    [
        (torch.tensor([0.0, 1.0, 2.0]), "float32.*t.long"),
        (torch.tensor([0, 1, 2], dtype=torch.int32), "int32"),
        (torch.tensor([0, 1, 40]), "40.*0 to 39"),
        (torch.tensor([0, -1, 2]), "-1.*0 to 39"),
        (torch.tensor([0, 1]), r"\(2,\), expected \(3,\)"),
        (torch.tensor(1), "expected"),
    ],
)
def test_wrong_timesteps_are_named(t, says):
    x = torch.zeros(SHAPE)
    with pytest.raises(UserError, match=says) as caught:
        exact().q_sample(x, t, x)
    assert "\n" not in str(caught.value)


def test_jump_has_the_mean_and_variance_of_many_small_steps(generator):
    diffusion, x0 = exact(), normal(generator)
    mean, variance = x0.clone(), torch.zeros(1, dtype=torch.float64)
    for step, beta in enumerate(cosine_betas(40)):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        jump = diffusion.q_mean_variance(x0, torch.full((3,), step))
        torch.testing.assert_close(jump.mean, mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(jump.variance.flatten(), variance.expand(3), rtol=0, atol=1e-12)
        torch.testing.assert_close(jump.log_variance, jump.variance.log(), rtol=0, atol=1e-9)


def test_q_sample_draws_from_that_distribution(generator):
    diffusion = exact()
    x0, t = torch.full((3, 10_000), 0.8, dtype=torch.float64), torch.tensor([3, 20, 39])
    x_t = diffusion.q_sample(x0, t, normal(generator, 3, 10_000))
    expected = diffusion.q_mean_variance(x0, t)
    torch.testing.assert_close(x_t.mean(1), expected.mean[:, 0], rtol=0, atol=0.04)
    torch.testing.assert_close(x_t.var(1), expected.variance.flatten(), rtol=0.05, atol=0)


def test_q_sample_is_the_mean_plus_noise(generator):
    diffusion, x0, noise, t = exact(), normal(generator), normal(generator), torch.tensor([0, 17, 39])
    q = diffusion.q_mean_variance(x0, t)
    torch.testing.assert_close(diffusion.q_sample(x0, t, noise), q.mean + q.variance.sqrt() * noise)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "scaled_linear"])
def test_posterior_coefficients_lead_a_noiseless_path_back(schedule):
    diffusion = GaussianDiffusion(make_betas(schedule, 1000), dtype=torch.float64)
    back = diffusion.posterior_mean_coef1 + diffusion.posterior_mean_coef2 * diffusion.alphas_cumprod.sqrt()
    torch.testing.assert_close(back, diffusion.alphas_cumprod_prev.sqrt(), rtol=0, atol=1e-6)


def test_posterior_is_the_product_of_two_gaussians(generator):
    """q(x_{t-1} | x_t, x0) ∝ q(x_t | x_{t-1}) · q(x_{t-1} | x0): precisions add, means are weighted by them."""
    diffusion, x0, x_t, t = exact(), normal(generator), normal(generator), torch.tensor([1, 20, 38])
    beta = extract(cosine_betas(40), t, SHAPE)
    earlier = diffusion.q_mean_variance(x0, t - 1)
    of_x_t = (1 - beta) / beta  # q(x_t | x_{t-1}), read as a density of x_{t-1}, peaks at x_t / sqrt(1 - beta)
    precision = of_x_t + 1 / earlier.variance
    mean = (of_x_t * x_t / (1 - beta).sqrt() + earlier.mean / earlier.variance) / precision
    posterior = diffusion.q_posterior(x0, x_t, t)
    torch.testing.assert_close(posterior.mean, mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(posterior.variance, 1 / precision, rtol=1e-9, atol=0)
    torch.testing.assert_close(posterior.log_variance, -precision.log(), rtol=0, atol=1e-9)


def test_posterior_arrives_at_t_0(generator):
    diffusion, x0 = GaussianDiffusion(cosine_betas(40)), normal(generator).float()
    posterior = diffusion.q_posterior(x0, normal(generator).float(), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(posterior.mean, x0)
    assert (posterior.variance == 0).all()
    torch.testing.assert_close(posterior.log_variance, torch.full_like(posterior.log_variance, 1e-20).log())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "scaled_linear"])
def test_predict_start_inverts_q_sample_in_float32(schedule, generator):
    diffusion = GaussianDiffusion(make_betas(schedule, 1000))
    x0, noise = (normal(generator, 900, 2, 3).float().clamp(-1, 1) for _ in range(2))
    t = torch.arange(900)
    found = diffusion.predict_start_from_noise(diffusion.q_sample(x0, t, noise), t, noise)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-4)


def test_tables_are_exact_to_the_last_float32_digit():
    """Recomputing from float32 betas would lose half the digits at both ends."""
    coarse, fine = GaussianDiffusion(cosine_betas(1000)), exact(1000)
    for (name, table), (_, reference) in zip(coarse.named_buffers(), fine.named_buffers(), strict=True):
        torch.testing.assert_close(table.double(), reference, rtol=1e-7, atol=0, msg=name)


def test_noise_x0_and_v_say_the_same(generator):
    diffusion, x0, noise, t = exact(), normal(generator), normal(generator), torch.tensor([0, 17, 39])
    x_t, v = diffusion.q_sample(x0, t, noise), diffusion.predict_v(x0, t, noise)
    for found, expected in [
        (diffusion.predict_start_from_noise(x_t, t, noise), x0),
        (diffusion.predict_start_from_v(x_t, t, v), x0),
        (diffusion.predict_noise_from_start(x_t, t, x0), noise),
        (diffusion.predict_noise_from_v(x_t, t, v), noise),
    ]:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_v_is_the_velocity_on_the_circle_of_noising(generator):
    """With sqrt(abar) = cos(angle), x_t turns from x0 to noise, and v is its derivative by the angle."""
    diffusion, x0, noise, t = exact(), normal(generator), normal(generator), torch.tensor([1, 17, 38])
    angle = extract(diffusion.alphas_cumprod, t, SHAPE).sqrt().acos()
    turn = lambda by: (angle + by).cos() * x0 + (angle + by).sin() * noise  # noqa: E731
    slope = (turn(1e-6) - turn(-1e-6)) / 2e-6
    torch.testing.assert_close(diffusion.predict_v(x0, t, noise), slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_loss_of_a_perfect_and_of_a_biased_predictor(prediction, loss, generator):
    diffusion = exact(prediction=prediction, loss=loss)
    x0, noise, t = normal(generator), normal(generator), torch.tensor([0, 17, 39])
    right = {"noise": noise, "x0": x0, "v": diffusion.predict_v(x0, t, noise)}[prediction]
    assert torch.equal(diffusion.loss(lambda x, t: right, x0, t, noise), torch.zeros(3, dtype=torch.float64))
    bias = torch.tensor([-0.5, 2.0, 3.0], dtype=torch.float64)
    losses = diffusion.loss(lambda x, t: right + bias.reshape(3, 1, 1, 1, 1), x0, t, noise)
    torch.testing.assert_close(losses, bias.abs() if loss == "l1" else bias**2)


def test_loss_shows_the_model_x_t_and_t(generator):
    diffusion, x0, noise, t = exact(), normal(generator), normal(generator), torch.tensor([0, 17, 39])
    seen = []
    diffusion.loss(lambda x, t: seen.append((x, t)) or x, x0, t, noise)
    torch.testing.assert_close(seen[0][0], diffusion.q_sample(x0, t, noise))
    assert len(seen) == 1 and torch.equal(seen[0][1], t)


def test_loss_has_gradients_of_the_model_alone(generator):
    x0, noise = normal(generator), normal(generator)
    gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    exact().loss(lambda x, t: gain * x, x0, torch.tensor([0, 17, 39]), noise).mean().backward()
    assert gain.grad.abs() > 0


@pytest.mark.parametrize("threshold", ["static", "dynamic", None])
@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_x0_and_noise_together_make_x_t_again(prediction, threshold, generator):
    diffusion = exact(prediction=prediction, threshold=threshold, percentile=0.7)
    x_t, output, t = 3 * normal(generator), 3 * normal(generator), torch.tensor([2, 17, 35])
    x0, noise = diffusion.to_x0_and_noise(output, x_t, t)
    torch.testing.assert_close(diffusion.q_sample(x0, t, noise), x_t, rtol=0, atol=1e-9)
    torch.testing.assert_close(diffusion.to_x0(output, x_t, t), x0)
    if threshold is not None:
        assert x0.abs().max() <= 1
    raw = exact(prediction=prediction, threshold=None).to_x0_and_noise(output, x_t, t)
    torch.testing.assert_close(diffusion.to_noise(output, x_t, t), raw[1], rtol=0, atol=1e-9)


def test_static_threshold_clamps_to_the_range(generator):
    x0 = 3 * normal(generator)
    torch.testing.assert_close(exact().keep_in_range(x0), x0.clamp(-1, 1))
    torch.testing.assert_close(exact(clip_range=0.5).keep_in_range(x0), x0.clamp(-0.5, 0.5))


def test_dynamic_threshold_by_default_clamps_a_tenth():
    x0 = torch.arange(1, 12, dtype=torch.float64)[None]  # its 90% quantile is 10
    torch.testing.assert_close(exact(threshold="dynamic").keep_in_range(x0), (x0 / 10).clamp(max=1))


def test_dynamic_threshold_shrinks_each_sample_by_its_own_quantile(generator):
    x0 = normal(generator) * torch.tensor([0.01, 2.0, 5.0], dtype=torch.float64).reshape(3, 1, 1, 1, 1)
    kept = exact(threshold="dynamic", percentile=0.8).keep_in_range(x0)
    torch.testing.assert_close(kept[0], x0[0])  # in range: untouched
    for before, after in zip(x0[1:].numpy(), kept[1:].numpy(), strict=True):
        reach = np.quantile(np.abs(before), 0.8)
        np.testing.assert_allclose(after, np.clip(before, -reach, reach) / reach, atol=1e-6)
        assert np.mean(np.abs(after) > 1 - 1e-9) == pytest.approx(0.2, abs=0.01)


def test_alpha_bar_of_clean_data_is_one():
    diffusion = exact(25)
    assert diffusion.alpha_bar(-1) == 1.0
    assert diffusion.alpha_bar(24) == diffusion.alphas_cumprod[24].item()


def test_nothing_is_saved_because_the_schedule_is_configuration():
    assert exact().state_dict() == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prediction": "epsilon"}, "prediction 'epsilon'.*'noise', 'x0', 'v'"),
        ({"loss": "huber"}, "loss 'huber'.*'l1', 'l2'"),
        ({"threshold": "clip"}, "threshold 'clip'.*'static', 'dynamic', None"),
        ({"percentile": 90}, "percentile 90"),
        ({"clip_range": 0.0}, "clip_range 0.0"),
        ({"betas": torch.tensor([0.1, -0.1])}, "betas"),
        ({"betas": torch.tensor([0.0, 0.1])}, "betas"),
        ({"betas": torch.tensor([0.1, 1.1])}, "betas"),
        ({"betas": torch.zeros(2, 2)}, r"betas of shape \(2, 2\)"),
        ({"betas": torch.zeros(0)}, "betas"),
    ],
)
def test_impossible_settings_are_named_in_one_line(options, says):
    with pytest.raises(UserError, match=says) as caught:
        GaussianDiffusion(**{"betas": cosine_betas(10), **options})
    assert "\n" not in str(caught.value)


def test_wrong_inputs_are_named_in_one_line():
    diffusion, x, t = exact(), torch.zeros(SHAPE), torch.zeros(3, dtype=torch.long)
    with pytest.raises(UserError, match="uint8.*127.5"):
        diffusion.q_sample(x.byte(), t, x)
    with pytest.raises(UserError, match="equal shapes"):
        diffusion.loss(lambda x, t: x, x, t, x[0])
    with pytest.raises(UserError, match=r"\(3, 2, 5, 4, 6\) into \(3, 1, 5, 4, 6\)"):
        diffusion.loss(lambda x, t: x[:, :1], x, t, x)


@pytest.mark.parametrize("threshold", ["static", "dynamic"])
def test_thresholds_act_on_clips_and_not_on_their_normalised_form(threshold, generator):
    diffusion = exact(threshold=threshold, shift_factor=-0.9, scale_factor=6.0)
    plain = exact(threshold=threshold)
    clips = normal(generator) * 1.5
    torch.testing.assert_close(diffusion.denormalize(diffusion.normalize(clips)), clips)
    kept = diffusion.denormalize(diffusion.keep_in_range(diffusion.normalize(clips)))
    torch.testing.assert_close(kept, plain.keep_in_range(clips))
    assert kept.abs().max() <= 1 + 1e-12
    assert diffusion.normalize(torch.tensor(-0.9)) == 0 and diffusion.normalize(torch.tensor(0.1)) == pytest.approx(6.0)
