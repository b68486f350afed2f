"""Wrong answers that newcomers really give about counting and moving frames, and what to say to each."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

from minivdm.course.exercise import Mistake


def _tokens(frames, height, width, space, patch, rounded=math.ceil):
    return frames * rounded(height / (space * patch)) * rounded(width / (space * patch))


TOKEN_COUNT = (
    Mistake(
        "time not compressed",
        lambda n, h, w, f, s, p: _tokens(n, h, w, s, p),
        "You count every frame of the film: `time_factor` is not used.",
        "The transformer sees latent frames only, and that is what this lesson is for.",
        "how many frames are left of 17 when four become one?",
    ),
    Mistake(
        "frames rounded down",
        lambda n, h, w, f, s, p: _tokens(n // f, h, w, s, p),
        "You round the number of latent frames down.",
        "A group of frames that is not full still becomes a latent frame.",
        "how many tokens does a picture, a film of one frame, have in your version?",
    ),
    Mistake(
        "edges cut off",
        lambda n, h, w, f, s, p: _tokens(math.ceil(n / f), h, w, s, p, math.floor),
        "Right where the patches fit. Where they hang over the edge, you drop them.",
        "The edge of the picture would have no token; the last patch is filled up with zeros instead.",
        "how many patches of 2 cover 45 latent rows?",
    ),
    Mistake(
        "patch forgotten",
        lambda n, h, w, f, s, p: _tokens(math.ceil(n / f), h, w, s, 1),
        "You count latent pixels: `patch` is not used.",
        "A patch of p × p latent pixels is one token.",
        "by which factor does the number of tokens fall when the patch grows from 1 to 2?",
    ),
    Mistake(
        "patch along one side",
        lambda n, h, w, f, s, p: math.ceil(n / f) * math.ceil(h / (s * p)) * math.ceil(w / s),
        "You divide by the patch along one side only.",
        "A patch is p high and p wide.",
        "how many latent pixels does one patch hold?",
    ),
    Mistake(
        "pixels for latents",
        lambda n, h, w, f, s, p: _tokens(math.ceil(n / f), h, w, 1, p),
        "You cut the pixels themselves into patches: `space_factor` is not used.",
        "The 2D VAE of lesson 03 has shrunk every frame before.",
        "how large is a frame of 64 × 96 after a factor of 8?",
    ),
    Mistake(
        "patches in time",
        lambda n, h, w, f, s, p: _tokens(math.ceil(n / (f * p)), h, w, s, p),
        "You divide by the patch along time as well.",
        "These patches are flat: one latent frame deep.",
        "how many latent frames does one token see?",
    ),
)

LATENT_FRAMES = (
    Mistake(
        "rounded down",
        lambda n, f: n // f,
        "You round down.",
        "The frames that do not fill a group would be lost, and a single picture would have no latent at all.",
        "how many latent frames does 1 frame need?",
    ),
    Mistake(
        "always one more",
        lambda n, f: n // f + 1,
        "Right unless `factor` divides `num_frames`: then you have one too many.",
        "16 frames fill four groups of 4 exactly.",
        "which numbers of frames need no extra group?",
    ),
    Mistake(
        "to the nearest",
        lambda n, f: round(n / f),
        "You round to the nearest whole number.",
        "Whether a group holds one frame or three, it becomes a latent frame.",
        "where would the 17th frame of 17 go?",
    ),
    Mistake(
        "the first frame dropped",
        lambda n, f: (n - 1) // f,
        "You took the 1 off 1 + 4k and did not give it back.",
        "1 + 4k frames become 1 + k: the first frame has a latent of its own.",
        "how many latent frames has a picture in your version?",
    ),
    Mistake(
        "a fraction",
        lambda n, f: n / f,
        "You return a fraction.",
        "Frames come in whole numbers; a group that has begun counts.",
        "what shape would a tensor with 4.25 frames have?",
    ),
    Mistake(
        "padded frames counted",
        lambda n, f: math.ceil(n / f) * f,
        "You return the number of frames after padding.",
        "Then `factor` of them become one.",
        "how many groups of `factor` frames are there?",
    ),
)


def _front(x, count):
    return F.pad(x, (0, 0, 0, 0, count, 0))


PAD_FRONT = (
    Mistake(
        "padded at the end",
        lambda x, f: F.pad(x, (0, 0, 0, 0, 0, -x.shape[2] % f)),
        "Your zeros follow the film instead of preceding it.",
        "A causal network works through the film from the left; with the padding in front, its last group is full.",
        "in `F.pad`, which number of a pair stands for the beginning of the axis?",
    ),
    Mistake(
        "a whole group too many",
        lambda x, f: _front(x, f - x.shape[2] % f),
        "Right unless `factor` divides the number of frames: then you add a whole group of zeros.",
        "A film that fits needs nothing; the decoder would otherwise give back frames that nobody sent.",
        "what is 4 − 8 mod 4, and what should it be?",
    ),
    Mistake(
        "the remainder added",
        lambda x, f: _front(x, x.shape[2] % f),
        "You add T mod factor frames.",
        "That is how many stand in the group already; the missing ones are needed.",
        "5 frames and 1 more: does 4 divide that?",
    ),
    Mistake(
        "first frame repeated",
        lambda x, f: torch.cat([x[:, :, :1].expand(-1, -1, -x.shape[2] % f, -1, -1), x], 2),
        "The number is right, but you repeat the first frame instead of adding zeros.",
        "Some networks do so; this one has learnt with zeros in front.",
        "which of the two can later be told from a film that stands still?",
    ),
    Mistake(
        "night in front",
        lambda x, f: F.pad(x, (0, 0, 0, 0, -x.shape[2] % f, 0), value=-1.0),
        "The number is right, but you add frames of −1.",
        "What is padded here are latents of the 2D VAE, where −1 is nothing special and zero is the middle.",
        "what does a causal convolution put in front by itself?",
    ),
    Mistake(
        "height padded",
        lambda x, f: F.pad(x, (0, 0, -x.shape[2] % f, 0)),
        "You added rows instead of frames.",
        "`F.pad` counts from the last axis: two numbers for the width, two for the height, then two for time.",
        "how many numbers come before those of the third axis from the right?",
    ),
    Mistake(
        "cut to fit",
        lambda x, f: x[:, :, x.shape[2] % f :],
        "You dropped the frames that do not fill a group.",
        "Nothing of the film may be lost: complete the group instead.",
        "what is left of a single picture in your version?",
    ),
)

DEPTH_TO_TIME = (
    Mistake(
        "factor first",
        lambda x, f: rearrange(x, "b (f c) t h w -> b c (t f) h w", f=f),
        "You read the channels as (f c); here they are (c f).",
        "The frames of one channel lie next to each other: channel c·factor + f.",
        "which of the two letters counts faster along the channels?",
    ),
    Mistake(
        "time inside",
        lambda x, f: rearrange(x, "b (c f) t h w -> b c (f t) h w", f=f),
        "You line the frames up as (f t), as a plain reshape does: first the first of each group, then the second.",
        "What came out of latent frame t must stay together: (t f).",
        "which frame should follow frame 0, its neighbour or the first one of the next group?",
    ),
    Mistake(
        "backwards inside a group",
        lambda x, f: rearrange(x, "b (c f) t h w -> b c t f h w", f=f).flip(3).flatten(2, 3),
        "Within every group your frames run backwards.",
        "f = 0 is the earliest.",
        "which of the channels holds the first frame of the group?",
    ),
    Mistake(
        "to the rows",
        lambda x, f: rearrange(x, "b (c f) t h w -> b c t (h f) w", f=f),
        "You made the picture higher instead of the film longer.",
        "The channels hold frames here, not rows.",
        "which axis of your result should be `factor` times as long?",
    ),
    Mistake(
        "repeated",
        lambda x, f: rearrange(x, "b (c f) t h w -> b c f t h w", f=f)[:, :, 0].repeat_interleave(f, 2),
        "You repeat one frame of each group.",
        "The others are in the channels as well: f of them.",
        "what does the network learn the other channels for?",
    ),
)
