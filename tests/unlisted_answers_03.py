"""Lesson 03 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import torch
import torch.nn.functional as F
from einops import rearrange

from minivdm.course.exercise import get

WRONG, RIGHT = [], []


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


several(
    "03.reparameterize",
    lambda mean, logvar, noise: mean.detach() + torch.exp(logvar / 2) * noise,
    lambda mean, logvar, noise: mean + (logvar.exp() + 1e-8).sqrt() * noise,
    lambda mean, logvar, noise: mean + torch.exp(logvar / 2) * noise.mean(),
    lambda mean, logvar, noise: mean + torch.exp(logvar / 2).mean() * noise,
    lambda mean, logvar, noise: mean + torch.exp(logvar / 2).clamp(max=1e4) * noise,
    lambda mean, logvar, noise: mean - torch.exp(logvar / 2) * noise,
    lambda mean, logvar, noise: mean + F.softplus(logvar) * noise,
    lambda mean, logvar, noise: mean + torch.exp(logvar / 2) * noise[:1],
    lambda mean, logvar, noise: torch.normal(mean, torch.exp(logvar / 2)),
    lambda mean, logvar, noise: mean + torch.exp(logvar / 2) * torch.randn(mean.shape, generator=torch.Generator()),
    lambda mean, logvar, noise: mean.mul_(1) + logvar.exp_().sqrt() * noise,
)


def kl_terms(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


several(
    "03.kl_to_standard_normal",
    lambda mean, logvar: kl_terms(mean.detach(), logvar).flatten(1).sum(1),
    lambda mean, logvar: kl_terms(mean, logvar.detach()).flatten(1).sum(1),
    lambda mean, logvar: (kl_terms(mean, logvar) + 0.5 * logvar - 0.5 * logvar.detach()).flatten(1).sum(1),
    lambda mean, logvar: kl_terms(mean, logvar).flatten(2).sum(2),
    lambda mean, logvar: kl_terms(mean, logvar).flatten(1).sum(1, keepdim=True),
    lambda mean, logvar: kl_terms(mean, logvar.clamp(-1, 1)).flatten(1).sum(1),
    lambda mean, logvar: (kl_terms(mean, logvar) + logvar).flatten(1).sum(1),
    lambda mean, logvar: (0.5 * ((1 + mean**2) * (-logvar).exp() - 1 + logvar)).flatten(1).sum(1),
    lambda mean, logvar: kl_terms(mean, logvar).flatten(1).sum(1) / mean.shape[1],
    lambda mean, logvar: [one.sum().item() for one in kl_terms(mean, logvar)],
)


def attend(q, k, v, heads=1):
    height = q.shape[2]
    q, k, v = (rearrange(each, "b (n c) h w -> b n (h w) c", n=heads) for each in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b n (h w) c -> b (n c) h w", h=height)


def columns_first(q, k, v):
    q, k, v = (rearrange(each, "b c h w -> b (w h) c") for each in (q, k, v))
    return q, F.scaled_dot_product_attention(q, k, v)


several(
    "03.spatial_attention",
    lambda q, k, v: attend(q, k, v, 2 if q.shape[1] % 2 == 0 else 1),
    lambda q, k, v: rearrange(columns_first(q, k, v)[1], "b (h w) c -> b c h w", h=q.shape[2]),
    lambda q, k, v: attend(q, k, v) + q,
    lambda q, k, v: attend(q, k, v) + v,
    lambda q, k, v: attend(q, k, k),
    lambda q, k, v: attend(q, v, k),
    lambda q, k, v: attend(F.normalize(q, dim=1), F.normalize(k, dim=1), v),
    lambda q, k, v: attend(q, k, v).clamp(-1, 1),
    lambda q, k, v: attend(q, k, v).flatten(2),
    lambda q, k, v: v.mean(dim=(2, 3), keepdim=True).expand_as(v),
)

several(
    "03.downsample_pad",
    lambda x: F.pad(x, (0, 1, 0, 1), value=1e-3),
    lambda x: F.pad(x, (0, 1, 0, 1), mode="reflect"),
    lambda x: F.pad(x, (0, 2, 0, 2)),
    lambda x: F.pad(x, (1, 0, 0, 1)),
    lambda x: F.pad(x, (0, 1, 1, 0)),
    lambda x: F.pad(x, (0, 1, 0, 1, 0, 1)),
    lambda x: F.pad(x, (0, 1, 0, 1))[:, :, ::2, ::2],
    lambda x: F.pad(x, (0, (x.shape[3] + 1) % 2, 0, (x.shape[2] + 1) % 2)),
    lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2),
)


def surprise(x, x_rec, logvar):
    return (x - x_rec).abs() * torch.exp(-logvar) + logvar


several(
    "03.nll",
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec.detach(), logvar).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar).sum() / len(x) + w * kl.detach().mean(),
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, float(logvar)).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: (surprise(x, x_rec, logvar).sum() / len(x) + w * kl.mean()).item(),
    lambda x, x_rec, logvar, kl, w: (surprise(x, x_rec, logvar).sum() / len(x) + w * kl.mean())[None],
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar).flatten(1).sum(1) + w * kl,
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar).sum() / len(x) + w * kl.mean() / len(x),
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar).sum() / len(x) - w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar / 2).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: (surprise(x, x_rec, logvar) - 2 * logvar).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: ((x - x_rec) * torch.exp(-logvar) + logvar).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: ((x - x_rec).abs() / logvar + logvar).sum() / len(x) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: surprise(x, x_rec, logvar).sum() / (x.numel() / x[0, 0, 0].numel()) + w * kl.mean(),
    lambda x, x_rec, logvar, kl, w: (
        surprise(x, x_rec, logvar).sum() / (len(x) * (x.shape[2] if x.ndim == 5 else 1)) + w * kl.mean()
    ),
)

several(
    "03.latent_scale",
    lambda z: float((1 / z.std(dim=(0, 2, 3))).mean()),
    lambda z: 1 / float(z.var(dim=(0, 2, 3)).mean().sqrt()),
    lambda z: 1 / float(z.flatten(1).var(1).mean().sqrt()),
    lambda z: 1 / float(z[:, 0].std()),
    lambda z: 1 / float(z.std(dim=0).mean()),
    lambda z: 1 / float(z.std(dim=(2, 3)).mean()),
    lambda z: 1 / float(z.mean((2, 3)).std()),
    lambda z: 1 / float(z.abs().mean()),
    lambda z: 1 / float((z - z.mean()).abs().mean()),
    lambda z: 1 / float((z - z.median()).square().mean().sqrt()),
    lambda z: 1 / float(z.std() + 0.02),
    lambda z: 1 / float(z.std().clamp(min=1)),
    lambda z: 1.01 / float(z.std()),
    lambda z: 0.18215,
    lambda z: z / z.std(),
)


def decibels(x, x_rec, lit, peak=2.0):
    return 10 * torch.log10(peak**2 / ((x - x_rec) ** 2).mean(1)[lit].mean())


several(
    "03.psnr_lit",
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amax(1) >= threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amax(1) <= threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, (x.amax(1) > threshold) | (x_rec.amax(1) > threshold)),
    lambda x, x_rec, threshold: decibels(x, x_rec, (x.amax(1) > threshold) & (x_rec.amax(1) > threshold)),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amin(1) > threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.abs().amax(1) > threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.sum(1) > threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x[:, 0] > threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amax(1) > -0.8),
    lambda x, x_rec, threshold: decibels(x, x_rec.clamp(-1, 1), x.amax(1) > threshold),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amax(1) > threshold, float(x.max() - x.min())),
    lambda x, x_rec, threshold: decibels(x, x_rec, x.amax(1) > threshold, float(x.max())),
    lambda x, x_rec, threshold: -decibels(x, x_rec, x.amax(1) > threshold),
    lambda x, x_rec, threshold: 2 * decibels(x, x_rec, x.amax(1) > threshold, 2**0.5),
    lambda x, x_rec, threshold: 10 * torch.log10(4 / ((x - x_rec) ** 2).sum(1)[x.amax(1) > threshold].mean()),
    lambda x, x_rec, threshold: 10 * torch.log10(4 / (x - x_rec).abs().mean(1)[x.amax(1) > threshold].mean()),
    lambda x, x_rec, threshold: 10 * torch.log10(4 / ((x - x_rec) ** 2)[:, 0][x.amax(1) > threshold].mean()),
)

RIGHT.append(("03.psnr_lit", lambda x, x_rec, threshold: float(decibels(x, x_rec, x.amax(1) > threshold))))
RIGHT.append(("03.latent_scale", lambda z: 1 / z.flatten().std(unbiased=False).double()))
RIGHT += [(f"03.{name}", get(f"03.{name}").reference) for name in ("downsample_pad", "nll")]
