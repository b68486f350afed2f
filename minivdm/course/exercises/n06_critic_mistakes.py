"""Wrong answers that newcomers really give about a critic's losses, and what to say to each."""

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _hinge(real, fake, half=0.5, reduce=torch.mean):
    return half * (reduce(F.relu(1 - real)) + reduce(F.relu(1 + fake)))


def _vanilla(real, fake, half=0.5, reduce=torch.mean):
    return half * (reduce(F.softplus(-real)) + reduce(F.softplus(fake)))


def _together(loss):
    """Real and fake scores in one mean, so that the longer of the two counts more."""

    def wrong(real, fake):
        parts = loss(real, fake)
        return torch.cat([part.flatten() for part in parts]).mean()

    return wrong


def _cross_entropy(real, fake):
    """With probabilities, whose logarithm torch cuts off at −100."""
    parts = (
        F.binary_cross_entropy(real.sigmoid(), torch.ones_like(real)),
        F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake)),
    )
    return 0.5 * sum(parts)


HINGE = (
    Mistake(
        "signs exchanged",
        lambda real, fake: _hinge(-real, -fake),
        "Your critic is paid for low scores on real films: both signs are exchanged.",
        "Real scores should be above 1, so 1 − real is what they lack.",
        "what does your loss say to real = 5, fake = −5?",
    ),
    Mistake(
        "no hinge",
        lambda real, fake: 0.5 * ((1 - real).mean() + (1 + fake).mean()),
        "You left out the max(0, …).",
        "With it the critic rests once a score is on the right side by 1. Without it this is the Wasserstein loss, "
        "plus one.",
        "can your loss become negative?",
    ),
    Mistake(
        "half forgotten",
        lambda real, fake: _hinge(real, fake, half=1.0),
        "Your loss is twice as large: the factor ½ is missing.",
        "It is the mean of two means, one for real and one for fake.",
        "what should the loss be for a critic that always says 0?",
    ),
    Mistake(
        "all scores in one mean",
        _together(lambda real, fake: (F.relu(1 - real), F.relu(1 + fake))),
        "You took one mean over all scores.",
        "Real and fake count equally, however many patches each has: a mean for each of them.",
        "with 9 real and 90 fake patches, how much do the real ones count in your version?",
    ),
    Mistake(
        "summed",
        lambda real, fake: _hinge(real, fake, reduce=torch.sum),
        "You summed over the patches.",
        "Then a larger picture trains with larger steps; the mean keeps them equal.",
        "by what factor does your loss grow when the picture doubles its sides?",
    ),
    Mistake(
        "margin of zero",
        lambda real, fake: 0.5 * (F.relu(-real).mean() + F.relu(fake).mean()),
        "You left out the margin of 1.",
        "Then a critic that always says 0 has nothing to learn.",
        "which slope has your loss at real = 0.1?",
    ),
    Mistake(
        "the generator's loss",
        lambda real, fake: -fake.mean(),
        "This is the generator's side: it wants the fake scores to rise.",
        "The critic's loss looks at both, and pushes the fake ones down.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "detached fake scores",
        lambda real, fake: _hinge(real, fake.detach()),
        "The value is right, but the critic learns nothing from the fake films: you detached their scores.",
        "In training the fake film is detached, before the critic sees it: that spares the generator, not the critic.",
        "if both scores came detached, what could the critic learn?",
    ),
)

