"""Wrong answers that newcomers really give about walking from noise to data and about shifted time."""

import math

import torch

from minivdm.course.exercise import Mistake


def _time(z, t):
    return torch.full((len(z),), float(t), dtype=z.dtype)


def _euler(velocity_fn, noise, num_steps, when=lambda i, n: 1000 * (1 - i / n), step=lambda n: 1 / n, batch=_time):
    z = noise
    for i in range(num_steps):
        z = z + velocity_fn(z, batch(z, when(i, num_steps))) * step(num_steps)
    return z


def _first_velocity_for_all(velocity_fn, noise, num_steps):
    v, z = velocity_fn(noise, _time(noise, 1000)), noise
    for _ in range(num_steps):
        z = z + v / num_steps
    return z


def _asked_at_the_start(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps):
        z = z + velocity_fn(noise, _time(noise, 1000 * (1 - i / num_steps))) / num_steps
    return z


def _one_step_too_few(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps - 1):
        z = z + velocity_fn(z, _time(z, 1000 * (1 - i / num_steps))) / num_steps
    return z


def _asked_at_zero_too(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps + 1):
        v = velocity_fn(z, _time(z, 1000 * (1 - i / num_steps)))
        if i < num_steps:
            z = z + v / num_steps
    return z


EULER = (
    Mistake(
        "time runs up",
        lambda *args: _euler(*args, when=lambda i, n: 1000 * i / n),
        "Your t rises from 0, while the film starts as noise.",
        "Noise is t = 1000. Told t = 0, the network takes the noise for a finished film.",
        "which t belongs to the z you start with?",
    ),
    Mistake(
        "one step ahead",
        lambda *args: _euler(*args, when=lambda i, n: 1000 * (1 - (i + 1) / n)),
        "Your t is one step ahead: it ends with t = 0 and never is 1000.",
        "Ask where you stand, not where you will stand. At t = 0 one has arrived.",
        "what is t at the very first call?",
    ),
    Mistake(
        "both ends included",
        lambda *args: _euler(*args, when=lambda i, n: 1000 * (1 - i / max(n - 1, 1))),
        "Your last call is at t = 0: you divide the time into n − 1 steps.",
        "`linspace(1000, 0, n)` has n points and n − 1 steps between them. n steps have n + 1 points, the last "
        "of which is the goal.",
        "how many fence posts do n fences need?",
    ),
    Mistake(
        "t from 1 to 0",
        lambda *args: _euler(*args, when=lambda i, n: 1 - i / n),
        "You hand over t between 0 and 1.",
        "The network was trained with t up to 1000; to it, 1 is all but clean.",
        "what does the embedding of t = 1 say in this course?",
    ),
    Mistake(
        "velocity subtracted",
        lambda *args: _euler(*args, step=lambda n: -1 / n),
        "You walk away from the film: the velocity is subtracted.",
        "v = x0 − noise points to the data, so it is added; t falls, but the step counts upwards.",
        "what is noise + (x0 − noise)?",
    ),
    Mistake(
        "steps of 1000/n",
        lambda *args: _euler(*args, step=lambda n: 1000 / n),
        "Your steps are 1000 times too long: you multiply by the difference of t.",
        "v is the whole way from noise to data, and it is gone in n steps.",
        "if v were always x0 − noise, where would you end?",
    ),
    Mistake(
        "whole steps",
        lambda *args: _euler(*args, step=lambda n: 1),
        "Each of your steps goes the whole way: the 1/n is missing.",
        "n steps of v/n make one way from noise to data.",
        "if v were always x0 − noise, where would you end?",
    ),
    Mistake(
        "t is a number",
        lambda *args: _euler(*args, batch=lambda z, t: torch.tensor(float(t), dtype=z.dtype)),
        "The value is right, but your t is a single number, without a batch axis.",
        "A denoiser embeds one t per sample, and modulates each with its own: it needs shape (B,).",
        "what does `len(t)` say?",
    ),
    Mistake(
        "whole times",
        lambda *args: _euler(*args, when=lambda i, n: int(1000 * (1 - i / n))),
        "You cut t down to whole numbers.",
        "1000/7 is no whole number, and t need not be one: it is a time, not an index.",
        "how long is the first of 7 steps?",
    ),
    Mistake(
        "first velocity for all",
        _first_velocity_for_all,
        "You ask once and walk straight on: n steps in one direction are one step.",
        "The network says at each place which way the film lies from there.",
        "how often does your function call the network?",
    ),
    Mistake(
        "asked at the start",
        _asked_at_the_start,
        "You always ask at the noise you began with, not where you stand.",
        "After a step z has changed, and its velocity with it.",
        "which tensor do you hand over in the second step?",
    ),
    Mistake(
        "one step too few",
        _one_step_too_few,
        "You stop one step before the film.",
        "The last question is asked at t = 1000/n, and its answer leads to 0.",
        "how many shares of 1/n make a whole?",
    ),
    Mistake(
        "asked at t = 0 too",
        _asked_at_zero_too,
        "The value is right, but you ask once more at t = 0 and throw the answer away.",
        "Every call is a run of a large network; n steps need n.",
        "what is left to do at t = 0?",
    ),
)


