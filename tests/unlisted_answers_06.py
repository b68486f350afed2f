"""Lesson 06 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Categorical

from minivdm.course.exercise import get

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


def hinge(real, fake):
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def vanilla(real, fake):
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def wgan(real, fake):
    return 0.5 * (fake.mean() - real.mean())


for name, loss in (("hinge", hinge), ("vanilla", vanilla), ("wgan", wgan)):
    several(
        f"06.{name}_d_loss",
        lambda real, fake, loss=loss: loss(real.detach(), fake.detach()),
        lambda real, fake, loss=loss: loss(real.detach(), fake),
        lambda real, fake, loss=loss: torch.tensor(loss(real, fake).item()),
        lambda real, fake, loss=loss: loss(real, fake).item(),
        lambda real, fake, loss=loss: loss(real.data, fake.data).requires_grad_(),
        lambda real, fake, loss=loss: loss(real, fake)[None],
        lambda real, fake, loss=loss: loss(fake, real),
        lambda real, fake, loss=loss: loss(real.clamp(-100, 100), fake.clamp(-100, 100)),
        lambda real, fake, loss=loss: (loss(real, fake), real.mean()),
    )

several(
    "06.hinge_d_loss",
    lambda real, fake: 0.5 * (F.relu(1 - real.mean()) + F.relu(1 + fake.mean())),
    lambda real, fake: 0.5 * (F.relu(1 - real).square().mean() + F.relu(1 + fake).square().mean()),
    lambda real, fake: 0.5 * (F.leaky_relu(1 - real).mean() + F.leaky_relu(1 + fake).mean()),
    lambda real, fake: 0.5 * (F.relu(1 - real) + F.relu(1 + fake)).mean(),
    lambda real, fake: 0.5 * F.relu(2 - real.mean() + fake.mean()),
)

several(
    "06.vanilla_d_loss",
    lambda real, fake: -0.5 * ((real.sigmoid() + 1e-8).log().mean() + (1 - fake.sigmoid() + 1e-8).log().mean()),
    lambda real, fake: 0.5 * ((real.sigmoid() - 1).square().mean() + fake.sigmoid().square().mean()),
    lambda real, fake: 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean()) / math.log(2),
    lambda real, fake: 0.5 * (F.softplus(0.9 - real).mean() + F.softplus(fake).mean()),
    lambda real, fake: 0.5 * (F.softplus(-real.mean()) + F.softplus(fake.mean())),
    lambda real, fake: torch.nan_to_num(-0.5 * (real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())),
)


def penalty(critic, real, fake, alpha, mix=None, scores=torch.sum, combine=None, keep=True):
    share = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (mix(share, real, fake) if mix else share * real + (1 - share) * fake).detach().requires_grad_()
    slope = torch.autograd.grad(scores(critic(mixed)), mixed, create_graph=keep)[0].flatten(1)
    return combine(slope) if combine else (slope.norm(dim=1) - 1).square().mean()


several(
    "06.gradient_penalty",
    lambda *args: penalty(*args).detach(),
    lambda *args: torch.tensor(penalty(*args).item(), requires_grad=True),
    lambda *args: penalty(*args, scores=torch.mean),
    lambda *args: penalty(*args, scores=lambda scores: scores.flatten()[0]),
    lambda *args: penalty(*args, scores=lambda scores: -scores.square().sum()),
    lambda *args: penalty(*args, combine=lambda slope: (slope.norm(dim=1).mean() - 1).square()),
    lambda *args: penalty(*args, combine=lambda slope: (slope.norm(dim=1) - 1).square().sum()),
    lambda *args: penalty(*args, combine=lambda slope: (slope.norm(dim=1) - 1).square().amax()),
    lambda *args: penalty(*args, combine=lambda slope: (slope.norm(p=1, dim=1) - 1).square().mean()),
    lambda *args: penalty(*args, combine=lambda slope: (slope.norm(dim=1) - 1).detach().square().mean()),
    lambda *args: penalty(
        *args, combine=lambda slope: ((slope.norm(dim=1) - 1).detach() * (slope.norm(dim=1) - 1)).mean()
    ),
    lambda *args: penalty(*args, combine=lambda slope: (slope.square().mean(1).sqrt() - 1).square().mean()),
    lambda *args: penalty(*args, combine=lambda slope: ((slope + 1e-2).norm(dim=1) - 1).square().mean()),
    lambda *args: penalty(*args, mix=lambda share, real, fake: share[:1] * real + (1 - share[:1]) * fake),
    lambda *args: penalty(*args, mix=lambda share, real, fake: share.mean() * real + (1 - share.mean()) * fake),
    lambda *args: penalty(*args, mix=lambda share, real, fake: real + (1 - share) * fake),
    lambda *args: penalty(*args, mix=lambda share, real, fake: share.sqrt() * real + (1 - share).sqrt() * fake),
    lambda critic, real, fake, alpha: penalty(critic, real, fake, torch.rand(len(real))),
    lambda critic, real, fake, alpha: penalty(critic, real, fake, alpha.flip(0)),
    lambda critic, real, fake, alpha: (critic(real).mean() - critic(fake).mean() - 1).square(),
)


@wrong("06.gradient_penalty")
def alpha_not_reshaped(critic, real, fake, alpha):
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
    slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("06.gradient_penalty")
def spoils_the_critic(critic, real, fake, alpha):
    value = penalty(critic, real, fake, alpha)
    for weight in critic.parameters():
        weight.requires_grad_(False)
    return value


@wrong("06.gradient_penalty")
def trains_the_critic(critic, real, fake, alpha):
    value = penalty(critic, real, fake, alpha)
    with torch.no_grad():
        for weight in critic.parameters():
            weight.sub_(0.01)
    return value


@wrong("06.gradient_penalty")
def uses_up_its_graph(critic, real, fake, alpha):
    value = penalty(critic, real, fake, alpha)
    torch.autograd.grad(value, list(critic.parameters()))
    return value


@wrong("06.hinge_d_loss")
def uses_up_its_loss(real, fake):
    value = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    torch.autograd.grad(value, [real, fake])
    return value


@right("06.gradient_penalty")
def backward_into_the_mixture_only(critic, real, fake, alpha):
    share = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (share * real + (1 - share) * fake).detach().requires_grad_()
    critic(mixed).sum().backward(create_graph=True, inputs=[mixed])
    return (mixed.grad.flatten(1).norm(dim=1) - 1).square().mean()


# 06: weights, fields, codes


several(
    "06.adopt_weight",
    lambda weight, step, threshold, value=0.0: weight * (step >= threshold),
    lambda weight, step, threshold, value=0.0: weight if step >= threshold + 1 else value,
    lambda weight, step, threshold, value=0.0: weight if step else value,
    lambda weight, step, threshold, value=0.0: int(weight if step >= threshold else value),
    lambda weight, step, threshold, value=0.0: weight if step % 100 == 0 else value,
)


def pulls(rec, gan, layer):
    return [torch.autograd.grad(loss, layer, retain_graph=True)[0] for loss in (rec, gan)]


def ratio(rec, gan, layer, add=1e-4, most=1e4):
    by_rec, by_gan = pulls(rec, gan, layer)
    return (by_rec.norm() / (by_gan.norm() + add)).clamp(0, most)


@wrong("06.adaptive_weight")
def floor_instead_of_sum(rec, gan, layer):
    by_rec, by_gan = pulls(rec, gan, layer)
    return (by_rec.norm() / by_gan.norm().clamp(min=1e-4)).clamp(0, 1e4)


@wrong("06.adaptive_weight")
def added_above_too(rec, gan, layer):
    by_rec, by_gan = pulls(rec, gan, layer)
    return ((by_rec.norm() + 1e-4) / (by_gan.norm() + 1e-4)).clamp(0, 1e4)


@wrong("06.adaptive_weight")
def added_to_every_element(rec, gan, layer):
    by_rec, by_gan = pulls(rec, gan, layer)
    return (by_rec.norm() / (by_gan + 1e-4).norm()).clamp(0, 1e4)


@wrong("06.adaptive_weight")
def elementwise(rec, gan, layer):
    by_rec, by_gan = pulls(rec, gan, layer)
    return (by_rec / (by_gan + 1e-4)).norm().clamp(0, 1e4)


@wrong("06.adaptive_weight")
def row_by_row(rec, gan, layer):
    by_rec, by_gan = (pull.flatten(1).norm(dim=1) for pull in pulls(rec, gan, layer))
    return (by_rec / (by_gan + 1e-4)).mean().clamp(0, 1e4)


@wrong("06.adaptive_weight")
def reads_the_layers_gradient(rec, gan, layer):
    rec.backward(retain_graph=True)
    by_rec = layer.grad.clone()
    gan.backward(retain_graph=True)
    return (by_rec.norm() / (layer.grad.norm() + 1e-4)).clamp(0, 1e4)


@wrong("06.adaptive_weight")
def cleans_up_too_much(rec, gan, layer):
    layer.grad = None
    return ratio(rec, gan, layer)


@wrong("06.adaptive_weight")
def leaves_the_first_layer_graded(rec, gan, layer):
    """Only the last layer's gradient is put back."""
    kept, norms = layer.grad, []
    for loss in (rec, gan):
        layer.grad = None
        loss.backward(retain_graph=True)
        norms.append(layer.grad.norm())
    layer.grad = kept
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4)


