"""Wrong answers that newcomers really give about guidance by two things and frames that are given, and what to say."""

import torch

from minivdm.course.exercise import Mistake


def _guided(cond, uncond, scale):
    return uncond + scale * (cond - uncond)


IMAGE_GUIDANCE = (
    Mistake(
        "scales exchanged",
        lambda cond, image, uncond, a, b: uncond + a * (image - uncond) + b * (cond - image),
        "The two scales have changed places.",
        "`image_scale` belongs to the step from nothing to the image, `text_scale` to the step from there to the text.",
        "which difference is made by the text alone?",
    ),
    Mistake(
        "text counted from nothing",
        lambda cond, image, uncond, a, b: uncond + b * (image - uncond) + a * (cond - uncond),
        "Your text difference starts at `uncond`, so the image counts twice.",
        "`cond` was predicted from text and image. What the text adds is seen against the image alone.",
        "what does your function give when both scales are 1?",
    ),
    Mistake(
        "image ignored",
        lambda cond, image, uncond, a, b: _guided(cond, uncond, a),
        "You guide by one scale only; `image_only` and `image_scale` change nothing.",
        "That is the guidance of lesson 07. Here image and text have a scale each.",
        "how would a caller ask for more of the image and less of the text?",
    ),
    Mistake(
        "image guided by nothing",
        lambda cond, image, uncond, a, b: _guided(cond, image, a),
        "You start at `image_only`, as if `image_scale` were always 1.",
        "That is right for scale 1 alone. Start from `uncond` and walk both stairs.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "one guidance inside the other",
        lambda cond, image, uncond, a, b: _guided(cond, _guided(image, uncond, b), a),
        "You guide by the image, and then take the text's difference from that guided prediction.",
        "The text's difference is cond − image_only, as the network predicted them.",
        "in which of your terms do both scales multiply each other?",
    ),
    Mistake(
        "differences turned round",
        lambda cond, image, uncond, a, b: uncond + b * (uncond - image) + a * (image - cond),
        "Both differences point the wrong way: away from image and text.",
        "with − without is what something adds.",
        "towards what does `uncond − image_only` lead?",
    ),
    Mistake(
        "uncond missing",
        lambda cond, image, uncond, a, b: b * (image - uncond) + a * (cond - image),
        "You sum the two differences and leave out the place from which they start.",
        "Differences alone are no prediction: they begin at `uncond`.",
        "what does your function give when both scales are 0?",
    ),
)


def _steady(scale, step, first=10):
    return scale


