"""Right answers to the exercises of lesson 06 written in another way. Every one must pass its check."""

import math
from collections import Counter

import torch
import torch.nn.functional as F
from torch.func import grad, vmap


def hinge_d_loss(real, fake):
    return (torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()) / 2


def hinge_d_loss_mask(real, fake):
    lacks_real, lacks_fake = (real < 1) * (1 - real), (fake > -1) * (1 + fake)
    return 0.5 * lacks_real.sum() / real.numel() + 0.5 * lacks_fake.sum() / fake.numel()


def vanilla_d_loss(real, fake):
    on_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return 0.5 * (on_real + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)))


def vanilla_d_loss_logaddexp(real, fake):
    def softplus(x):
        return torch.logaddexp(x, torch.zeros_like(x))

    return torch.stack([softplus(-real).mean(), softplus(fake).mean()]).mean()


def vanilla_d_loss_logsigmoid(real, fake):
    return -0.5 * (F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean())


def wgan_d_loss(real, fake):
    return torch.mean(-real) / 2 + torch.mean(fake) / 2


def gradient_penalty(critic, real, fake, alpha):
    """The mixture is cut off from what made it: the critic is what is trained."""
    mixed = torch.stack([torch.lerp(f, r, a) for r, f, a in zip(real, fake, alpha, strict=True)])
    mixed = mixed.detach().requires_grad_()
    scores = critic(mixed)
    slope = torch.autograd.grad(scores, mixed, torch.ones_like(scores), create_graph=True, retain_graph=True)[0]
    norms = torch.stack([one.pow(2).sum().sqrt() for one in slope])
    return torch.mean((norms - 1.0) ** 2)


def gradient_penalty_loop(critic, real, fake, alpha):
    """One sample after the other."""
    total = 0
    for i in range(len(real)):
        mixed = (alpha[i] * real[i : i + 1] + (1 - alpha[i]) * fake[i : i + 1]).requires_grad_(True)
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
        total = total + (torch.linalg.vector_norm(slope) - 1) ** 2
    return total / len(real)


def gradient_penalty_func(critic, real, fake, alpha):
    """By torch's functional derivative."""
    share = alpha.view(-1, *(1 for _ in real.shape[1:]))
    slope = grad(lambda x: critic(x).sum())(fake + share * (real - fake))
    return vmap(lambda one: (one.norm() - 1).square())(slope).mean()


def adopt_weight(weight, step, threshold, value=0.0):
    if step < threshold:
        weight = value
    return weight


def adopt_weight_tensor(weight, step, threshold, value=0.0):
    return torch.where(torch.tensor(step >= threshold), torch.tensor(weight), torch.tensor(value))


def adaptive_weight(rec_loss, gan_loss, last_layer):
    slopes = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (rec_loss, gan_loss)]
    by_rec, by_gan = (torch.sqrt((slope**2).sum()) for slope in slopes)
    return torch.clamp(by_rec / (by_gan + 1e-4), 0.0, 1e4).detach()


def adaptive_weight_backward(rec_loss, gan_loss, last_layer):
    """`backward` for this one input, with its `.grad` put back."""
    kept, norms = last_layer.grad, []
    for loss in (rec_loss, gan_loss):
        last_layer.grad = None
        loss.backward(retain_graph=True, inputs=[last_layer])
        norms.append(last_layer.grad.norm())
    last_layer.grad = kept
    return torch.clamp(norms[0] / (norms[1] + 1e-4), max=1e4)


def receptive_field(kernels, strides):
    """From the output back to the input."""
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field


def receptive_field_traced(kernels, strides):
    """Which input pixels does one output touch?"""
    pixels = {0}
    for kernel, stride in list(zip(kernels, strides, strict=True))[::-1]:
        pixels = {pixel * stride + tap for pixel in pixels for tap in range(kernel)}
    return max(pixels) - min(pixels) + 1


def perplexity(indices, n_embed):
    shares = F.one_hot(indices, n_embed).float().reshape(-1, n_embed).mean(0)
    return torch.exp(-(shares * torch.log(shares + 1e-10)).sum())


def perplexity_counter(indices, n_embed):
    counts = Counter(indices.flatten().tolist())
    bits = -sum(n / indices.numel() * math.log2(n / indices.numel()) for n in counts.values())
    return torch.tensor(2.0**bits)


ALTERNATIVES = {
    "06.hinge_d_loss": [hinge_d_loss, hinge_d_loss_mask],
    "06.vanilla_d_loss": [vanilla_d_loss, vanilla_d_loss_logaddexp, vanilla_d_loss_logsigmoid],
    "06.wgan_d_loss": [wgan_d_loss],
    "06.gradient_penalty": [gradient_penalty, gradient_penalty_loop, gradient_penalty_func],
    "06.adopt_weight": [adopt_weight, adopt_weight_tensor],
    "06.adaptive_weight": [adaptive_weight, adaptive_weight_backward],
    "06.receptive_field": [receptive_field, receptive_field_traced],
    "06.perplexity": [perplexity, perplexity_counter],
}

EQUIVALENT = {"06.receptive_field": r"strict=False"}  # as many kernels as strides