VANILLA = (
    Mistake(
        "logarithm of the sigmoid",
        lambda real, fake: -0.5 * (torch.log(real.sigmoid()).mean() + torch.log(1 - fake.sigmoid()).mean()),
        "Right for small scores; for large ones your loss is infinite.",
        "In float32 the sigmoid of −200 is exactly 0 and its logarithm −∞. `softplus` computes the same without the "
        "detour.",
        "what are σ(−200) and ln σ(−200) as real numbers?",
    ),
    Mistake(
        "exponential written out",
        lambda real, fake: 0.5 * (torch.log(1 + torch.exp(-real)).mean() + torch.log(1 + torch.exp(fake)).mean()),
        "Right for small scores; for large ones the exponential overflows.",
        "e²⁰⁰ is no float32, yet ln(1 + e²⁰⁰) is simply 200. `F.softplus` knows that.",
        "for large x, what is ln(1 + eˣ) nearly?",
    ),
    Mistake(
        "cross-entropy of probabilities",
        _cross_entropy,
        "Right for small scores; large ones are cut off.",
        "`F.binary_cross_entropy` takes probabilities and stops at a loss of 100, where it also has no slope any more. "
        "The version “with logits” does not.",
        "how does a critic get back that is very sure and very wrong?",
    ),
    Mistake(
        "signs exchanged",
        lambda real, fake: _vanilla(-real, -fake),
        "Both signs are exchanged: your critic is paid for mistaking real for fake.",
        "A high score says “real”: softplus(−real) is small when the real score is high.",
        "what does your loss say to real = 5, fake = −5?",
    ),
    Mistake(
        "half forgotten",
        lambda real, fake: _vanilla(real, fake, half=1.0),
        "Your loss is twice as large: the factor ½ is missing.",
        "It is the mean of two means, one for real and one for fake.",
        "a critic that knows nothing says 0: is your loss ln 2?",
    ),
    Mistake(
        "all scores in one mean",
        _together(lambda real, fake: (F.softplus(-real), F.softplus(fake))),
        "You took one mean over all scores.",
        "Real and fake count equally, however many patches each has: a mean for each of them.",
        "with 9 real and 90 fake patches, how much do the real ones count in your version?",
    ),
    Mistake(
        "fake as real",
        lambda real, fake: 0.5 * (F.softplus(-real).mean() + F.softplus(-fake).mean()),
        "You ask for high scores on fake films too.",
        "Their target is “not real”: softplus(fake), without the minus.",
        "what would a critic learn that is paid for saying “real” to everything?",
    ),
    Mistake(
        "summed",
        lambda real, fake: _vanilla(real, fake, reduce=torch.sum),
        "You summed over the patches.",
        "Then a larger picture trains with larger steps; the mean keeps them equal.",
        "by what factor does your loss grow when the picture doubles its sides?",
    ),
)

WGAN = (
    Mistake(
        "sign flipped",
        lambda real, fake: 0.5 * (real.mean() - fake.mean()),
        "Your critic wants fake scores above real ones.",
        "A loss is made small: mean fake − mean real is small when real scores are high.",
        "what does your loss say to real = 5, fake = −5?",
    ),
    Mistake(
        "half forgotten",
        lambda real, fake: fake.mean() - real.mean(),
        "Your loss is twice as large: the factor ½ is missing.",
        "The papers have none; here all three losses carry it, so that they can be compared.",
        "what should the loss be for real = 1, fake = −1 everywhere?",
    ),
    Mistake(
        "added",
        lambda real, fake: 0.5 * (fake.mean() + real.mean()),
        "You add the two means.",
        "The critic is paid for the difference; with a sum it would simply say less and less about everything.",
        "what would your critic say to a real film after long training?",
    ),
    Mistake(
        "distance",
        lambda real, fake: 0.5 * (fake.mean() - real.mean()).abs(),
        "You took the absolute value.",
        "Then the critic wants real and fake as near as possible. The sign says which of them should be higher.",
        "may this loss become negative?",
    ),
    Mistake(
        "hinge",
        _hinge,
        "This is the hinge loss.",
        "Wasserstein's has no margin: it never rests, which is why it needs a penalty on the critic's slope.",
        "where has your loss a slope of zero?",
    ),
    Mistake(
        "all scores in one mean",
        _together(lambda real, fake: (-real, fake)),
        "You took one mean over all scores.",
        "Real and fake count equally, however many patches each has: a mean for each of them.",
        "with 9 real and 90 fake patches, how much do the real ones count in your version?",
    ),
    Mistake(
        "the generator's loss",
        lambda real, fake: -fake.mean(),
        "This is the generator's side: it wants the fake scores to rise.",
        "The critic pushes them down, and the real ones up.",
        "which of the arguments does your function never use?",
    ),
)
