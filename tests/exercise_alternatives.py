"""Right answers written in another way: loops, other algebra, other idioms. Every one must pass its check."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
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


def sinusoidal_embedding(t, dim):
    half = dim // 2
    freqs = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * freqs[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def sinusoidal_embedding_loop(t, dim):
    half = dim // 2
    rows = [[step / 10000 ** (i / (half - 1)) for i in range(half)] for step in t.tolist()]
    return torch.tensor([[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in rows])


def film(x, scale, shift):
    return torch.einsum("bcthw,bc->bcthw", x, scale) + x + shift[..., None, None, None]


def frames_to_batch(x):
    return torch.stack([x[b, :, t] for b in range(x.shape[0]) for t in range(x.shape[2])])


def temporal_attention(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(q), *bias.shape))


def temporal_attention_loop(q, k, v, bias):
    out = torch.zeros_like(v)
    for i in range(q.shape[2]):
        scores = (q[:, :, i : i + 1] * k).sum(-1) / math.sqrt(q.shape[-1]) + bias[:, i]
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[:, :, i] = (weights[..., None] * v).sum(2)
    return out


def relative_position_bucket(rel, num_buckets=32, max_distance=32):
    half = num_buckets // 2
    exact = half // 2

    def bucket(offset):
        n = abs(offset)
        if n >= exact:
            n = min(exact + int(math.log(n / exact) / math.log(max_distance / exact) * (half - exact)), half - 1)
        return n + (half if offset > 0 else 0)

    return torch.tensor([bucket(offset) for offset in rel.flatten().tolist()]).reshape(rel.shape)


def relative_position_bucket_float32(rel, num_buckets=32, max_distance=32):
    half = num_buckets // 2
    exact = half // 2
    n = torch.abs(rel)
    large = exact + (torch.log2(n.float() / exact) / math.log2(max_distance / exact) * (half - exact)).long()
    large = torch.min(large, torch.full_like(large, half - 1))
    return (rel > 0).long() * half + torch.where(n < exact, n, large)


def rotate(x, freqs):
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(freqs), freqs)
    return torch.view_as_real(turned).flatten(-2)


def rotate_halves(x, freqs):
    angles = repeat(freqs, "t d -> t (d two)", two=2)
    a, b = rearrange(x, "... (d two) -> ... d two", two=2).unbind(-1)
    return x * angles.cos() + rearrange(torch.stack((-b, a), -1), "... d two -> ... (d two)") * angles.sin()


def guided(cond, uncond, scale):
    return torch.lerp(uncond, cond, scale)


def guided_sum(cond, uncond, scale):
    return scale * cond + (1 - scale) * uncond


def focus_present_mask(focus, num_frames):
    masks = [torch.eye(num_frames) if one else torch.ones(num_frames, num_frames) for one in focus]
    return torch.stack(masks).bool()


def focus_present_mask_loop(focus, num_frames):
    frames = range(num_frames)
    return torch.tensor([[[i == j or not one for j in frames] for i in frames] for one in focus.tolist()])


def ema_update(ema, value, decay):
    return ema + (value - ema) * (1 - decay)


def ema_update_lerp(ema, value, decay):
    return value.lerp(ema, decay)


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
    "07.sinusoidal_embedding": [sinusoidal_embedding, sinusoidal_embedding_loop],
    "07.film": [film],
    "07.frames_to_batch": [frames_to_batch],
    "07.temporal_attention": [temporal_attention, temporal_attention_loop],
    "07.relative_position_bucket": [relative_position_bucket, relative_position_bucket_float32],
    "07.rotate": [rotate, rotate_halves],
    "07.guided": [guided, guided_sum],
    "07.focus_present_mask": [focus_present_mask, focus_present_mask_loop],
    "07.ema_update": [ema_update, ema_update_lerp],
}
