"""Wrong answers that newcomers really give about modulation, whole clips or by frame, and what to say to each."""

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _modulated(x, shift, scale, one=1):
    return x * (one + scale[:, None]) + shift[:, None]


MODULATE = (
    Mistake(
        "1 + forgotten",
        lambda x, shift, scale: _modulated(x, shift, scale, one=0),
        "You multiply by `scale` instead of 1 + `scale`.",
        "In the beginning scale and shift are near 0, and your block would switch the signal off.",
        "what should modulate(x, 0, 0) return?",
    ),
    Mistake(
        "scale and shift swapped",
        lambda x, shift, scale: _modulated(x, scale, shift),
        "You add `scale` and multiply by `shift`.",
        "Their order changes from place to place: here shift comes first, in lesson 07 it was scale.",
        "which argument comes second?",
    ),
    Mistake(
        "shifted before scaling",
        lambda x, shift, scale: (x + shift[:, None]) * (1 + scale[:, None]),
        "You scale the shift as well.",
        "First scale, then shift: so the shift arrives as large as it was learnt.",
        "what should come out where x is 0?",
    ),
    Mistake(
        "not spread over the tokens",
        lambda x, shift, scale: x * (1 + scale) + shift,
        "(B, D) meets (B, N, D) without an axis for the tokens.",
        "Axes are aligned from the last: (B, D) is taken for (1, B, D), and B meets N. Where B = N it would even run.",
        "what does `scale[:, None]` have in its middle axis?",
    ),
    Mistake(
        "normalised too",
        lambda x, shift, scale: _modulated(F.layer_norm(x, x.shape[-1:]), shift, scale),
        "You normalised x first.",
        "In the block a norm comes before, with a name of its own; this function only scales and shifts.",
        "what should modulate(x, 0, 0) return?",
    ),
    Mistake(
        "the first clip's for all",
        lambda x, shift, scale: x * (1 + scale[0]) + shift[0],
        "Every clip of the batch is modulated like the first.",
        "Each clip has its own timestep, so its own shift and scale.",
        "how many different t are there in a batch?",
    ),
    Mistake(
        "shift forgotten",
        lambda x, shift, scale: x * (1 + scale[:, None]),
        "Your result knows nothing of `shift`.",
        "A scale alone cannot move a feature away from 0.",
        "which argument does your function never use?",
    ),
)


def _per_frame(mask, noisy, clean):
    return torch.where(mask[:, :, None, None], noisy[:, None, None], clean[:, None, None])


def _masked(x, shift, scale, shift0, scale0, mask, one=1):
    return x * (one + _per_frame(mask, scale, scale0)) + _per_frame(mask, shift, shift0)


def _modulated_twice(x, shift, scale, shift0, scale0, mask):
    noisy = x * (1 + scale[:, None, None]) + shift[:, None, None]
    clean = noisy * (1 + scale0[:, None, None]) + shift0[:, None, None]
    return torch.where(mask[:, :, None, None], noisy, clean)


def _left_alone(x, shift, scale, shift0, scale0, mask):
    nothing = torch.zeros_like(shift)
    return _masked(x, shift, scale, nothing, nothing, mask)


MASKED = (
    Mistake(
        "mask the other way round",
        lambda x, shift, scale, shift0, scale0, mask: _masked(x, shift, scale, shift0, scale0, ~mask),
        "The roles are exchanged: your clean frames are told the clip's t, and the noisy ones t = 0.",
        "mask is True for frames that are generated; False are those that were given.",
        "for image to video, what is mask at the first frame?",
    ),
    Mistake(
        "clean frames modulated twice",
        _modulated_twice,
        "Your clean frames are modulated twice: for t first, and the result for t = 0 once more.",
        "That happens when x is overwritten between the two branches, as in well-known code. Both start from x.",
        "which x does your second branch read?",
    ),
    Mistake(
        "clean frames left alone",
        _left_alone,
        "Frames with mask False come out as they went in.",
        "Clean does not mean untold: they get the modulation of t = 0, which a network learns like any other.",
        "what do `shift0` and `scale0` do in your function?",
    ),
    Mistake(
        "clean frames zeroed",
        lambda x, *modulation: _masked(x * modulation[4][:, :, None, None], *modulation),
        "x itself is multiplied by the mask: the clean frames are lost.",
        "They are what the film is to be continued from; attention has to see them.",
        "what should the frames that are generated look at?",
    ),
    Mistake(
        "1 + forgotten",
        lambda *args: _masked(*args, one=0),
        "You multiply by the scale instead of 1 + scale.",
        "Saying nothing (shift 0, scale 0) must change nothing.",
        "what comes out where all four are 0?",
    ),
    Mistake(
        "only the shift chosen",
        lambda x, shift, scale, shift0, scale0, mask: _masked(x, shift, scale, shift0, scale, mask),
        "The shift knows about the mask, the scale does not.",
        "Both were computed from t, so both have to be those of t = 0 in a clean frame.",
        "which of the four do your clean frames use?",
    ),
    Mistake(
        "one decision for the whole clip",
        lambda x, shift, scale, shift0, scale0, mask: _masked(
            x, shift, scale, shift0, scale0, mask.all(1, keepdim=True).expand_as(mask)
        ),
        "One clean frame makes your whole clip clean.",
        "Each frame is told about itself.",
        "which axis of the mask did you lose?",
    ),
    Mistake(
        "scale and shift swapped",
        lambda x, shift, scale, shift0, scale0, mask: _masked(x, scale, shift, scale0, shift0, mask),
        "You add the scales and multiply by the shifts.",
        "The order of the arguments is shift, scale, then both for t = 0.",
        "which argument comes second?",
    ),
)
