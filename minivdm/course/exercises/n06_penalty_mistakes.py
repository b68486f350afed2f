"""Wrong answers that newcomers really give about the penalty on a critic's slope, and what to say to each."""

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _penalty(critic, real, fake, alpha, pull=None, norm=None, create_graph=True):
    alpha = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=create_graph)
    size = norm(slope) if norm else slope.flatten(1).norm(dim=1)
    return (pull(size) if pull else (size - 1) ** 2).mean()


def _at(place):
    """The slope at another place than the mixture."""
    return lambda critic, real, fake, alpha: _penalty(critic, *place(real, fake), alpha)


def _for_films(critic, real, fake, alpha):
    alpha = alpha.reshape(-1, 1, 1, 1, 1)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def _unasked(critic, real, fake, alpha):
    alpha = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (alpha * real + (1 - alpha) * fake).detach()
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def _unsummed(critic, real, fake, alpha):
    alpha = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed), mixed, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def _by_backward(critic, real, fake, alpha):
    alpha = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    critic(mixed).sum().backward(create_graph=True)
    return ((mixed.grad.flatten(1).norm(dim=1) - 1) ** 2).mean()


PENALTY = (
    Mistake(
        "no graph",
        lambda *args: _penalty(*args, create_graph=False),
        "The value is right, but the critic cannot learn from it: its weights get no gradient.",
        "The penalty contains a derivative; to train with it, that derivative must be differentiable itself: "
        "`create_graph=True`.",
        "what would this penalty change in training?",
    ),
    Mistake(
        "one norm for the batch",
        lambda *args: _penalty(*args, norm=lambda slope: slope.norm()),
        "You took one norm over the whole batch.",
        "Each film has a slope of its own, and each should be 1. Together B slopes of 1 have a norm of √B.",
        "which axes of the slope belong to one sample?",
    ),
    Mistake(
        "norm over channels only",
        lambda *args: _penalty(*args, norm=lambda slope: slope.norm(dim=1)),
        "You took the norm over axis 1 only, one for every pixel.",
        "The slope of a film is one long vector, with a component for each of its numbers: flatten all but the batch.",
        "how many norms do you get for a batch of 4?",
    ),
    Mistake(
        "alpha exchanged",
        lambda critic, real, fake, alpha: _penalty(critic, fake, real, alpha),
        "Your mixture takes alpha of the fake film and 1 − alpha of the real one.",
        "Drawn evenly it would be the same on average; here α is the share of the real one.",
        "what should x̂ be for α = 1?",
    ),
    Mistake(
        "times ten",
        lambda *args: 10 * _penalty(*args),
        "Your value is ten times as large: you included the paper's λ = 10.",
        "The factor is a choice of training; this function returns the bare penalty.",
        "what should the penalty be where all slopes are 0?",
    ),
    Mistake(
        "pulled towards zero",
        lambda *args: _penalty(*args, pull=lambda size: size**2),
        "You penalise every slope: the − 1 is missing.",
        "(‖∇‖ − 1)² draws the slope towards 1. Towards 0 is another penalty (R1), taken at real films.",
        "what is the best critic under your penalty?",
    ),
    Mistake(
        "one-sided",
        lambda *args: _penalty(*args, pull=lambda size: F.relu(size - 1) ** 2),
        "You penalise only slopes above 1.",
        "That is a known variant (the “one-sided” penalty); here slopes below 1 count as well.",
        "what does your function say to a critic of slope 0?",
    ),
    Mistake(
        "not squared",
        lambda *args: _penalty(*args, pull=lambda size: (size - 1).abs()),
        "You took the distance from 1, without squaring.",
        "The square is gentle near 1 and strict far away.",
        "what slope has your penalty at ‖∇‖ = 1.01?",
    ),
    Mistake(
        "squared norm",
        lambda *args: _penalty(*args, norm=lambda slope: slope.flatten(1).square().sum(1)),
        "You compare the squared norm with 1: the root is missing.",
        "Asked for is (‖∇‖ − 1)² with the norm itself.",
        "for a slope of 2, what is ‖∇‖ − 1, and what do you get?",
    ),
    Mistake(
        "at the real film",
        _at(lambda real, fake: (real, real)),
        "You took the slope at the real film.",
        "Between real and fake is where the critic decides: x̂ = α·real + (1 − α)·fake.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "gradients left behind",
        _by_backward,
        "The value is right, but `backward` has also written gradients into the critic's weights.",
        "The critic's optimizer would take them for part of its loss. `torch.autograd.grad` returns a gradient and "
        "stores none.",
        "what would happen to them at the next optimizer step?",
    ),
    Mistake(
        "gradients not asked for",
        _unasked,
        "Torch keeps no record of x̂: nobody told it that you will ask for a slope there.",
        "A film is no weight; it needs `requires_grad_(True)` before the critic sees it.",
        "for which tensors does autograd keep records?",
    ),
    Mistake(
        "scores not summed",
        _unsummed,
        "Right for a single score; with several, torch does not know of which one you want the slope.",
        "Sum them: a film's scores do not depend on the other films, so each film gets its own slope all the same.",
        "what is the derivative of critic(x₀) + critic(x₁) in x₀?",
    ),
    Mistake(
        "for films only",
        _for_films,
        "Right for films (B, C, T, H, W), wrong for pictures and points.",
        "The number of axes that α needs comes from `real`: one 1 for each axis but the batch. A critic of single "
        "frames needs the penalty too.",
        "how many ones are needed for a `real` of rank n?",
    ),
)
