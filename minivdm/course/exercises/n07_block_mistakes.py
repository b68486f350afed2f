"""Wrong answers that newcomers really give about the parts of the Unet3D's blocks, and what to say to each."""

import math

import torch

from minivdm.course.exercise import Mistake


def _angles(t, dim, denominator=None, base=10000.0, sign=-1.0):
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float64) / (half - 1 if denominator is None else denominator)
    return t[:, None] * torch.exp(sign * math.log(base) * exponents)


def _embed(angles):
    return torch.cat([angles.sin(), angles.cos()], 1)


SINUSOIDAL_EMBEDDING = (
    Mistake(
        "cosine first",
        lambda t, dim: torch.cat([_angles(t, dim).cos(), _angles(t, dim).sin()], 1),
        "Sine and cosine have changed places.",
        "Both orders are in use (lesson 08 has the other one); this network expects [sin, cos].",
        "what should the first half be for t = 0, zeros or ones?",
    ),
    Mistake(
        "divided by dim/2",
        lambda t, dim: _embed(_angles(t, dim, denominator=dim // 2)),
        "Your slowest frequencies are a little too fast: you divide i by dim/2.",
        "With dim/2 − 1 the last frequency is exactly 1/10000.",
        "for dim/2 values i = 0, 1, …, what is the largest i?",
    ),
    Mistake(
        "woven",
        lambda t, dim: torch.stack([_angles(t, dim).sin(), _angles(t, dim).cos()], 2).flatten(1),
        "The numbers are right, but sines and cosines alternate.",
        "Here all sines come first, then all cosines.",
        "does the next layer, a learnt matrix, care about the order, and do loaded weights?",
    ),
    Mistake(
        "growing frequencies",
        lambda t, dim: _embed(_angles(t, dim, sign=1.0)),
        "Your frequencies grow up to 10000: the minus in the exponent is missing.",
        "Steps are whole numbers, so nothing can be told by hands that turn more than once per step.",
        "how fast does your fastest hand turn between t = 1 and t = 2?",
    ),
    Mistake(
        "divided by dim",
        lambda t, dim: _embed(_angles(t, dim, denominator=dim)),
        "You divide i by dim, so your slowest frequency is about 1/100.",
        "i runs to dim/2 − 1, and there the exponent should reach −1.",
        "after how many steps has your slowest hand gone round once?",
    ),
    Mistake(
        "sines only",
        lambda t, dim: torch.sin(t[:, None] * torch.exp(-math.log(10000) * torch.arange(dim).double() / (dim - 1))),
        "You return sines alone.",
        "sin x = sin(π − x): one sine cannot tell two places apart. Its cosine beside it can.",
        "with sine and cosine, can one compute the embedding of t + 1 from that of t by a rotation?",
    ),
)


def _wide(each):
    return each[:, :, None, None, None]


FILM = (
    Mistake(
        "1 + forgotten",
        lambda x, scale, shift: x * _wide(scale) + _wide(shift),
        "You multiply by `scale` instead of 1 + `scale`.",
        "At the start of training scale and shift are near 0, and your block would switch the signal off.",
        "what should film(x, 0, 0) return?",
    ),
    Mistake(
        "scale and shift swapped",
        lambda x, scale, shift: x * (1 + _wide(shift)) + _wide(scale),
        "Scale and shift have changed places.",
        "Scale multiplies, shift is added; the order of the arguments is x, scale, shift.",
        "which of the two can move a channel of zeros?",
    ),
    Mistake(
        "shifted before scaling",
        lambda x, scale, shift: (x + _wide(shift)) * (1 + _wide(scale)),
        "You add the shift first, so it is scaled as well.",
        "x·(1 + scale) + shift: multiply, then add.",
        "how high is your shift when scale = −1?",
    ),
    Mistake(
        "scale added",
        lambda x, scale, shift: x + _wide(scale) + _wide(shift),
        "You add the scale.",
        "Scale is a factor: 1 + scale makes a channel louder or quieter.",
        "can adding a constant make a firework brighter against the sky?",
    ),
    Mistake(
        "shift forgotten",
        lambda x, scale, shift: x * (1 + _wide(scale)),
        "Your function leaves out `shift`.",
        "Scaling alone cannot lift a channel off zero.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "exponential scale",
        lambda x, scale, shift: x * torch.exp(_wide(scale)) + _wide(shift),
        "You multiply by e^scale.",
        "It is near 1 + scale for small scales only; here the plain 1 + scale is asked for, which can also turn a "
        "channel off.",
        "for which scale does each of the two give zero?",
    ),
)

FRAMES_TO_BATCH = (
    Mistake(
        "reshaped without swapping axes",
        lambda x: x.reshape(x.shape[0] * x.shape[2], x.shape[1], *x.shape[3:]),
        "The shape is right, but the frames are torn: channels and frames are mixed up.",
        "`reshape` only recounts the numbers as they lie in memory, where the channels come before the frames. "
        "Swap the axes first.",
        "does picture 0 of your result show frame 0 in all its channels?",
    ),
    Mistake(
        "time before batch",
        lambda x: x.permute(2, 0, 1, 3, 4).flatten(0, 1),
        "Your pictures are whole, but ordered by time first: all first frames, then all second frames.",
        "Asked for is clip by clip: picture b·T + t. Otherwise (B, T) cannot be told apart again in the usual way.",
        "in `(b t)`, which letter counts fastest?",
    ),
    Mistake(
        "axes swapped, not merged",
        lambda x: x.transpose(1, 2),
        "Batch and time still are two axes.",
        "A layer for pictures takes four axes (N, C, H, W): merge batch and time into one.",
        "how many pictures do B clips of T frames make?",
    ),
    Mistake(
        "channels folded in",
        lambda x: x.flatten(0, 1),
        "You merged batch and channels instead of batch and time.",
        "The channels of a frame belong together: a layer for pictures mixes them.",
        "how many channels have your pictures?",
    ),
    Mistake(
        "first frames only",
        lambda x: x[:, :, 0],
        "You kept the first frame of every clip.",
        "All frames go into the batch; none may be lost.",
        "how many numbers go in, and how many come out?",
    ),
)

GUIDED = (
    Mistake(
        "one too many",
        lambda cond, uncond, scale: cond + scale * (cond - uncond),
        "You start from `cond`, so your guidance is stronger by one.",
        "Some papers write it like this and call the scale w. Here scale = 1 means no guidance: exactly `cond`.",
        "what does your function return for scale = 0?",
    ),
    Mistake(
        "away from the condition",
        lambda cond, uncond, scale: uncond + scale * (uncond - cond),
        "The difference is the wrong way round: your film flees from its prompt.",
        "cond − uncond is the direction that the condition adds.",
        "what does your function return for scale = 1?",
    ),
    Mistake(
        "cond and uncond swapped",
        lambda cond, uncond, scale: cond + scale * (uncond - cond),
        "cond and uncond have changed places.",
        "Scale 0 must ignore the condition, scale 1 must follow it.",
        "what does your function return for scale = 0?",
    ),
    Mistake(
        "uncond forgotten",
        lambda cond, uncond, scale: scale * cond,
        "You scale `cond` and leave out `uncond`.",
        "A louder prediction is no clearer one. Only what the condition *changes* is amplified.",
        "if cond and uncond agree, what should guidance do?",
    ),
    Mistake(
        "difference alone",
        lambda cond, uncond, scale: scale * (cond - uncond),
        "You return the scaled difference without what it is added to.",
        "Start from `uncond` and go along the difference.",
        "if cond and uncond agree, what does your function return?",
    ),
    Mistake(
        "uncond subtracted once",
        lambda cond, uncond, scale: scale * cond - uncond,
        "Right for scale 2 only: you subtract `uncond` once, whatever the scale.",
        "uncond + scale·(cond − uncond) = scale·cond + (1 − scale)·uncond.",
        "to what should the two factors add up?",
    ),
)

EMA_UPDATE = (
    Mistake(
        "decay swapped",
        lambda ema, value, decay: (1 - decay) * ema + decay * value,
        "Your average keeps almost nothing and takes almost everything.",
        "Decay near 1 means slow forgetting: it multiplies the old average.",
        "with decay 0.995, how much of the newest weights should come in?",
    ),
    Mistake(
        "1 − decay forgotten",
        lambda ema, value, decay: decay * ema + value,
        "You add the whole new value.",
        "An average has weights that add up to 1. Yours would grow to 1/(1 − decay) times the value.",
        "if value is always 1, where does your ema end?",
    ),
    Mistake(
        "added to the whole average",
        lambda ema, value, decay: ema + (1 - decay) * value,
        "You keep the old average whole and add a share of the new value.",
        "What comes in must make room: the old average is multiplied by decay.",
        "if value is always 1, does your ema ever stop growing?",
    ),
    Mistake(
        "plain mean",
        lambda ema, value, decay: (ema + value) / 2,
        "You take the plain mean of the two.",
        "decay says how slowly to forget; your version forgets half of everything at each step.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "decay squared",
        lambda ema, value, decay: decay * (decay * ema + (1 - decay) * value),
        "You multiplied by decay once too often: the average shrinks.",
        "Only the old average is multiplied by decay; the weights must add up to 1.",
        "to what do your two weights add up?",
    ),
    Mistake(
        "difference the wrong way",
        lambda ema, value, decay: ema - (1 - decay) * (value - ema),
        "Your average moves away from the new value.",
        "ema + (1 − decay)·(value − ema) moves towards it.",
        "if ema is 0 and value is 1, which sign has your result?",
    ),
)
