"""What a learner builds is what the package does: the package's own functions pass the checks of the exercises."""

import pytest
import torch
from torch.func import functional_call

from minivdm import vae
from minivdm.course.exercise import get
from minivdm.course.judging import examine
from minivdm.denoisers import embeddings
from minivdm.diffusion import guidance, samplers, schedules, tables
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.vae import chunked_conv, discriminator


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


def chunked(x, weight, bias, limit, padding):
    sizes = {"in_channels": x.shape[1], "out_channels": len(weight), "kernel_size": weight.shape[2:]}
    layer = vae.ChannelChunkConv3D(**sizes, padding=padding, bias=bias is not None, numel_limit=limit, device="meta")
    weights = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return functional_call(layer, weights, (x,))


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
    "05.conv3d_output_numel": chunked_conv.conv3d_output_numel,
    "05.num_chunks": chunked_conv.num_chunks,
    "05.chunked_conv3d": chunked,
    "05.pad_3x3x3": vae.pad_for_conv3d_kernel_3x3x3,
    "06.hinge_d_loss": vae.hinge_d_loss,
    "06.vanilla_d_loss": vae.vanilla_d_loss,
    "06.wgan_d_loss": vae.wgan_d_loss,
    "06.gradient_penalty": vae.gradient_penalty,
    "06.adopt_weight": vae.adopt_weight,
    "06.adaptive_weight": vae.adaptive_weight,
    "06.receptive_field": discriminator.receptive_field,
    "06.perplexity": lambda indices, n_embed: vae.measure_perplexity(indices, n_embed)[0],
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
