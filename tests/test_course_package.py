"""What a learner builds is what the package does: the package's own functions pass the checks of the exercises."""

import pytest
import torch

from minivdm.course.exercise import get
from minivdm.course.judging import examine
from minivdm.denoisers import embeddings
from minivdm.diffusion import guidance, samplers, schedules, tables
from minivdm.diffusion.gaussian import GaussianDiffusion


def diffusion(betas=None, alphas_cumprod=None, **options):
    betas = schedules.betas_from_alphas_cumprod(alphas_cumprod.double()) if betas is None else betas
    return GaussianDiffusion(betas, dtype=torch.float64, **options)


def p_sample(x_t, t, noise_pred, z, betas, clip=True):
    return diffusion(betas, threshold="static" if clip else None).p_sample(lambda x, t: noise_pred, x_t, t, z)


def ddim_step(x_t, t, t_prev, noise_pred, z, alphas_cumprod, eta):
    process = diffusion(alphas_cumprod=alphas_cumprod)
    x0 = process.predict_start_from_noise(x_t, t, noise_pred)
    steps = []
    for i in range(len(t)):
        now, prev = process.alpha_bar(int(t[i])), process.alpha_bar(int(t_prev[i]))
        steps.append(samplers.ddim_step(x0[i], noise_pred[i], now, prev, eta, z[i]))
    return torch.stack(steps)


PACKAGE = {
    "01.linear_betas": schedules.linear_betas,
    "01.cosine_betas": schedules.cosine_betas,
    "01.alphas_cumprod": schedules.alphas_cumprod,
    "01.snr": schedules.snr,
    "02.extract": tables.extract,
    "02.q_sample": lambda x0, t, noise, a: diffusion(alphas_cumprod=a).q_sample(x0, t, noise),
    "02.predict_x0": lambda x, t, noise, a: diffusion(alphas_cumprod=a).predict_start_from_noise(x, t, noise),
    "02.predict_v": lambda x0, t, noise, a: diffusion(alphas_cumprod=a).predict_v(x0, t, noise),
    "02.q_posterior": lambda x0, x, t, betas: tuple(diffusion(betas).q_posterior(x0, x, t)),
    "02.p_sample": p_sample,
    "02.ddim_step": ddim_step,
    "07.sinusoidal_embedding": lambda t, dim: embeddings.SinusoidalEmbedding(dim)(t),
    "07.rotate": lambda x, freqs: embeddings.rotate(x, torch.polar(torch.ones_like(freqs), freqs)),
    "07.guided": guidance.classifier_free,
}


@pytest.mark.parametrize("exercise_id", PACKAGE)
def test_the_package_passes_the_check(exercise_id):
    verdict = examine(get(exercise_id), PACKAGE[exercise_id])
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 32), (16, 20)])
def test_buckets_are_the_exercises_buckets(num_buckets, max_distance):
    frames = torch.arange(16)  # nearer than the first edge where the last bit of a logarithm would decide
    rel = frames[None, :] - frames[:, None]
    ours = embeddings.RelativePositionBias(3, num_buckets, max_distance).buckets(16)
    assert torch.equal(ours, get("07.relative_position_bucket").reference(rel, num_buckets, max_distance))
