"""Right answers to lessons 01 and 02, written in another way: loops, other algebra, other idioms. All must pass."""

import math

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence


def linear_betas(num_steps, start=1e-4, end=0.02):
    return torch.tensor([start + (end - start) * i / (num_steps - 1) for i in range(num_steps)])


def linear_betas_numpy(num_steps, start=1e-4, end=0.02):
    return torch.from_numpy(np.linspace(start, end, num_steps))


def cosine_betas(num_steps, s=0.008):
    """A loop over Python floats, rounded to float32 at the very end."""

    def kept(t):
        return math.cos((t / num_steps + s) / (1 + s) * math.pi / 2) ** 2

    return torch.tensor([min(1 - kept(i + 1) / kept(i), 0.9999) for i in range(num_steps)])


def cosine_betas_normalised(num_steps, s=0.008):
    t = torch.linspace(0, num_steps, num_steps + 1).double() / num_steps
    curve = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    curve = curve / curve[0]
    return torch.clip(1 - curve[1:] / curve[:-1], 0, 0.9999)


def alphas_cumprod(betas):
    return torch.exp(torch.cumsum(torch.log1p(-betas), 0))


def alphas_cumprod_loop(betas):
    out, product = torch.empty_like(betas), 1.0
    for i in range(len(betas)):
        product = product * (1 - betas[i])
        out[i] = product
    return out


def noise_one_step(x_prev, beta, noise):
    beta = torch.as_tensor(beta, dtype=x_prev.dtype)
    return torch.sqrt(1 - beta) * x_prev + torch.sqrt(beta) * noise


def noise_one_step_math(x_prev, beta, noise):
    return x_prev * math.sqrt(1 - float(beta)) + noise * math.sqrt(float(beta))


def noise_chain(x0, betas, noises):
    """The closed form: what is left of each noise after the steps that follow it."""
    left = torch.flip(torch.cumprod(torch.flip(1 - betas, (0,)), 0), (0,))
    after = torch.cat([left[1:], torch.ones_like(left[:1])])
    return left[0].sqrt() * x0 + torch.tensordot((betas * after).sqrt(), noises, dims=1)


def snr(alphas_cumprod):
    return torch.sigmoid(torch.logit(alphas_cumprod)) / torch.sigmoid(-torch.logit(alphas_cumprod))


def snr_roots(alphas_cumprod):
    return (alphas_cumprod.sqrt() / (1 - alphas_cumprod).sqrt()) ** 2


def first_noisy_step(alphas_cumprod):
    for t, share in enumerate(alphas_cumprod.tolist()):
        if share < 0.5:
            return t
    return len(alphas_cumprod)


def first_noisy_step_tensor(alphas_cumprod):
    return (alphas_cumprod >= 0.5).sum()


def gaussian_kl(mean1, logvar1, mean2, logvar2):
    return kl_divergence(Normal(mean1, torch.exp(logvar1 / 2)), Normal(mean2, torch.exp(logvar2 / 2)))


def gaussian_kl_sigmas(mean1, logvar1, mean2, logvar2):
    s1, s2 = torch.exp(0.5 * logvar1), torch.exp(0.5 * logvar2)
    return torch.log(s2 / s1) + (s1**2 + (mean1 - mean2) ** 2) / (2 * s2**2) - 0.5


def _column(values, like):
    return values.view(-1, *(1 for _ in range(like.dim() - 1)))


def extract(a, t, x_shape):
    return torch.gather(a, 0, t).reshape((len(t),) + (1,) * (len(x_shape) - 1))


def extract_loop(a, t, x_shape):
    out = torch.stack([a[int(step)] for step in t])
    for _ in range(len(x_shape) - 1):
        out = out.unsqueeze(-1)
    return out


def q_sample(x0, t, noise, alphas_cumprod):
    shares = alphas_cumprod[t]
    return torch.stack([a**0.5 * x + (1 - a) ** 0.5 * n for a, x, n in zip(shares, x0, noise, strict=True)])


def predict_x0(x_t, t, noise, alphas_cumprod):
    inverse = _column(1 / alphas_cumprod[t], x_t)
    return inverse.sqrt() * x_t - (inverse - 1).sqrt() * noise


