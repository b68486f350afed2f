"""Wrong answers that newcomers really give about averages, accumulation and loss scaling."""

import torch

from minivdm.course.exercise import Mistake


def _average(ema, value, decay, step, combine=min, add=(1, 10)):
    now = combine(decay, (add[0] + step) / (add[1] + step))
    return now * ema + (1 - now) * value


EMA = (
    Mistake(
        "no warm-up",
        lambda ema, value, decay, step: decay * ema + (1 - decay) * value,
        "Your decay is the same in every step.",
        "Then the random beginning stays in the average for about 1/(1 − decay) steps: the films are noise, however "
        "good the weights.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "larger of the two",
        lambda *args: _average(*args, combine=max),
        "You take the larger of the two decays.",
        "A warm-up forgets quickly at first, so early on the small one must win; and no decay may be above the final "
        "one.",
        "which decay should the very first step have?",
    ),
    Mistake(
        "shares swapped",
        lambda ema, value, decay, step: _average(value, ema, decay, step),
        "Your shares are swapped: the new weights get the large one.",
        "The average keeps most of itself.",
        "for a decay of 0.999, how much of the average should survive a late step?",
    ),
    Mistake(
        "counted from one",
        lambda *args: _average(*args, add=(2, 11)),
        "Your warm-up is one step ahead.",
        "Steps are counted from 0: the first has a decay of 1/10.",
        "what is (1 + step) / (10 + step) in the first step?",
    ),
    Mistake(
        "one over",
        lambda *args: _average(*args, combine=lambda decay, grown: min(decay, 1 - grown)),
        "Your decay falls from step to step, where it should rise.",
        "(1 + step)/(10 + step) grows from 1/10 towards 1; your factor on the average is its complement.",
        "after a thousand steps, should the average forget faster or more slowly than in the first?",
    ),
    Mistake(
        "warm-up never ends",
        lambda *args: _average(*args, combine=lambda decay, grown: grown),
        "You never reach `decay`: your warm-up goes on for ever.",
        "It grows beyond any limit below 1, and after 5000 steps your average hardly moves any more.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "multiplied",
        lambda *args: _average(*args, combine=lambda decay, grown: decay * grown),
        "You multiply the two decays.",
        "The smaller of them counts: early the warm-up's, later `decay` itself.",
        "is your decay in the first step exactly 1/10?",
    ),
    Mistake(
        "new weights first",
        lambda ema, value, decay, step: value + 0 * ema if step < 10 else decay * ema + (1 - decay) * value,
        "You copy the weights at first and then use the full decay at once.",
        "A fair idea, but asked for is a decay that grows: min(decay, (1 + step)/(10 + step)).",
        "how long does your average remember in step 11, and how long in step 9?",
    ),
)

ACCUMULATE = (
    Mistake(
        "mean of means",
        lambda gradients, sizes: gradients.mean(0),
        "You weigh all batches alike: right only while they have one size.",
        "In a batch of one a clip then counts as much as eight clips in a batch of eight. This mistake was in widely "
        "used training code for years.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "sum",
        lambda gradients, sizes: gradients.sum(0),
        "You add up the gradients.",
        "Each is a mean already. Twice the batches would then be a step twice as long.",
        "for two equal gradients, what is the gradient of all clips together?",
    ),
    Mistake(
        "weighed but not divided",
        lambda gradients, sizes: (sizes[:, None] * gradients).sum(0),
        "You have the sum over all clips, not the mean.",
        "The learning rate belongs to a mean: the step may not grow with the number of clips.",
        "by what must a sum be divided to be a mean?",
    ),
    Mistake(
        "divided by the number of batches",
        lambda gradients, sizes: (sizes[:, None] * gradients).mean(0),
        "You divide by the number of batches, where the sum runs over clips.",
        "The weights of a mean add up to 1.",
        "what do your weights add up to?",
    ),
    Mistake(
        "summed, then divided by clips",
        lambda gradients, sizes: gradients.sum(0) / sizes.sum(),
        "You add up means, and divide by the number of clips.",
        "Each row was divided by its own number of clips before: turn it into a sum first.",
        "for one batch of five clips, what should the result be?",
    ),
    Mistake(
        "divided by the largest",
        lambda gradients, sizes: (sizes[:, None] * gradients).sum(0) / sizes.max() / len(sizes),
        "You act as if all batches were as large as the largest.",
        "A short last batch has fewer clips; the weights of a mean add up to 1.",
        "what do your weights add up to?",
    ),
    Mistake(
        "the last batch only",
        lambda gradients, sizes: gradients[-1].clone(),
        "You keep the last gradient only.",
        "That is what `zero_grad` does when it stands inside the loop over the small batches.",
        "what became of the clips in the batches before?",
    ),
    Mistake(
        "small batches count more",
        lambda gradients, sizes: (gradients / sizes[:, None]).sum(0) / (1 / sizes).sum(),
        "Your small batches count more than the large ones.",
        "A batch counts as many clips as it has.",
        "should a batch of one decide more than a batch of nine?",
    ),
)