@wrong("06.adaptive_weight")
def frees_both_graphs(rec, gan, layer):
    value = ratio(rec, gan, layer)
    torch.autograd.grad(rec + gan, layer)
    return value


@wrong("06.adaptive_weight")
def freezes_the_layer(rec, gan, layer):
    value = ratio(rec, gan, layer)
    layer.requires_grad_(False)
    return value


@wrong("06.adaptive_weight")
def trains_the_layer(rec, gan, layer):
    value = ratio(rec, gan, layer)
    with torch.no_grad():
        layer.sub_(0.1 * layer)
    return value


several(
    "06.adaptive_weight",
    lambda *args: ratio(*args, most=1e3),
    lambda *args: ratio(*args, most=1e5),
    lambda *args: ratio(*args, add=1e-3),
    lambda *args: ratio(*args, add=1e-6),
    lambda *args: ratio(*args).item(),
    lambda *args: ratio(*args)[None],
    lambda *args: ratio(*args).requires_grad_(),
    lambda *args: ratio(*args).clamp(0, 1),
    lambda rec, gan, layer: ratio(rec, gan, layer) * gan,
    lambda rec, gan, layer: ratio(rec.detach().requires_grad_(), gan, layer),
)

several(
    "06.receptive_field",
    lambda kernels, strides: get("06.receptive_field").reference(kernels, strides[::-1]),
    lambda kernels, strides: get("06.receptive_field").reference(kernels[::-1], strides),
    lambda kernels, strides: float(get("06.receptive_field").reference(kernels, strides)),
    lambda kernels, strides: 1 + sum((k - 1) * s for k, s in zip(kernels, strides, strict=True)),
    lambda kernels, strides: 1 + sum((k // 2) * 2 * math.prod(strides[:i]) for i, k in enumerate(kernels)),
)


def shares_of(indices, n_embed):
    return torch.bincount(indices.flatten(), minlength=n_embed) / indices.numel()


several(
    "06.perplexity",
    lambda indices, n: 1 / shares_of(indices, n).square().sum(),
    lambda indices, n: torch.exp(torch.special.entr(shares_of(indices, n)).sum())[None],
    lambda indices, n: 2 ** torch.special.entr(shares_of(indices, n)).sum(),
    lambda indices, n: torch.exp(torch.special.entr(shares_of(indices, n)).sum()).round(),
    lambda indices, n: torch.exp(torch.special.entr(shares_of(indices, n)).sum()).long(),
    lambda indices, n: torch.exp(torch.special.entr(shares_of(indices, n)[1:]).sum()),
    lambda indices, n: torch.stack(
        [torch.exp(torch.special.entr(shares_of(row, n)).sum()) for row in indices.reshape(len(indices), -1)]
    ).mean(),
    lambda indices, n: torch.exp(torch.special.entr(torch.softmax(shares_of(indices, n), 0)).sum()),
    lambda indices, n: torch.exp(-torch.log(shares_of(indices, n) + 1e-10).mean()),
)


@right("06.perplexity")
def by_distribution(indices, n_embed):
    return Categorical(probs=shares_of(indices, n_embed)).perplexity()
