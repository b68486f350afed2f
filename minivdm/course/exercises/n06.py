"""Exercises of notebook 06: what a critic is paid for, how steep and how loud it may be, how far it sees."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n06_balance_mistakes as balance_mistakes
from minivdm.course.exercises import n06_critic_mistakes as critic_mistakes
from minivdm.course.exercises.n06_critics import Critic, keeps_the_graph, leaves_no_trace, losses_on, with_own_critic
from minivdm.course.exercises.n06_penalty_mistakes import PENALTY
from minivdm.course.inputs import randn, uniform


def hinge_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def vanilla_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def wgan_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (fake.mean() - real.mean())


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    share = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def adopt_weight(weight: float, step: int, threshold: int, value: float = 0.0) -> float:
    return weight if step >= threshold else value


def adaptive_weight(rec_loss: Tensor, gan_loss: Tensor, last_layer: Tensor) -> Tensor:
    (by_rec,) = torch.autograd.grad(rec_loss, last_layer, retain_graph=True)
    (by_gan,) = torch.autograd.grad(gan_loss, last_layer, retain_graph=True)
    return (by_rec.norm() / (by_gan.norm() + 1e-4)).clamp(max=1e4)


def receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    field, step = 1, 1  # in input pixels: how far one output sees, and how far apart two neighbours look
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field


def perplexity(indices: Tensor, n_embed: int) -> Tensor:
    shares = torch.bincount(indices.flatten(), minlength=n_embed) / indices.numel()
    return torch.exp(torch.special.entr(shares).sum())


def _score_cases(g: torch.Generator) -> list[Case]:
    def case(
        real: tuple[int, ...], fake: tuple[int, ...], scale: float, lead: float, note: str, **dtype: torch.dtype
    ) -> Case:
        scores = {"real": lead + scale * randn(g, *real, **dtype), "fake": scale * randn(g, *fake, **dtype)}
        return Case(scores, note)

    sure = {"real": torch.tensor([200.0, -200.0, 35.0]), "fake": torch.tensor([-200.0, 1.5, 200.0, -60.0])}
    return [
        case((2, 1, 3, 5, 4), (3, 1, 2, 6, 4), 1.5, 0.5, "patches of films"),
        case((7,), (7,), 0.8, -1.0, "one score per film, by a critic that errs"),
        Case(sure, "very sure scores, up to ±200"),
        case((4, 1, 2, 3), (5, 1, 4, 2), 3.0, 0.5, "patches of pictures in float64", dtype=torch.float64),
    ]


def _penalty_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], scores: tuple[int, ...] | None, note: str, **dtype: torch.dtype) -> Case:
        critic = Critic(g, math.prod(shape[1:]), scores)
        args = {"critic": critic, "real": randn(g, *shape, **dtype), "fake": 0.5 + randn(g, *shape, **dtype)}
        return Case({**args, "alpha": uniform(g, 0.05, 0.95, shape[0], **dtype)}, note, with_own_critic)

    return [
        case((4, 2, 3, 5, 6), (1, 2, 3), "films, a score per patch"),
        case((3, 2, 5, 4), (), "pictures in float64, a score each", dtype=torch.float64),
        case((5, 7), None, "points, one score for all together"),
    ]


def _adopt_cases(g: torch.Generator) -> list[Case]:
    def case(weight: float, step: int, threshold: int, note: str, **value: float) -> Case:
        return Case({"weight": weight, "step": step, "threshold": threshold, **value}, note)

    return [
        case(0.8, 37, 100, "a step long before"),
        case(0.8, 99, 100, "the step before", value=0.25),
        case(0.8, 100, 100, "the threshold itself", value=0.25),
        case(0.7, 341, 100, "a step long after"),
        case(0.6, 0, 0, "no waiting at all", value=0.1),
    ]


def _adaptive_cases(g: torch.Generator) -> list[Case]:
    return [
        losses_on(g, (3, 5, 2), "an ordinary step"),
        losses_on(g, (4, 7), "a GAN gradient of zero, in float64", rec=0.1, gan=0.0, dtype=torch.float64),
        losses_on(g, (2, 6, 3), "a tiny GAN gradient", rec=0.3, gan=3e-4, graded=True),
        losses_on(g, (5, 3, 4), "a GAN gradient of zero and a large other one", rec=40.0, gan=0.0),
        losses_on(g, (2, 4, 3), "a much larger GAN gradient", rec=0.01, gan=30.0, graded=True),
    ]


def _field_cases(g: torch.Generator) -> list[Case]:
    def case(kernels: tuple[int, ...], strides: tuple[int, ...], note: str) -> Case:
        return Case({"kernels": kernels, "strides": strides}, note)

    return [
        case((4, 4, 4, 4, 4), (2, 2, 2, 1, 1), "the PatchGAN of pix2pix"),
        case((3, 5, 2, 7), (2, 1, 3, 2), "four different layers"),
        case((3, 3, 3), (1, 1, 1), "no stride"),
        case((5,), (3,), "a single layer"),
        case((1, 4, 3), (3, 2, 2), "first a layer of single pixels"),
    ]


def _perplexity_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], codes: list[int], n_embed: int, note: str) -> Case:
        drawn = torch.randint(len(codes), (6, *shape), generator=g).amin(0)  # low positions often, high ones rarely
        return Case({"indices": torch.tensor(codes)[drawn], "n_embed": n_embed}, note)

    return [
        case((2, 5, 4, 6), [6, 1, 0, 3, 9, 4], 11, "a film's codes, some never used"),
        case((37,), [0, 2, 1], 3, "a row of codes"),
        Case({"indices": torch.arange(24).reshape(4, 6) % 8, "n_embed": 8}, "every code equally often"),
        case((3, 5), [5], 9, "a collapsed codebook: one code"),
    ]


EXERCISES = (
    Exercise(
        "06.hinge_d_loss",
        hinge_d_loss,
        _score_cases,
        critic_mistakes.HINGE,
        (
            "The critic wants real scores above 1 and fake scores below −1. What is beyond costs nothing, what falls "
            "short costs the distance.",
            "½ (mean max(0, 1 − real) + mean max(0, 1 + fake))",
            "`0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())`",
        ),
        gradients=("real", "fake"),
    ),
    Exercise(
        "06.vanilla_d_loss",
        vanilla_d_loss,
        _score_cases,
        critic_mistakes.VANILLA,
        (
            "A score is the logarithm of odds that a patch is real. The loss is how surprised the critic is by the "
            "truth. Written with exponentials it overflows; there is a function that does not.",
            "½ (mean softplus(−real) + mean softplus(fake)), softplus(x) = ln(1 + eˣ) = −ln σ(−x)",
            "`0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())`",
        ),
        gradients=("real", "fake"),
    ),
    Exercise(
        "06.wgan_d_loss",
        wgan_d_loss,
        _score_cases,
        critic_mistakes.WGAN,
        (
            "The critic simply wants real scores high and fake scores low, as far apart as it can.",
            "½ (mean fake − mean real)",
            "`0.5 * (fake.mean() - real.mean())`",
        ),
        gradients=("real", "fake"),
    ),
    Exercise(
        "06.gradient_penalty",
        gradient_penalty,
        _penalty_cases,
        PENALTY,
        (
            "Between each real film and a fake one, pick a point. How steep is the critic there? One slope per film; "
            "it should be 1. And the critic must be able to learn from this, so the slope itself has to be "
            "differentiable.",
            "x̂ = α·real + (1 − α)·fake, mean over the batch of (‖∇ Σ critic(x̂)‖₂ − 1)², a norm per sample",
            "`(slope,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)`, then "
            "`((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()`",
        ),
        rule=partial(keeps_the_graph, gradient_penalty),
    ),
    Exercise(
        "06.adopt_weight",
        adopt_weight,
        _adopt_cases,
        balance_mistakes.ADOPT,
        (
            "Until its time has come a loss counts little or nothing; from that step on it counts fully.",
            "weight if step ≥ threshold, else value",
            "`weight if step >= threshold else value`",
        ),
    ),
    Exercise(
        "06.adaptive_weight",
        adaptive_weight,
        _adaptive_cases,
        balance_mistakes.ADAPTIVE,
        (
            "How hard does each of the two losses pull at the last layer? Weigh the critic's so that both pull equally "
            "hard. Only look: both losses are still to be trained with, and the weight is a number, not something to "
            "train.",
            "‖∂rec/∂w‖ / (‖∂gan/∂w‖ + 10⁻⁴), clamped to [0, 10⁴], with w the last layer",
            "`torch.autograd.grad(rec_loss, last_layer, retain_graph=True)[0].norm()`, the same for `gan_loss`, then "
            "`(a / (b + 1e-4)).clamp(0, 1e4).detach()`",
        ),
        rule=leaves_no_trace,
    ),
    Exercise(
        "06.receptive_field",
        receptive_field,
        _field_cases,
        balance_mistakes.FIELD,
        (
            "Two neighbours at a layer look at places of the input that lie some pixels apart. A kernel of k adds "
            "k − 1 such steps to what is seen; a stride makes all later steps longer.",
            "field = 1 + Σ_l (k_l − 1) · s_1 · … · s_{l−1}",
            "`field += (kernel - 1) * step`, and only then `step *= stride`, layer by layer, both 1 at first",
        ),
    ),
    Exercise(
        "06.perplexity",
        perplexity,
        _perplexity_cases,
        balance_mistakes.PERPLEXITY,
        (
            "How many codes are really in use? Eight used equally often count as 8, eight of which one does all the "
            "work as little more than 1. The entropy measures it, and its exponential counts it.",
            "exp(−Σ_k p_k ln p_k) with p_k the share of code k, and 0 · ln 0 = 0",
            "`p = torch.bincount(indices.flatten(), minlength=n_embed) / indices.numel()`, then "
            "`torch.exp(-(p * torch.log(p + 1e-10)).sum())`",
        ),
    ),
)
