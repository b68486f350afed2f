"""Wrong answers that newcomers really give about the posterior, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake


def at(a, t, x):
    return a[t].reshape(-1, *[1] * (x.ndim - 1))


def _tables(x, t, betas, first=1.0):
    """β, ᾱ and ᾱ of the step before, for every sample; `first` stands before the first step."""
    a = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.full_like(a[:1], first), a[:-1]])
    return at(betas, t, x), at(a, t, x), at(before, t, x)


def _finish(mean, var, least=1e-20):
    return mean, var, torch.log(var.clamp(min=least))


def posterior(x0, x, t, betas):
    b, a, p = _tables(x, t, betas)
    mean = p.sqrt() * b / (1 - a) * x0 + (1 - b).sqrt() * (1 - p) / (1 - a) * x
    return _finish(mean, b * (1 - p) / (1 - a))


def blog_posterior(x0, x, t, betas):
    b, a, p = _tables(x, t, betas)
    mean = p.sqrt() * b / (1 - a) * x0 + a.sqrt() * (1 - p) / (1 - a) * x
    return _finish(mean, b * (1 - p) / (1 - a))


def _alpha_without_root(x0, x, t, betas):
    b, a, p = _tables(x, t, betas)
    mean = p.sqrt() * b / (1 - a) * x0 + (1 - b) * (1 - p) / (1 - a) * x
    return _finish(mean, b * (1 - p) / (1 - a))


def _swapped(x0, x, t, betas):
    b, a, p = _tables(x, t, betas)
    mean = p.sqrt() * b / (1 - a) * x + (1 - b).sqrt() * (1 - p) / (1 - a) * x0
    return _finish(mean, b * (1 - p) / (1 - a))


def _large_variance(x0, x, t, betas):
    mean, var, _ = posterior(x0, x, t, betas)
    return _finish(mean, at(betas, t, x))


def _wrapped_around(x0, x, t, betas):
    a = torch.cumprod(1 - betas, 0)
    b, a, p = at(betas, t, x), at(a, t, x), at(a.roll(1), t, x)
    mean = p.sqrt() * b / (1 - a) * x0 + (1 - b).sqrt() * (1 - p) / (1 - a) * x
    return _finish(mean, b * (1 - p) / (1 - a))


def _deviation(x0, x, t, betas):
    mean, var, log_var = posterior(x0, x, t, betas)
    return mean, var.sqrt(), log_var


def _not_clamped(x0, x, t, betas):
    mean, var, _ = posterior(x0, x, t, betas)
    return mean, var, torch.log(var)


def _early_clamp(x0, x, t, betas):
    mean, var, log_var = posterior(x0, x, t, betas)
    return mean, var, torch.log(var.clamp(min=1e-8))


Q_POSTERIOR = (
    Mistake(
        "√ᾱ for √α",
        blog_posterior,
        "Your mean leans too little on x_t: its coefficient has √ᾱ_t where √α_t belongs. Variances are right.",
        "You are in good company, a widely read blog prints the same. x_t comes from x_{t−1} by ONE step, hence "
        "α_t without the bar.",
        "if x_t and x0 are both on the noiseless path, x_t = √ᾱ_t·x0, is your mean √ᾱ_{t−1}·x0?",
    ),
    Mistake(
        "α without its root",
        _alpha_without_root,
        "The coefficient of x_t has α_t where √α_t belongs. Variances are right.",
        "One step multiplies the clip by √α_t = √(1 − β_t), and that factor comes back here.",
        "what did `noise_one_step` multiply x_{t−1} by?",
    ),
    Mistake(
        "x0 and x_t swapped",
        _swapped,
        "The coefficients of x0 and x_t have changed places.",
        "Late in the noising one step changes little: x_{t−1} is near x_t, and the large coefficient belongs to it.",
        "at t = 0 the step before is x0 itself: which coefficient must be 1 there?",
    ),
    Mistake(
        "β as variance",
        _large_variance,
        "Your mean is right; as variance you return β_t.",
        "β_t is the variance of one step *forward*. Knowing where the clip started leaves less doubt: β_t(1 − "
        "ᾱ_{t−1})/(1 − ᾱ_t).",
        "at t = 0, with x0 in your hand, how much doubt is left about x_{−1} = x0?",
    ),
    Mistake(
        "ᾱ before the first step",
        _wrapped_around,
        "Everything is right except t = 0: for ᾱ_{−1} you took the last entry of the schedule.",
        "An index of −1 (or `roll`) wraps around. Before the first step nothing is lost yet: ᾱ_{−1} = 1.",
        "how much of the clip is left before any noise was added?",
    ),
    Mistake(
        "standard deviation",
        _deviation,
        "Your `var` is its own square root.",
        "Asked for is the variance; the sampler takes the root.",
        "does e^log_var equal your `var`?",
    ),
    Mistake(
        "logarithm of zero",
        _not_clamped,
        "Everything is right except `log_var` at t = 0, where it is −∞.",
        "There the variance is exactly 0. `var.clamp(min=1e-20)` before the logarithm keeps the number finite.",
        "what happens to a loss in which a single term is infinite?",
    ),
    Mistake(
        "floor too high",
        _early_clamp,
        "`log_var` at t = 0 stops too early.",
        "The agreed floor of the variance is 1e-20; a higher one would add visible noise to the last step.",
        "what is log 1e-20?",
    ),
)