def _scaled(gradients, scale, good, patience, finite=None, down=0.5, up=2.0, kept=0, after=0, late=0, undo=True):
    fine = gradients.isfinite().all() if finite is None else finite(gradients)
    if not fine:
        return torch.zeros_like(gradients), scale * down, kept and good
    step = gradients / scale if undo else gradients.clone()
    if good + 1 >= patience + late:
        return step, scale * up, good + 1 if after else 0
    return step, scale, good + 1


def _taken(gradients, scale, good, patience):
    step, new, count = _scaled(gradients, scale, good, patience)
    return torch.where(gradients.isfinite(), gradients, 0) / scale, new, count


def _passed_on(gradients, scale, good, patience):
    _, new, count = _scaled(gradients, scale, good, patience)
    return gradients / scale, new, count


def _by_the_new_scale(gradients, scale, good, patience):
    step, new, count = _scaled(gradients, scale, good, patience)
    return (gradients / new if step.any() else step), new, count


SCALE = (
    Mistake(
        "not divided",
        lambda *args: _scaled(*args, undo=False),
        "Your step is still multiplied by the scale.",
        "The loss was multiplied by it, so every gradient is too. Clipping and Adam's epsilon want them as they are.",
        "if the loss is doubled, what happens to its gradients?",
    ),
    Mistake(
        "divided by the new scale",
        _by_the_new_scale,
        "When the scale grows you divide by the new one.",
        "These gradients come from a loss that was multiplied by the old scale.",
        "by which number was this step's loss multiplied?",
    ),
    Mistake(
        "bad numbers set to zero",
        _taken,
        "You set the bad gradients to zero and take the rest of the step.",
        "Where one overflowed others were near it: leave the whole step out, all zeros.",
        "which of the remaining gradients do you still trust?",
    ),
    Mistake(
        "infinities passed on",
        _passed_on,
        "You pass on gradients that are not finite.",
        "One step with an infinity, and the weights are gone for good. Return zeros.",
        "what is a weight after it was moved by infinity?",
    ),
    Mistake(
        "scale kept",
        lambda *args: _scaled(*args, down=1.0),
        "After an overflow you keep the scale.",
        "Then the next step overflows as well, and every one after that. Halve it.",
        "what has changed when the next step begins?",
    ),
    Mistake(
        "scale raised",
        lambda *args: _scaled(*args, down=2.0),
        "After an overflow you double the scale.",
        "The gradients were too large for the format: the scale has to fall.",
        "does a larger scale make gradients larger or smaller?",
    ),
    Mistake(
        "count not cleared after an overflow",
        lambda *args: _scaled(*args, kept=1),
        "After an overflow you go on counting where you were.",
        "`good` counts good steps *in a row*.",
        "how many good steps in a row are there right after a bad one?",
    ),
    Mistake(
        "count not cleared after growing",
        lambda *args: _scaled(*args, after=1),
        "The scale grows, but the count does not start anew.",
        "With a count that is never reset the scale would grow once and never again, or in every step.",
        "when should it grow the next time?",
    ),
    Mistake(
        "one step late",
        lambda *args: _scaled(*args, late=1),
        "Your scale grows one step late.",
        "This step is a good one too: count it first, then compare with `patience`.",
        "with a patience of 1, after how many good steps should the scale grow?",
    ),
    Mistake(
        "NaN only",
        lambda *args: _scaled(*args, finite=lambda gradients: not gradients.isnan().any()),
        "You look for NaN only; an infinity passes.",
        "Overflow *is* infinity: above 65504 float16 has no other number.",
        "what is 300 · 300 in float16?",
    ),
    Mistake(
        "plus infinity only",
        lambda *args: _scaled(*args, finite=lambda g: not ((g == float("inf")) | g.isnan()).any()),
        "Minus infinity passes.",
        "Gradients overflow downwards as well: `isfinite` knows all three.",
        "is −∞ smaller than every limit that you compare with?",
    ),
)
