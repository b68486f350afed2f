"""Wrong answers that newcomers really give about schedules, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake


def _linspace(num_steps, start, end):
    return torch.linspace(start, end, num_steps, dtype=torch.float64)


LINEAR_BETAS = (
    Mistake(
        "scaled linear",
        lambda n, start=1e-4, end=0.02: _linspace(n, start**0.5, end**0.5) ** 2,
        "The ends are right and the middle sags: you went evenly from √start to √end and squared.",
        "That is Stable Diffusion's “scaled linear” schedule; the plain one takes equal steps in β itself.",
        "which of the two destroys less of the clip in the first half of the steps?",
    ),
    Mistake(
        "rescaled by 1000 / N",
        lambda n, start=1e-4, end=0.02: _linspace(n, start * 1000 / n, end * 1000 / n),
        "For 1000 steps you are right; for fewer your β grow by 1000/N.",
        "Some libraries rescale so that a short schedule still ends in noise. Here the ends are the arguments, "
        "untouched.",
        "what would that rescaling make of β with N = 10 and end = 0.02?",
    ),
    Mistake(
        "end left out",
        lambda n, start=1e-4, end=0.02: start + (end - start) * torch.arange(n, dtype=torch.float64) / n,
        "You start at `start` but stop one increment short of `end`.",
        "N points have N − 1 gaps between them, and both ends belong to the schedule.",
        "how many fence posts stand on ten metres of fence, one every metre?",
    ),
    Mistake(
        "one step too many",
        lambda n, start=1e-4, end=0.02: _linspace(n + 1, start, end),
        "You return N + 1 values for N steps.",
        "Each step has exactly one β; the clean clip before the first step has none.",
        "which β would you use to get from x_{−1} to x_0, and is there an x_{−1}?",
    ),
    Mistake(
        "backwards",
        lambda n, start=1e-4, end=0.02: _linspace(n, end, start),
        "Your schedule runs from `end` down to `start`.",
        "Noising begins with tiny steps, while there is detail to lose gently, and ends with large ones.",
        "if the largest step came first, what would be left for the thousandth step to teach?",
    ),
    Mistake(
        "even in the logarithm",
        lambda n, start=1e-4, end=0.02: torch.logspace(math.log10(start), math.log10(end), n, dtype=torch.float64),
        "The ends are right, but you multiply by a constant from step to step instead of adding one.",
        "Linear means equal differences; equal ratios make a geometric schedule.",
        "at the middle step, is your β half way between the ends?",
    ),
)


def _cosine(n, s=0.008, power=2, steps=None, dtype=torch.float64):
    t = torch.arange(n + 1, dtype=dtype) / n if steps is None else steps
    return torch.cos((t + s) / (1 + s) * math.pi / 2) ** power


def _betas_of(kept, most=0.9999):
    return (1 - kept[1:] / kept[:-1]).clamp(0, most)


def _no_clamp(n, s=0.008):
    return _betas_of(_cosine(n, s), most=math.inf)


COSINE_BETAS = (
    Mistake(
        "cosine not squared",
        lambda n, s=0.008: _betas_of(_cosine(n, s, power=1)),
        "Your β are about half as large as they should be: the cosine is not squared.",
        "The curve describes ᾱ, a share of variance. The cosine itself would be √ᾱ, the factor in front of the clip.",
        "is √ᾱ or ᾱ the one that, with its noise counterpart, sums to 1?",
    ),
    Mistake(
        "ᾱ instead of β",
        lambda n, s=0.008: _cosine(n, s)[1:] / _cosine(n, s)[0],
        "You return the falling curve ᾱ itself.",
        "The schedule is asked for as β, the share destroyed by each single step; ᾱ is what all steps so far have "
        "left.",
        "if you know ᾱ before and after a step, what did that step keep?",
    ),
    Mistake(
        "α instead of β",
        lambda n, s=0.008: (_cosine(n, s)[1:] / _cosine(n, s)[:-1]).clamp(0, 0.9999),
        "You return what each step keeps, f(t + 1)/f(t).",
        "That is α_t; β_t = 1 − α_t is what the step replaces by noise.",
        "should the first number of the schedule be near 0 or near 1?",
    ),
    Mistake(
        "not clamped",
        _no_clamp,
        "All is right except the last β, which reaches 1.",
        "At the end of the curve f is 0, so the last step would keep nothing at all, and dividing by √ᾱ later "
        "would fail. Hence β ≤ 0.9999.",
        "what is x_{N−1} when the last β is exactly 1, and can any reverse step start from it?",
    ),
    Mistake(
        "clamped at 0.999",
        lambda n, s=0.008: _betas_of(_cosine(n, s), most=0.999),
        "All is right except the last β: you cut at 0.999.",
        "Both limits are in use in well-known libraries; this course (and the code we compare with) cuts at 0.9999.",
        "by which factor do the two limits differ in what the last step keeps?",
    ),
    Mistake(
        "s forgotten",
        lambda n, s=0.008: _betas_of(_cosine(n, 0.0)),
        "Your first β are far too small: the offset s is missing.",
        "At the top a cosine is flat, so the first steps would do next to nothing; s starts a little way down the "
        "slope.",
        "how large is your first β beside the last digit of an 8-bit pixel?",
    ),
    Mistake(
        "s not divided out",
        lambda n, s=0.008: _betas_of(torch.cos((torch.arange(n + 1, dtype=torch.float64) / n + s) * math.pi / 2) ** 2),
        "Near the end your curve has run past its zero: the division by 1 + s is missing.",
        "(t/N + s)/(1 + s) makes the last point land exactly on π/2 again.",
        "where on the cosine are you at t = N?",
    ),
    Mistake(
        "computed in float32",
        lambda n, s=0.008: _betas_of(_cosine(n, s, dtype=torch.float32)),
        "Your first β are right in only two or three digits, although the formula is.",
        "They are 1 minus a number very near 1, and float32 keeps just seven digits of that number. Compute in "
        "float64.",
        "how many correct digits are left of 1 − 0.99996 if 0.99996 is stored with seven?",
    ),
    Mistake(
        "N points instead of N + 1",
        lambda n, s=0.008: _betas_of(_cosine(n, s, steps=torch.linspace(0, 1, n, dtype=torch.float64))),
        "You return N − 1 values: N points on the curve have only N − 1 ratios.",
        "A step lies between two points, so N steps need the N + 1 points t = 0 … N.",
        "which two points does the very first step lie between?",
    ),
)

ALPHAS_CUMPROD = (
    Mistake(
        "product of β",
        lambda betas: torch.cumprod(betas, 0),
        "You multiply the β themselves, so the product collapses at once.",
        "β is what a step destroys. What survives a step is 1 − β, and it is the surviving shares that multiply.",
        "after two steps that destroy 10% each, how much is left?",
    ),
    Mistake(
        "sum instead of product",
        lambda betas: 1 - torch.cumsum(betas, 0),
        "You subtract all β from 1; that is right for the first step only, and in the end goes below zero.",
        "The second step takes its share of what the first has left, not of the original.",
        "can a clip have less than nothing left?",
    ),
    Mistake(
        "1 − product of β",
        lambda betas: 1 - torch.cumprod(betas, 0),
        "Your curve rises towards 1: you took 1 minus the product of the β.",
        "Take 1 − β for each step first, then multiply. The order of the two matters.",
        "should more steps leave more of the clip, or less?",
    ),
    Mistake(
        "square root taken",
        lambda betas: torch.cumprod(1 - betas, 0).sqrt(),
        "You return √ᾱ, the factor in front of the clip.",
        "ᾱ itself is the share of variance that is left. The root comes later, in `q_sample`.",
        "which of the two adds up to 1 with the variance of the noise?",
    ),
    Mistake(
        "one step late",
        lambda betas: torch.cat([torch.ones_like(betas[:1]), torch.cumprod(1 - betas, 0)[:-1]]),
        "Your curve is right but one step late: it begins with 1.",
        "In this course t = 0 has already had one noising step, so the first entry is 1 − β_0.",
        "if ᾱ_0 were 1, what would a network learn from samples with t = 0?",
    ),
    Mistake(
        "only the total",
        lambda betas: torch.prod(1 - betas),
        "You return one number, what is left at the very end.",
        "We need it after every step: a running product.",
        "which t would your single number be for?",
    ),
    Mistake(
        "α without the product",
        lambda betas: 1 - betas,
        "You return what each single step keeps; only the first entry is right.",
        "ᾱ_t collects all the steps from 0 to t. The bar stands for that product.",
        "does your curve fall from step to step?",
    ),
)
