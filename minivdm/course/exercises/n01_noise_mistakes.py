"""Wrong answers that newcomers really give about noise, signal and divergence, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake

NOISE_ONE_STEP = (
    Mistake(
        "β for √β",
        lambda x, beta, noise: (1 - beta) ** 0.5 * x + beta * noise,
        "Your noise is multiplied by β instead of √β: there is too little of it.",
        "A factor in front of noise of variance 1 gives that factor squared as variance. To add variance β, "
        "multiply by √β.",
        "what is the variance of 0.01 · noise?",
    ),
    Mistake(
        "1 − β for √(1 − β)",
        lambda x, beta, noise: (1 - beta) * x + beta**0.5 * noise,
        "The clip is multiplied by 1 − β instead of √(1 − β): it fades too fast.",
        "The variance must stay 1, and it is squares of factors that add: (1 − β) + β = 1.",
        "with your factors, what do the squares add up to?",
    ),
    Mistake(
        "linear mix",
        lambda x, beta, noise: (1 - beta) * x + beta * noise,
        "This is the linear mix (1 − β)·x + β·noise, with no roots.",
        "Factors that add to 1 are right for mixing two equal pictures, but independent noise adds in variance: "
        "the mix turns grey.",
        "mix noise with other noise half and half: is the result as strong as either?",
    ),
    Mistake(
        "clip not shrunk",
        lambda x, beta, noise: x + beta**0.5 * noise,
        "You add noise and leave the clip at full strength.",
        "Then the variance grows with every step, without end. Shrinking by √(1 − β) makes room for what is added.",
        "how large would the numbers be after a thousand steps?",
    ),
    Mistake(
        "swapped factors",
        lambda x, beta, noise: beta**0.5 * x + (1 - beta) ** 0.5 * noise,
        "The two factors have changed places: almost all of the clip is gone after one step.",
        "β is small and belongs to the noise; the clip keeps 1 − β.",
        "what should come out when β = 0?",
    ),
    Mistake(
        "noise subtracted",
        lambda x, beta, noise: (1 - beta) ** 0.5 * x - beta**0.5 * noise,
        "Your noise has the opposite sign.",
        "On average nobody could tell, as noise is symmetric; but the network is taught this very noise, so its "
        "sign must match.",
        "what would a perfect network predict, and where would that push the clip?",
    ),
    Mistake(
        "1 + β",
        lambda x, beta, noise: (1 + beta) ** 0.5 * x + beta**0.5 * noise,
        "The clip grows by √(1 + β) instead of shrinking.",
        "It keeps 1 − β of its variance, so that with the noise's β the sum stays 1.",
        "after a thousand steps, is any of your clip gone?",
    ),
)


def _chain(x, betas, noises):
    for beta, noise in zip(betas, noises, strict=True):
        x = (1 - beta) ** 0.5 * x + beta**0.5 * noise
    return x


def _always_from_the_start(x0, betas, noises):
    return (1 - betas[-1]) ** 0.5 * x0 + betas[-1] ** 0.5 * noises[-1]


NOISE_CHAIN = (
    Mistake(
        "last step first",
        lambda x, betas, noises: _chain(x, betas.flip(0), noises.flip(0)),
        "You took the steps in reverse order.",
        "The forward chain begins at t = 0. Late noise lies on top, early noise is already faded; the order can be "
        "seen.",
        "which noise should be the strongest in the result, the first or the last?",
    ),
    Mistake(
        "each step from x0",
        _always_from_the_start,
        "Only your last step counts: every step started again from `x0`.",
        "A chain goes on from where the last step ended.",
        "after the loop, is any trace of `noises[0]` in your result?",
    ),
    Mistake(
        "the same noise each time",
        lambda x, betas, noises: _chain(x, betas, noises[:1].expand_as(noises)),
        "Every step used `noises[0]`.",
        "Independent noises partly cancel, equal ones pile up; the variance then runs away.",
        "what is the variance of noise + noise, and of noise + other noise?",
    ),
    Mistake(
        "first step left out",
        lambda x, betas, noises: _chain(x, betas[1:], noises[1:]),
        "The first step is missing.",
        "Step 0 is a noising step too: x0 is the clean clip before it.",
        "how many steps does your loop take for N betas?",
    ),
    Mistake(
        "last step left out",
        lambda x, betas, noises: _chain(x, betas[:-1], noises[:-1]),
        "The last step is missing.",
        "There are N betas and N noises, hence N steps; `range(N - 1)` makes one too few.",
        "which `t` does your loop end with?",
    ),
    Mistake(
        "β for √β",
        lambda x, betas, noises: _chain_without_root(x, betas, noises),
        "Every noise is multiplied by β instead of √β.",
        "A factor acts on variance squared; the step is the one of `noise_one_step`.",
        "could your loop call the function you wrote a moment ago?",
    ),
)


def _chain_without_root(x, betas, noises):
    for beta, noise in zip(betas, noises, strict=True):
        x = (1 - beta) ** 0.5 * x + beta * noise
    return x


SNR = (
    Mistake(
        "ratio of amplitudes",
        lambda a: (a / (1 - a)).sqrt(),
        "You return the square root of the ratio.",
        "√ᾱ/√(1 − ᾱ) compares amplitudes; a signal-to-noise ratio compares powers, that is variances.",
        "the clip is twice as strong in amplitude: how many times in power?",
    ),
    Mistake(
        "decibels",
        lambda a: 10 * torch.log10(a / (1 - a)),
        "You return decibels.",
        "The plain ratio is asked for; it is 1 (not 0) where clip and noise are equally loud.",
        "what is 0 dB as a plain ratio?",
    ),
    Mistake(
        "logarithm",
        lambda a: torch.log(a / (1 - a)),
        "You return the logarithm of the ratio.",
        "The log-SNR is useful too, but here the plain ratio is asked for.",
        "can the ratio of two variances be negative?",
    ),
    Mistake(
        "noise over signal",
        lambda a: (1 - a) / a,
        "Your fraction is upside down: it grows with t.",
        "ᾱ belongs to the signal and goes on top, 1 − ᾱ to the noise.",
        "should the ratio be large at the beginning or at the end of the noising?",
    ),
    Mistake(
        "root in the numerator only",
        lambda a: a.sqrt() / (1 - a),
        "Only the numerator has a root: an amplitude divided by a variance.",
        "Both must be of one kind. Variances: ᾱ above, 1 − ᾱ below.",
        "what does your ratio give when ᾱ = 1/2, and what should it give?",
    ),
    Mistake(
        "divided by the total",
        lambda a: a,
        "You return ᾱ itself, the signal's share of everything.",
        "Signal to noise divides by the noise alone, 1 − ᾱ.",
        "when signal and noise are equally loud, is the ratio 1 or 1/2?",
    ),
)


def _nearest(a):
    return int((a / (1 - a) - 1).abs().argmin())


FIRST_NOISY_STEP = (
    Mistake(
        "one step early",
        lambda a: int((a / (1 - a) >= 1).sum()) - 1,
        "You return the last step where the signal is still as loud.",
        "Asked for is the step after it, the first where the noise wins. Timesteps start at 0, so a count is "
        "already the next index.",
        "for ᾱ = 0.9, 0.6, 0.3: which index is the first below one half?",
    ),
    Mistake(
        "one step late",
        lambda a: int((a / (1 - a) >= 1).sum()) + 1,
        "You are one step late everywhere.",
        "Timesteps count from 0: after k louder steps (0 … k − 1) the first noisy one is k.",
        "for ᾱ = 0.9, 0.6, 0.3: which index is the first below one half?",
    ),
    Mistake(
        "number of noisy steps",
        lambda a: int((a / (1 - a) < 1).sum()),
        "You count the noisy steps.",
        "Asked for is where they begin, which is the number of steps before them.",
        "if all steps but the first were noisy, what should the answer be?",
    ),
    Mistake(
        "never crossing forgotten",
        lambda a: int((a / (1 - a) < 1).int().argmax()),
        "You are right wherever the noise wins; when it never does, you say 0.",
        "`argmax` over nothing but False returns the first index. Never means N, the step after the last.",
        "what does 0 say about the very first step of such a schedule?",
    ),
    Mistake(
        "amplitude below one half",
        lambda a: int((a.sqrt() >= 0.5).sum()),
        "You looked for √ᾱ < 1/2.",
        "Equal loudness means equal variances: ᾱ = 1 − ᾱ, so it is ᾱ that passes one half.",
        "what is √ᾱ where ᾱ = 1/2?",
    ),
    Mistake(
        "nearest to equal",
        _nearest,
        "You return the step where the ratio is nearest to 1.",
        "Nearest may lie on the louder side. The first step *below* 1 is asked for.",
        "with ratios 1.01 and 0.5, which of the two steps is noisy?",
    ),
)


def _kl(m1, lv1, m2, lv2):
    return 0.5 * (lv2 - lv1 - 1 + torch.exp(lv1 - lv2) + (m1 - m2) ** 2 * torch.exp(-lv2))


GAUSSIAN_KL = (
    Mistake(
        "the other way round",
        lambda m1, lv1, m2, lv2: _kl(m2, lv2, m1, lv1),
        "You computed KL(N2‖N1): the two Gaussians have changed places.",
        "KL is not a distance, it has a direction. The first Gaussian makes the samples, the second is what one "
        "believed.",
        "if N2 is far narrower than N1, which direction is the costly one?",
    ),
    Mistake(
        "½ forgotten",
        lambda m1, lv1, m2, lv2: 2 * _kl(m1, lv1, m2, lv2),
        "You are off by a factor of 2 everywhere.",
        "Every term comes out of the exponent of a Gaussian, −(x − μ)²/(2σ²), and brings its ½ along.",
        "which term of yours carries the ½, and which should?",
    ),
    Mistake(
        "−1 forgotten",
        lambda m1, lv1, m2, lv2: _kl(m1, lv1, m2, lv2) + 0.5,
        "You are off by ½ everywhere.",
        "Without the −1 two equal Gaussians would be half a nat apart; it is the first Gaussian's own expected square.",
        "what does your function give for two equal Gaussians?",
    ),
    Mistake(
        "logvar read as standard deviation",
        lambda m1, lv1, m2, lv2: _kl(m1, 2 * lv1, m2, 2 * lv2),
        "You treated logvar as log σ; it is log σ².",
        "The square is already inside: σ² = e^logvar, with no factor of 2.",
        "what is log σ² in terms of log σ?",
    ),
    Mistake(
        "logvar read as variance",
        lambda m1, lv1, m2, lv2: 0.5 * (torch.log(lv2 / lv1) - 1 + (lv1 + (m1 - m2) ** 2) / lv2),
        "You used logvar as if it were the variance (NaN where it is negative).",
        "Networks predict the logarithm because it may be any number. The variance is `torch.exp(logvar)`.",
        "what would a variance of −1 mean?",
    ),
    Mistake(
        "bits",
        lambda m1, lv1, m2, lv2: _kl(m1, lv1, m2, lv2) / math.log(2),
        "You are off by 1/ln 2 everywhere: these are bits.",
        "Nats are asked for, that is natural logarithms throughout.",
        "how many nats are in one bit?",
    ),
    Mistake(
        "means not squared",
        lambda m1, lv1, m2, lv2: 0.5 * (lv2 - lv1 - 1 + torch.exp(lv1 - lv2) + (m1 - m2) * torch.exp(-lv2)),
        "The difference of the means is not squared, so your KL can be negative.",
        "What counts is how far apart they are, not on which side.",
        "can it cost less than nothing to believe the wrong thing?",
    ),
    Mistake(
        "distance in widths of the first",
        lambda m1, lv1, m2, lv2: 0.5 * (lv2 - lv1 - 1 + torch.exp(lv1 - lv2) + (m1 - m2) ** 2 * torch.exp(-lv1)),
        "You divide the distance of the means by the variance of the first Gaussian.",
        "The believer's own width decides how surprising a distance is, and the believer holds the second.",
        "who is more surprised by a sample 3 away: someone who believes σ = 1 or σ = 10?",
    ),
    Mistake(
        "averaged",
        lambda m1, lv1, m2, lv2: _kl(m1, lv1, m2, lv2).mean(),
        "You return a single average.",
        "Asked for is the KL of every element; whoever calls decides what to sum and what to average.",
        "over which axes should a loss of one clip be summed, and over which averaged?",
    ),
)
