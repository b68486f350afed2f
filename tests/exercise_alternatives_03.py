"""Right answers to the exercises of lesson 03, written in another way: loops, other algebra, other idioms."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch.distributions import Laplace, Normal, kl_divergence


def reparameterize(mean, logvar, noise):
    return torch.addcmul(mean, logvar.exp().sqrt(), noise)


def reparameterize_log2(mean, logvar, noise):
    std = torch.exp2(0.5 * logvar / math.log(2))
    return torch.stack([m + s * n for m, s, n in zip(mean, std, noise, strict=True)])


def kl_to_standard_normal(mean, logvar):
    each = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    return each.sum(dim=tuple(range(1, mean.ndim)))


def kl_to_standard_normal_loop(mean, logvar):
    out = []
    for m, lv in zip(mean, logvar, strict=True):
        out.append(-0.5 * torch.sum(1 + lv - m.pow(2) - lv.exp()))
    return torch.stack(out)


def kl_to_standard_normal_reduce(mean, logvar):
    var = logvar.exp()
    return reduce(mean * mean + var - 1.0 - var.log(), "b ... -> b", "sum") / 2


def spatial_attention(q, k, v):
    tokens = (rearrange(each, "b c h w -> b 1 (h w) c") for each in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(*tokens), "b 1 (h w) c -> b c h w", h=q.shape[2])


def spatial_attention_channels_first(q, k, v):
    """As published code writes it: bmm with the key's pixels last, the softmax over them, and v turned."""
    b, c, h, w = q.shape
    weights = torch.bmm(q.reshape(b, c, h * w).permute(0, 2, 1), k.reshape(b, c, h * w)) * (int(c) ** (-0.5))
    weights = torch.nn.functional.softmax(weights, dim=2).permute(0, 2, 1)
    return torch.bmm(v.reshape(b, c, h * w), weights).reshape(b, c, h, w)


def spatial_attention_einsum(q, k, v):
    scores = einsum(q, k, "b c h w, b c y x -> b h w y x") / math.sqrt(q.shape[1])
    weights = rearrange(scores, "b h w y x -> b h w (y x)").softmax(-1).reshape(scores.shape)
    return einsum(weights, v, "b h w y x, b c y x -> b c h w")


def spatial_attention_loop(q, k, v):
    out = torch.zeros_like(v)
    for y in range(q.shape[2]):
        for x in range(q.shape[3]):
            scores = (q[:, :, y, x, None, None] * k).sum(1) / q.shape[1] ** 0.5
            weights = scores.exp() / scores.exp().sum((1, 2), keepdim=True)
            out[:, :, y, x] = (weights[:, None] * v).sum((2, 3))
    return out


def downsample_pad(x):
    b, c, h, w = x.shape
    out = x.new_zeros(b, c, h + 1, w + 1)
    out[:, :, :h, :w] = x
    return out


def downsample_pad_cat(x):
    x = torch.cat([x, torch.zeros_like(x[:, :, :, :1])], dim=3)
    return torch.cat([x, torch.zeros_like(x[:, :, :1])], dim=2)


def downsample_pad_module(x):
    return torch.nn.ZeroPad2d((0, 1, 0, 1))(x)


def nll(x, x_rec, logvar, kl, kl_weight):
    """From the Laplace density, whose 2 in front of the scale is not counted here."""
    surprise = -Laplace(x_rec, torch.exp(logvar)).log_prob(x) - math.log(2)
    return surprise.flatten(1).sum(1).mean() + kl_weight * kl.mean()


def nll_upstream(x, x_rec, logvar, kl, kl_weight):
    rec = F.l1_loss(x_rec, x, reduction="none")
    nll = rec / torch.exp(logvar) + logvar
    return torch.sum(nll) / nll.shape[0] + kl_weight * (torch.sum(kl) / kl.shape[0])


def nll_loop(x, x_rec, logvar, kl, kl_weight):
    total = 0
    for one, other, price in zip(x, x_rec, kl, strict=True):
        total = total + (one - other).abs().sum() * (-logvar).exp() + one.numel() * logvar + kl_weight * price
    return total / x.shape[0]


def latent_scale(latents):
    return 1 / torch.sqrt(((latents - latents.mean()) ** 2).mean())


def latent_scale_unbiased(latents):
    return latents.std().reciprocal()


def latent_scale_numpy(latents):
    return float(1 / np.std(latents.numpy()))


def latent_scale_moments(latents):
    values = latents.double()
    return float((values.square().mean() - values.mean() ** 2) ** -0.5)


def psnr_lit(x, x_rec, threshold):
    lit = (x > threshold).any(dim=1, keepdim=True).expand_as(x)
    return -10 * torch.log10(F.mse_loss((x_rec[lit] + 1) / 2, (x[lit] + 1) / 2))


def psnr_lit_weights(x, x_rec, threshold):
    mask = (x.max(dim=1, keepdim=True).values > threshold).to(x.dtype)
    mse = ((x - x_rec).square() * mask).sum() / (mask.sum() * x.shape[1])
    return 20 * torch.log10(2 / mse.sqrt())


def psnr_lit_loop(x, x_rec, threshold):
    total, count = 0.0, 0
    pixels, rebuilt_pixels = (rearrange(each, "b c ... -> (b ...) c") for each in (x, x_rec))
    for true, rebuilt in zip(pixels, rebuilt_pixels, strict=True):
        if true.max() > threshold:
            total, count = total + ((true - rebuilt) ** 2).sum(), count + len(true)
    return 10 * torch.log10(4 * count / total)


ALTERNATIVES = {
    "03.reparameterize": [reparameterize, reparameterize_log2],
    "03.kl_to_standard_normal": [kl_to_standard_normal, kl_to_standard_normal_loop, kl_to_standard_normal_reduce],
    "03.spatial_attention": [
        spatial_attention,
        spatial_attention_channels_first,
        spatial_attention_einsum,
        spatial_attention_loop,
    ],
    "03.downsample_pad": [downsample_pad, downsample_pad_cat, downsample_pad_module],
    "03.nll": [nll, nll_upstream, nll_loop],
    "03.latent_scale": [latent_scale, latent_scale_unbiased, latent_scale_numpy, latent_scale_moments],
    "03.psnr_lit": [psnr_lit, psnr_lit_weights, psnr_lit_loop],
}