def _shift(t, height, width, latent_frames, ratio=None, bend=None):
    r = ratio(height, width, latent_frames) if ratio else (height * width * latent_frames) ** 0.5 / 512
    u = t / 1000
    return 1000 * (bend(r, u) if bend else r * u / (1 + (r - 1) * u))


def _with_ratio(ratio):
    return lambda *args: _shift(*args, ratio=ratio)


def _bent(bend):
    return lambda *args: _shift(*args, bend=bend)


def _undivided(t, height, width, latent_frames):
    r = (height * width * latent_frames) ** 0.5 / 512
    return r * t / (1 + (r - 1) * t)


SHIFT = (
    Mistake(
        "areas compared",
        _with_ratio(lambda h, w, f: h * w / 512**2 * math.sqrt(f)),
        "You compare areas, without the root: h·w / 512².",
        "Averaged over n pixels that look alike, noise shrinks by √n. So the sides count: √(h·w) / 512.",
        "by how much should r grow when both sides double?",
    ),
    Mistake(
        "frames not rooted",
        _with_ratio(lambda h, w, f: math.sqrt(h * w) / 512 * f),
        "You multiply by the frames, not by their root.",
        "Four frames that look alike hide noise half as well, as four pixels do: √4.",
        "does a pixel more in time count differently from one in space?",
    ),
    Mistake(
        "frames forgotten",
        _with_ratio(lambda h, w, f: math.sqrt(h * w) / 512),
        "Right for one frame only: the length is missing in r.",
        "Frames repeat each other even more than pixels do.",
        "which argument does your function never use?",
    ),
    Mistake(
        "frames in seventeens",
        _with_ratio(lambda h, w, f: math.sqrt(h * w * (f if f == 1 else f // 17 * 5)) / 512),
        "Your times collapse to 0: for fewer than 17 frames, f // 17 · 5 is nothing.",
        "`latent_frames` is counted already. Where r = 0 every t becomes 0, and training never sees noise.",
        "how many latent frames does your formula give a clip of 12?",
    ),
    Mistake(
        "inverse",
        _bent(lambda r, u: u / (r + (1 - r) * u)),
        "You shift the other way: large films get less noise.",
        "That is the inverse, with 1/r for r.",
        "for r > 1, should t = 500 become larger or smaller?",
    ),
    Mistake(
        "t not divided",
        _undivided,
        "Your times hardly depend on t: you put t itself in the place of u.",
        "The formula holds for shares from 0 to 1: u = t/1000, and times 1000 at the end.",
        "where does your function send t = 1000?",
    ),
    Mistake(
        "result from 0 to 1",
        lambda *args: _shift(*args) / 1000,
        "Your result lies between 0 and 1: the factor of 1000 at the end is missing.",
        "t goes in and comes out in the same units.",
        "which t should 1000 become?",
    ),
    Mistake(
        "only multiplied",
        _bent(lambda r, u: r * u),
        "You multiply by r, and so leave the range of 0 to 1000.",
        "The divisor 1 + (r − 1)·u holds the ends in place: 0 stays 0 and 1000 stays 1000.",
        "what does your function make of t = 1000 for r = 2?",
    ),
    Mistake(
        "r for r − 1 below",
        _bent(lambda r, u: r * u / (1 + r * u)),
        "Below the line stands r·u where (r − 1)·u should stand.",
        "Then r = 1 changes the times, though it means: as it is.",
        "what should your function return for an image of 512×512?",
    ),
    Mistake(
        "height alone",
        _with_ratio(lambda h, w, f: h / 512 * math.sqrt(f)),
        "Right for squares only: your r takes the height for the side.",
        "The side of a square of the same area is √(height · width).",
        "are 720×1280 and 1280×720 not equally many pixels?",
    ),
)