OSCILLATE = (
    Mistake(
        "even and odd exchanged",
        lambda scale, step, first=10: scale if step % 2 == 1 or step < first else 1.0,
        "From `first` on, you guide in the odd steps and rest in the even ones.",
        "Even steps keep the scale: 10, 12, 14 …; odd ones rest.",
        "what is `step % 2` for step 12?",
    ),
    Mistake(
        "off from first on",
        lambda scale, step, first=10: scale if step < first else 1.0,
        "From `first` on, you never guide again.",
        "It is every second step that rests; the even ones go on guiding.",
        "what does “oscillate” mean?",
    ),
    Mistake(
        "from the very start",
        lambda scale, step, first=10: scale if step % 2 == 0 else 1.0,
        "You oscillate from step 0 on, whatever `first` says.",
        "The first steps decide what will be seen: all of them are guided, odd ones too.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "the wrong side of first",
        lambda scale, step, first=10: scale if step % 2 == 0 or step >= first else 1.0,
        "You oscillate before `first` and guide in every step after it.",
        "It is the other way round: first all, then every second one.",
        "at which end of the way is decided what will be seen?",
    ),
    Mistake(
        "0 for 1",
        lambda scale, step, first=10: scale if step % 2 == 0 or step < first else 0.0,
        "Your resting steps have scale 0.",
        "Scale 0 is the prediction without text. No guidance is scale 1: the model's own prediction with the text.",
        "what is uncond + 0 · (cond − uncond)?",
    ),
    Mistake(
        "one step late",
        lambda scale, step, first=10: scale if step % 2 == 0 or step <= first else 1.0,
        "Everything is right except step `first` itself when it is odd: you still guide there.",
        "`first` is the first step that may rest.",
        "is your comparison < or ≤?",
    ),
    Mistake(
        "counted from first",
        lambda scale, step, first=10: scale if step < first or (step - first) % 2 == 0 else 1.0,
        "You count even and odd from `first`, so step `first` always guides.",
        "Even and odd are those of the step itself; with an odd `first`, that very step rests.",
        "for which values of `first` does your function agree with the task?",
    ),
    Mistake(
        "10 written out",
        lambda scale, step, first=10: scale if step % 2 == 0 or step < 10 else 1.0,
        "You begin at step 10, whatever `first` says.",
        "10 is only the default; the caller may want another step.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "the integer 1",
        lambda scale, step, first=10: scale if step % 2 == 0 or step < first else 1,
        "All right but for the kind: your resting steps return the whole number 1, the others a float.",
        "A function that returns now this and now that kind surprises whoever uses it: `1.0`.",
        "what is the type of 1, and what of 1.0?",
    ),
    Mistake(
        "no oscillation",
        _steady,
        "You guide in every step.",
        "Guidance all the way makes colours too strong; from `first` on, odd steps should use 1.0.",
        "which steps of 30 would rest?",
    ),
)


def _over_frames(mask):
    return mask[:, None, :, None, None]


def _first_frame_only(z, z_ref, mask):
    return torch.cat([z_ref[:, :, :1], z[:, :, 1:]], 2)


FREEZE_FRAMES = (
    Mistake(
        "given and made exchanged",
        lambda z, z_ref, mask: torch.where(_over_frames(mask), z, z_ref),
        "You froze the frames that should be made, and kept making the given ones.",
        "True = this frame is given, so it comes from `z_ref`.",
        "in `torch.where(mask, a, b)`, which of the two is for True?",
    ),
    Mistake(
        "first frame only",
        _first_frame_only,
        "You always freeze the first frame, and no other.",
        "That is one use of it, image to video. The mask says which frames of which film are given.",
        "how would you make a film that ends with a given frame?",
    ),
    Mistake(
        "one film's mask for all",
        lambda z, z_ref, mask: torch.where(_over_frames(mask[:1]), z_ref, z),
        "You use the first film's mask for the whole batch.",
        "Each film of a batch may have other frames given.",
        "which axis of `mask` did you lose?",
    ),
    Mistake(
        "frozen to zero",
        lambda z, z_ref, mask: z * ~_over_frames(mask),
        "Your frozen frames are zeros: `z_ref` is not used.",
        "Frozen means given: they show what `z_ref` shows.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "reference added",
        lambda z, z_ref, mask: z + _over_frames(mask) * z_ref,
        "You add the given frames to the noise that is there, instead of replacing it.",
        "A given frame must be exactly what was given: z·(1 − mask) + z_ref·mask.",
        "what is left of `z` in a frozen frame of yours?",
    ),
    Mistake(
        "blended by half",
        lambda z, z_ref, mask: torch.where(_over_frames(mask), (z + z_ref) / 2, z),
        "Your frozen frames are half given, half what was there.",
        "True leaves no room: the frame is replaced, whole.",
        "is a frame frozen if it still changes with `z`?",
    ),
    Mistake(
        "mask on the wrong axis",
        lambda z, z_ref, mask: torch.where(mask[:, :, None, None, None], z_ref, z),
        "Your mask meets the channels, where it does not fit.",
        "Latents are (B, C, T, H, W) and the mask is (B, T): it needs a new axis between its two.",
        "where in `mask[:, ?, ?, ?, ?]` does the frame axis go?",
    ),
)
