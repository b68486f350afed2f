"""Wrong answers that newcomers really give about weights, receptive fields and perplexity, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake

ADOPT = (
    Mistake(
        "one step late",
        lambda weight, step, threshold, value=0.0: weight if step > threshold else value,
        "At the threshold itself you still return `value`.",
        "“From it on” includes it; steps are counted from 0.",
        "with a threshold of 0, which steps should have the full weight?",
    ),
    Mistake(
        "the other way round",
        lambda weight, step, threshold, value=0.0: weight if step < threshold else value,
        "You return `weight` before the threshold and `value` after it.",
        "The critic waits until the pictures are worth judging.",
        "what should a critic say to the first, grey reconstructions?",
    ),
    Mistake(
        "always zero before",
        lambda weight, step, threshold, value=0.0: weight if step >= threshold else 0.0,
        "Before the threshold you return 0, whatever `value` is.",
        "`value` is what counts before; 0 is only what it is when nobody says otherwise.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "ramp",
        lambda weight, step, threshold, value=0.0: weight * min(1.0, step / threshold) if threshold else weight,
        "Your weight rises bit by bit.",
        "A gentle start is a fair idea, but here it is a switch: `value`, and then `weight`.",
        "what should step threshold − 1 give?",
    ),
    Mistake(
        "value added",
        lambda weight, step, threshold, value=0.0: value + (weight if step >= threshold else 0.0),
        "You add `value` to the weight.",
        "It stands in the weight's place until the threshold, and is gone then.",
        "what should your function return long after the threshold?",
    ),
    Mistake(
        "weight always",
        lambda weight, step, threshold, value=0.0: weight,
        "You return `weight` at every step.",
        "A critic from the first step on judges noise, and learns that noise is fake.",
        "which of the arguments does your function never use?",
    ),
)


def _grad(loss, layer, **options):
    return torch.autograd.grad(loss, layer, retain_graph=True, **options)[0]


def _adaptive(rec, gan, layer, size=torch.norm, eps=1e-4, most=1e4, **options):
    by_rec, by_gan = size(_grad(rec, layer, **options)), size(_grad(gan, layer, **options))
    ratio = by_rec / (by_gan + eps)
    return ratio if most is None else ratio.clamp(0, most)


def _by_backward(rec, gan, layer):
    layer.grad = None
    rec.backward(retain_graph=True)
    by_rec = layer.grad.norm()
    layer.grad = None
    gan.backward(retain_graph=True)
    by_gan = layer.grad.norm()
    layer.grad = None
    return (by_rec / (by_gan + 1e-4)).clamp(0, 1e4)


def _freed(rec, gan, layer):
    by_rec = _grad(rec, layer).norm()
    by_gan = torch.autograd.grad(gan, layer)[0].norm()
    return (by_rec / (by_gan + 1e-4)).clamp(0, 1e4)


def _freed_at_once(rec, gan, layer):
    by_rec, by_gan = (torch.autograd.grad(loss, layer)[0].norm() for loss in (rec, gan))
    return (by_rec / (by_gan + 1e-4)).clamp(0, 1e4)


ADAPTIVE = (
    Mistake(
        "graph freed",
        _freed,
        "The value is right, but then the GAN loss cannot be backpropagated: its graph is gone.",
        "The training step still has to do that. `retain_graph=True` keeps the graph, in the last call as well.",
        "which call of autograd in a training step may be the one that frees the graph?",
    ),
    Mistake(
        "graph freed between",
        _freed_at_once,
        "The second gradient fails: the first call freed the graph that both losses share.",
        "Below the last layer it is the same network. `retain_graph=True` keeps it.",
        "which part of the graph do the two losses have in common?",
    ),
    Mistake(
        "backward",
        _by_backward,
        "The value is right, but every weight's `.grad` has changed: you called `backward`.",
        "The next optimizer step would use what you left there. `torch.autograd.grad(loss, last_layer)` returns a "
        "gradient and stores none.",
        "what was in `last_layer.grad` before your function ran, and what is there now?",
    ),
    Mistake(
        "attached",
        lambda *args: _adaptive(*args, create_graph=True),
        "The value is right, but it is still tied to the losses: it should be detached.",
        "As part of the graph it would be trained itself: the network could lower its loss by lowering the weight.",
        "is this weight a setting or something to learn?",
    ),
    Mistake(
        "upside down",
        lambda rec, gan, layer: _adaptive(gan, rec, layer),
        "Your fraction is upside down.",
        "If the GAN pulls ten times as hard as the reconstruction, its weight must be a tenth.",
        "for ‖∇rec‖ = 1 and ‖∇gan‖ = 10, what should the weight be?",
    ),
    Mistake(
        "losses instead of gradients",
        lambda rec, gan, layer: (rec / (gan.abs() + 1e-4)).clamp(0, 1e4).detach(),
        "You compare the losses, not their gradients.",
        "A loss of 1000 may pull as gently as one of 0.1: what moves weights is the slope.",
        "what does adding 5 to a loss change in training?",
    ),
    Mistake(
        "no clamp",
        lambda *args: _adaptive(*args, most=None),
        "Your weight grows beyond 10⁴ when the GAN's gradient vanishes.",
        "Clamped, one odd step cannot blow up the training.",
        "how large can your weight become for ‖∇gan‖ = 0?",
    ),
    Mistake(
        "nothing added below",
        lambda *args: _adaptive(*args, eps=0.0),
        "Right where the GAN pulls; where it hardly does, your weight is far too large.",
        "10⁻⁴ is added below the line, and decides as soon as the GAN's gradient is of that size. It may well be 0.",
        "for ‖∇rec‖ = 0.1 and ‖∇gan‖ = 0, what should the weight be?",
    ),
    Mistake(
        "squared norms",
        lambda *args: _adaptive(*args, size=lambda slope: slope.square().sum()),
        "You compare squared norms: the roots are missing.",
        "Twice the gradient is twice the step, not four times.",
        "if the GAN pulls twice as hard, by what factor should its weight fall?",
    ),
    Mistake(
        "sum of magnitudes",
        lambda *args: _adaptive(*args, size=lambda slope: slope.abs().sum()),
        "You added up magnitudes (the 1-norm).",
        "Asked for is the length of the gradient: the root of the sum of squares.",
        "how long is the vector (3, 4)?",
    ),
)


def _field(kernels, strides, start=1, grow=None, before=True):
    field, step = start, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        step *= 1 if before else stride
        field += (grow(kernel) if grow else kernel - 1) * step
        step *= stride if before else 1
    return field


FIELD = (
    Mistake(
        "stride too early",
        lambda kernels, strides: _field(kernels, strides, before=False),
        "Each layer's own stride already stretches its kernel.",
        "A stride lets places be left out *after* the kernel has looked: it spreads the layers that follow.",
        "one layer, kernel 3, stride 2: how many pixels does one output see?",
    ),
    Mistake(
        "strides ignored",
        lambda kernels, strides: 1 + sum(kernel - 1 for kernel in kernels),
        "Right without strides only.",
        "After a stride of 2, neighbouring outputs look at places two pixels apart: every later kernel sees twice as "
        "far.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "order of the layers",
        lambda kernels, strides: _field(kernels[::-1], strides[::-1]),
        "You went through the layers from output to input, with the rule for the other direction.",
        "A stride acts on the layers after it: go from input to output, or turn the rule round: (field − 1)·s + k.",
        "does a stride in the very last layer change what one output sees?",
    ),
    Mistake(
        "started at zero",
        lambda kernels, strides: _field(kernels, strides, start=0),
        "You are short by one: the pixel in the middle.",
        "Each layer adds k − 1 steps to what a single pixel sees, and that is 1.",
        "how far sees a network without layers?",
    ),
    Mistake(
        "whole kernels added",
        lambda kernels, strides: _field(kernels, strides, grow=lambda kernel: kernel),
        "Each layer adds k steps in your version.",
        "k taps have k − 1 gaps between them.",
        "how many pixels see two layers of kernel 3, one after the other?",
    ),
    Mistake(
        "product of kernels",
        lambda kernels, strides: math.prod(kernels),
        "You multiplied the kernels.",
        "Fields grow by addition, each kernel stretched by the strides before it. Two kernels of 3 see 5, not 9.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "last stride only",
        lambda kernels, strides: 1 + sum((k - 1) * s for k, s in zip(kernels, (1, *strides[:-1]), strict=True)),
        "Each kernel is stretched by the stride just before it only.",
        "All strides before it count, multiplied: after three strides of 2 a step is 8 pixels long.",
        "how far apart do neighbours look after strides 2, 2, 2?",
    ),
)


def _shares(indices, n_embed):
    return torch.bincount(indices.flatten(), minlength=n_embed) / indices.numel()


PERPLEXITY = (
    Mistake(
        "number of codes used",
        lambda indices, n_embed: (_shares(indices, n_embed) > 0).sum().float(),
        "You counted the codes that occur at all.",
        "A code used once in a million counts as much as a busy one. The perplexity weighs by use.",
        "one code has 99 % of the work, nine share the rest: are ten in use?",
    ),
    Mistake(
        "entropy",
        lambda indices, n_embed: torch.special.entr(_shares(indices, n_embed)).sum(),
        "You return the entropy.",
        "Its exponential counts codes: 8 codes used equally give 8, and not ln 8.",
        "what should your function say when all n_embed codes are used equally?",
    ),
    Mistake(
        "zero times minus infinity",
        lambda indices, n_embed: torch.exp(-(_shares(indices, n_embed) * torch.log(_shares(indices, n_embed))).sum()),
        "Right as long as every code occurs; an unused one makes it NaN.",
        "0 · ln 0 should be 0, but is 0 · (−∞) in floats. Add 1e-10 inside the logarithm, or leave unused codes out.",
        "what is `torch.log(torch.tensor(0.0))`?",
    ),
    Mistake(
        "minus forgotten",
        lambda indices, n_embed: torch.exp(-torch.special.entr(_shares(indices, n_embed)).sum()),
        "You return one over the perplexity: a minus is missing.",
        "Logarithms of shares are negative; the entropy is minus their mean.",
        "can a number of codes be below 1?",
    ),
    Mistake(
        "bits and e mixed",
        lambda indices, n_embed: torch.exp(torch.special.entr(_shares(indices, n_embed)).sum() / math.log(2)),
        "You took the entropy in bits and then e to its power.",
        "Logarithm and power need one base: ln with e, or log2 with 2.",
        "for 8 equal codes the entropy is 3 bits: what is e³, and what 2³?",
    ),
    Mistake(
        "averaged over the codes",
        lambda indices, n_embed: torch.exp(torch.special.entr(_shares(indices, n_embed)).mean()),
        "You averaged over the codes instead of summing.",
        "The shares p already are the weights of an average: Σ p · (−ln p).",
        "what does your function say when all n_embed codes are used equally?",
    ),
    Mistake(
        "divided by n_embed",
        lambda indices, n_embed: torch.exp(torch.special.entr(_shares(indices, n_embed)).sum()) / n_embed,
        "You return the share of the codebook that is in use.",
        "A useful number too, but asked for is the number of codes, between 1 and n_embed.",
        "what should your function say when all n_embed codes are used equally?",
    ),
)