def predict_v(x0, t, noise, alphas_cumprod):
    angle = torch.arccos(alphas_cumprod.sqrt())[t]
    return torch.cos(_column(angle, x0)) * noise - torch.sin(_column(angle, x0)) * x0


def optimal_denoiser(x_t, t, points, alphas_cumprod):
    """Probabilities from Normal, one sample at a time."""
    means = []
    for x, i in zip(x_t, t.tolist(), strict=True):
        share = alphas_cumprod[i]
        log_p = Normal(share.sqrt() * points, (1 - share).sqrt()).log_prob(x).sum(1)
        weights = torch.exp(log_p - log_p.max())
        means.append((weights[:, None] * points).sum(0) / weights.sum())
    return torch.stack(means)


def q_posterior(x0, x_t, t, betas):
    """Product of two Gaussians by their precisions; a sample at t = 0 is x0."""
    alphas = 1 - betas
    bar = alphas.cumprod(0)
    means, variances = [], []
    for one_x0, one_x, i in zip(x0, x_t, t.tolist(), strict=True):
        if i == 0:
            means.append(one_x0)
            variances.append(torch.zeros((), dtype=betas.dtype))
            continue
        from_start, from_step = 1 / (1 - bar[i - 1]), alphas[i] / betas[i]
        variances.append(1 / (from_start + from_step))
        weighted = bar[i - 1].sqrt() * one_x0 * from_start + one_x / alphas[i].sqrt() * from_step
        means.append(weighted * variances[-1])
    var = _column(torch.stack(variances), x_t)
    return torch.stack(means), var, var.clamp(min=1e-20).log()


def p_sample(x_t, t, noise_pred, z, betas, clip=True):
    """With a mask instead of a zero variance, and the deviation from the log variance."""
    bar = torch.cumprod(1 - betas, 0)
    x0 = _column(1 / bar[t].sqrt(), x_t) * x_t - _column((1 / bar[t] - 1).sqrt(), x_t) * noise_pred
    if clip:
        x0 = torch.minimum(torch.maximum(x0, -torch.ones_like(x0)), torch.ones_like(x0))
    mean, _, log_var = q_posterior(x0, x_t, t, betas)
    return torch.where(_column(t, x_t) == 0, mean, mean + torch.exp(0.5 * log_var) * z)


def ddim_step(x_t, t, t_prev, noise_pred, z, alphas_cumprod, eta):
    out = []
    for i in range(len(x_t)):
        now = alphas_cumprod[t[i]]
        before = alphas_cumprod[t_prev[i]] if t_prev[i] >= 0 else torch.ones_like(now)
        sigma2 = eta**2 * (1 - before) / (1 - now) * (1 - now / before)
        x0 = (x_t[i] - torch.sqrt(1 - now) * noise_pred[i]) / torch.sqrt(now)
        out.append(before.sqrt() * x0 + (1 - before - sigma2).sqrt() * noise_pred[i] + sigma2.sqrt() * z[i])
    return torch.stack(out)


ALTERNATIVES = {
    "01.linear_betas": [linear_betas, linear_betas_numpy],
    "01.cosine_betas": [cosine_betas, cosine_betas_normalised],
    "01.alphas_cumprod": [alphas_cumprod, alphas_cumprod_loop],
    "01.noise_one_step": [noise_one_step, noise_one_step_math],
    "01.noise_chain": [noise_chain],
    "01.snr": [snr, snr_roots],
    "01.first_noisy_step": [first_noisy_step, first_noisy_step_tensor],
    "01.gaussian_kl": [gaussian_kl, gaussian_kl_sigmas],
    "02.extract": [extract, extract_loop],
    "02.q_sample": [q_sample],
    "02.predict_x0": [predict_x0],
    "02.predict_v": [predict_v],
    "02.optimal_denoiser": [optimal_denoiser],
    "02.q_posterior": [q_posterior],
    "02.p_sample": [p_sample],
    "02.ddim_step": [ddim_step],
}

# Mutants that compute the same thing on every legal input, as a pattern of the changed line. Tables have one axis, so
# dim=-1 is dim=0.
EQUIVALENT = {
    "01.alphas_cumprod": r"dim=-1",
    "02.q_posterior": r"dim=-1",
    "02.p_sample": r"dim=-1",
    "01.noise_chain": r"strict=False",
}
