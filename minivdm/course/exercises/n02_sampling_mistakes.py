"""Wrong answers that newcomers really give about a step of a sampler, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake
from minivdm.course.exercises.n02_posterior_mistakes import at, blog_posterior
from minivdm.course.exercises.n02_posterior_mistakes import posterior as true_posterior


def _x0(x, t, noise, betas):
    a = at(torch.cumprod(1 - betas, 0), t, x)
    return (x - (1 - a).sqrt() * noise) / a.sqrt()


def _step(x, t, noise, z, betas, clip, posterior=true_posterior, spread=lambda var, betas_t: var.sqrt()):
    x0 = _x0(x, t, noise, betas)
    mean, var, _ = posterior(x0.clamp(-1, 1) if clip else x0, x, t, betas)
    return mean + spread(var, at(betas, t, x)) * z


def _noise_at_the_end(x, t, noise, z, betas, clip=True):
    """The posterior's variance of t = 1 used at t = 0, where the true one is zero."""
    var = true_posterior(x, x, t.clamp(min=1), betas)[1]
    return _step(x, t, noise, z, betas, clip, spread=lambda *_: var.sqrt())


def _beta_noise_masked(x, t, noise, z, betas, clip=True):
    awake = at(torch.ones_like(betas), t, x) * (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return _step(x, t, noise, z, betas, clip, spread=lambda var, b: awake * b.sqrt())


def _one_decision(x, t, noise, z, betas, clip=True):
    return _step(x, t, noise, z if int(t[0]) > 0 else 0 * z, betas, clip, spread=lambda var, b: b.sqrt())


def _clipped_result(x, t, noise, z, betas, clip=True):
    result = _step(x, t, noise, z, betas, False)
    return result.clamp(-1, 1) if clip else result


def _jump_to_x0(x, t, noise, z, betas, clip=True):
    x0 = _x0(x, t, noise, betas)
    return x0.clamp(-1, 1) if clip else x0


P_SAMPLE = (
    Mistake(
        "noise at t = 0",
        lambda x, t, noise, z, betas, clip=True: _step(x, t, noise, z, betas, clip, spread=lambda var, b: b.sqrt()),
        "You add √β_t·z at every step, also at t = 0, where the film is finished.",
        "Two ideas at once: the last step must leave the clean mean alone, and the variance asked for is the "
        "posterior's, "
        "which is 0 there by itself.",
        "who would take the noise of the very last step away again?",
    ),
    Mistake(
        "noise at t = 0 (posterior of t = 1)",
        _noise_at_the_end,
        "Everything is right except the samples with t = 0: they got noise.",
        "The last step returns the mean. Noise added there stays in the film for good.",
        "who would take it away again?",
    ),
    Mistake(
        "β as variance",
        _beta_noise_masked,
        "Only the amount of noise is off: you add √β_t·z.",
        "Both variances occur in papers; here it is the posterior's, β_t(1 − ᾱ_{t−1})/(1 − ᾱ_t), a little smaller.",
        "which of the two knows where the clip started?",
    ),
    Mistake(
        "one decision for the whole batch",
        _one_decision,
        "You decide by `t[0]` for the whole batch whether noise is added (and add √β_t·z).",
        "Each sample has its own t: those at t = 0 get no noise, whatever their neighbours do.",
        "what shape must a mask have that is True for some clips of a batch?",
    ),
    Mistake(
        "variance for its root",
        lambda x, t, noise, z, betas, clip=True: _step(x, t, noise, z, betas, clip, spread=lambda var, b: var),
        "You multiply z by the variance instead of its square root: too little noise.",
        "A factor acts on variance squared; to get variance v, multiply by √v.",
        "what is the variance of 0.01·z?",
    ),
    Mistake(
        "never clipped",
        lambda x, t, noise, z, betas, clip=True: _step(x, t, noise, z, betas, False),
        "Right with `clip=False`; with `clip=True` your predicted x0 still leaves [−1, 1].",
        "Early guesses of x0 are wild, and every step built on them wanders further off. Clips live in [−1, 1].",
        "is a pixel of brightness 7 possible in the training data?",
    ),
    Mistake(
        "always clipped",
        lambda x, t, noise, z, betas, clip=True: _step(x, t, noise, z, betas, True),
        "Right with `clip=True`; you clip with `clip=False` as well.",
        "Data without bounds (the points of this lesson, latents later) must not be cut, hence the switch.",
        "where does your function look at `clip`?",
    ),
    Mistake(
        "result clipped, not x0",
        _clipped_result,
        "You clamp x_{t−1} itself instead of the predicted x0.",
        "x_{t−1} is clip plus noise and may well leave [−1, 1]; only the clean clip is bounded.",
        "how much of standard normal noise lies beyond ±1?",
    ),
    Mistake(
        "√ᾱ for √α",
        lambda x, t, noise, z, betas, clip=True: _step(x, t, noise, z, betas, clip, posterior=blog_posterior),
        "Your step uses the blog's posterior mean, with √ᾱ_t where √α_t belongs.",
        "x_t comes from x_{t−1} by one step, hence α_t without the bar.",
        "could your function call the `q_posterior` that has passed its check?",
    ),
    Mistake(
        "straight to x0",
        _jump_to_x0,
        "You return the predicted x0.",
        "It is only a guess, far too sure of itself while t is large. One reverse step goes from x_t to x_{t−1}.",
        "if one guess were enough, why would there be a thousand steps?",
    ),
)


def _ddim(x, t, t_prev, noise, z, a, eta, *, clip=False, keep_all=False, sigma_of=None, prev=None):
    before = torch.cat([torch.ones_like(a[:1]), a])
    now, then = at(a, t, x), at(before, t_prev + 1, x) if prev is None else prev
    sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    sigma = sigma if sigma_of is None else sigma_of(sigma, now, then)
    x0 = (x - (1 - now).sqrt() * noise) / now.sqrt()
    direction = 1 - then - (0 if keep_all else sigma**2)
    return then.sqrt() * (x0.clamp(-1, 1) if clip else x0) + direction.sqrt() * noise + sigma * z


def _last_entry_for_clean(x, t, t_prev, noise, z, a, eta):
    return _ddim(x, t, t_prev, noise, z, a, eta, prev=at(a, t_prev, x))


def _next_neighbour(x, t, t_prev, noise, z, a, eta):
    return _ddim(x, t, t - 1, noise, z, a, eta)


def _x0_not_shrunk(x, t, t_prev, noise, z, a, eta):
    then = at(torch.cat([torch.ones_like(a[:1]), a]), t_prev + 1, x)
    x0 = (x - (1 - at(a, t, x)).sqrt() * noise) / at(a, t, x).sqrt()
    return _ddim(x, t, t_prev, noise, z, a, eta) + (1 - then.sqrt()) * x0


DDIM_STEP = (
    Mistake(
        "t_prev = −1 wraps around",
        _last_entry_for_clean,
        "Wherever t_prev is −1 you took the last entry of the schedule, so the final step leaves the film in noise.",
        "Index −1 means “the last” to Python and “clean” to us: there ᾱ = 1.",
        "how could you put a 1 in front of the schedule and shift the index?",
    ),
    Mistake(
        "t − 1 for t_prev",
        _next_neighbour,
        "You step to t − 1 instead of `t_prev`.",
        "The whole point of DDIM is that it may leap: from 900 to 800 in one step.",
        "where in your function does `t_prev` occur?",
    ),
    Mistake(
        "σ² not taken out",
        lambda *args: _ddim(*args, keep_all=True),
        "Right for eta = 0; with eta > 0 there is too much noise, as the predicted noise kept its full share.",
        "Old and new noise together have variance 1 − ᾱ_prev: new noise σ² must come out of the old one's share.",
        "what are the squares of your two noise factors, summed?",
    ),
    Mistake(
        "x0 clipped",
        lambda *args: _ddim(*args, clip=True),
        "You clamp the predicted x0 to [−1, 1].",
        "In this exercise nothing is clipped: the step must be exactly invertible for eta = 0.",
        "can a clipped value tell you what it was before?",
    ),
    Mistake(
        "eta left out",
        lambda x, t, t_prev, noise, z, a, eta: _ddim(x, t, t_prev, noise, z, a, 1.0),
        "You always add the full noise, as with eta = 1.",
        "eta scales σ: 0 makes the step deterministic, 1 gives DDPM's noise.",
        "what should two runs with eta = 0 and different z have in common?",
    ),
    Mistake(
        "eta squared",
        lambda x, t, t_prev, noise, z, a, eta: _ddim(x, t, t_prev, noise, z, a, eta**2),
        "Right for eta = 0 and 1, too little noise between: eta is squared in your σ.",
        "eta multiplies σ itself, so it stands outside the root (or squared inside it).",
        "did you move eta into the root twice?",
    ),
    Mistake(
        "z left out",
        lambda x, t, t_prev, noise, z, a, eta: _ddim(x, t, t_prev, noise, 0 * z, a, eta),
        "Right for eta = 0; otherwise the new noise σ·z is missing.",
        "You made room for it (√(1 − ᾱ_prev − σ²)) and then left the room empty, so the variance shrinks from step "
        "to step.",
        "which argument does your function never use?",
    ),
    Mistake(
        "σ² for σ",
        lambda *args: _ddim(*args, sigma_of=lambda sigma, now, then: sigma**2),
        "Right for eta = 0; otherwise a square root is missing in σ.",
        "The formula under the root is the variance.",
        "at eta = 1, does σ² equal the variance of the posterior?",
    ),
    Mistake(
        "fraction upside down",
        lambda *args: _ddim(*args, sigma_of=lambda sigma, now, then: sigma * (1 - now) / (1 - then).clamp(min=1e-12)),
        "Right for eta = 0; in your σ the fraction (1 − ᾱ_prev)/(1 − ᾱ_t) is upside down.",
        "On arriving at clean data (ᾱ_prev = 1) no noise may be added, so 1 − ᾱ_prev stands on top.",
        "what is your σ for t_prev = −1?",
    ),
    Mistake(
        "x0 not shrunk",
        _x0_not_shrunk,
        "The predicted x0 enters at full strength; its factor √ᾱ_prev is missing.",
        "At t_prev the clip is still partly noise, and is shrunk accordingly: √ᾱ_prev and √(1 − ᾱ_prev) go together.",
        "do your factors for clip and noise square to a sum of 1?",
    ),
)
