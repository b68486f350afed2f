"""Wrong answers that newcomers really give about straight paths and their loss, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake


def _path(x0, noise, t, num_timesteps=1000, kept=lambda u: 1 - u, added=lambda u: u, per_sample=None):
    u = t / num_timesteps
    u = per_sample(u, x0) if per_sample else u.reshape(-1, *[1] * (x0.ndim - 1))
    return kept(u) * x0 + added(u) * noise


INTERPOLATE = (
    Mistake(
        "data and noise exchanged",
        lambda x0, noise, t, n=1000: _path(noise, x0, t, n),
        "Your path runs the other way: t = 0 is noise and t = 1000 the film.",
        "Both conventions are in use. Here 0 is data, as in DDPM: the larger t, the noisier.",
        "what should come back for t = 0?",
    ),
    Mistake(
        "t not divided",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, 1),
        "Your numbers are huge: t was taken for a share from 0 to 1.",
        "t runs from 0 to `num_timesteps`. Divided by it, it says which share of the way has been gone.",
        "what is 1 − t for t = 500?",
    ),
    Mistake(
        "square roots",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n, lambda u: (1 - u).sqrt(), lambda u: u.sqrt()),
        "You mix with square roots, as DDPM does.",
        "That keeps the variance and bends the path. A straight one has the plain shares 1 − u and u.",
        "in which direction does your path start, and is it the same in its middle?",
    ),
    Mistake(
        "always divided by 1000",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, 1000),
        "You divide by 1000, whatever `num_timesteps` says.",
        "1000 is only the default.",
        "which argument does your function never use?",
    ),
    Mistake(
        "not reshaped",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n, per_sample=lambda u, x: u),
        "A row of B numbers meets the last axis of the film, its width.",
        "Axes are aligned from the last. A number per sample needs axes of size 1 behind it.",
        "what shape must u have to meet (B, C, T, H, W) at its first axis?",
    ),
    Mistake(
        "for videos only",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n, per_sample=lambda u, x: u.reshape(-1, 1, 1, 1, 1)),
        "Right for videos, wrong for everything else: your u has always five axes.",
        "The lesson also draws paths of points in the plane, (B, 2); the number of axes comes from x0.",
        "how many ones follow for an x0 of n axes?",
    ),
    Mistake(
        "film not faded",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n, kept=torch.ones_like),
        "You add noise, but the film stays as strong as it was.",
        "At t = 1000 nothing of it may be left, or sampling could not begin with noise alone.",
        "what should come back for t = 1000?",
    ),
    Mistake(
        "whole steps only",
        lambda x0, noise, t, n=1000: _path(x0, noise, t.long(), n),
        "You cut t down to a whole number.",
        "In DDPM t is an index into a table. Here it is a time, and may lie anywhere between 0 and 1000.",
        "is there a table in this formula?",
    ),
    Mistake(
        "the first sample's t for all",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n, per_sample=lambda u, x: u[0]),
        "The whole batch gets the time of its first sample.",
        "Every clip in a training batch has a t of its own.",
        "how many different t does a batch of 16 hold?",
    ),
    Mistake(
        "divided by one less",
        lambda x0, noise, t, n=1000: _path(x0, noise, t, n - 1),
        "Nearly right: you divide by `num_timesteps` − 1.",
        "t is no index 0 … n − 1, it is a time from 0 to n, both ends included.",
        "is anything of the film left at t = num_timesteps, or less than nothing?",
    ),
)


def _loss(velocity, x0, noise, mask=None, aim=torch.sub, distance=torch.square, frames=None):
    error = distance(velocity - aim(x0, noise))
    if mask is None:
        return error.flatten(1).mean(1)
    return frames(error, mask) if frames else _over(error, mask) / (mask.sum(1) * error[:, :, 0].flatten(1).shape[1])


def _over(error, mask):
    return (error * mask[:, None, :, None, None]).flatten(1).sum(1)


def _one_number(velocity, x0, noise, mask=None):
    error = (velocity - (x0 - noise)) ** 2
    if mask is None:
        return error.mean()
    mask = mask[:, None, :, None, None].expand_as(error)
    return (error * mask).sum() / mask.sum()


def _sum(velocity, x0, noise, mask=None):
    error = (velocity - (x0 - noise)) ** 2
    return error.flatten(1).sum(1) if mask is None else _over(error, mask)


LOSS = (
    Mistake(
        "the other direction",
        lambda *args: _loss(*args, aim=lambda x0, noise: noise - x0),
        "Your arrow points from data to noise: noise − x0.",
        "That is dx/dt, and many projects learn it. Here v = x0 − noise, what sampling adds on its way to data.",
        "at t = 1000, what has to be added to noise to reach x0?",
    ),
    Mistake(
        "the noise as target",
        lambda *args: _loss(*args, aim=lambda x0, noise: noise),
        "You compare with the noise, as DDPM does.",
        "Here the network says where to go, not what to take away: x0 − noise.",
        "what is the velocity on a straight line from noise to x0?",
    ),
    Mistake(
        "data as target",
        lambda *args: _loss(*args, aim=lambda x0, noise: x0),
        "You compare with x0 itself.",
        "The velocity is a difference of two places: x0 − noise.",
        "where does one arrive by adding x0 to noise?",
    ),
    Mistake(
        "one number for the batch",
        _one_number,
        "You return one number for the whole batch.",
        "A loss per sample lets one weigh clips, or plot the loss against t; the mean can still be taken later.",
        "which axes belong to one sample?",
    ),
    Mistake(
        "sum",
        _sum,
        "You sum where you should take the mean.",
        "A film of twice the frames would count twice, and a learning rate for 16 frames would not do for 32.",
        "does your loss change if every frame is shown twice?",
    ),
    Mistake(
        "mask ignored",
        lambda velocity, x0, noise, mask=None: _loss(velocity, x0, noise),
        "Frames with mask False count in your loss.",
        "They are given, not generated: the network would be scolded for what nobody asks of it.",
        "which argument does your function never use?",
    ),
    Mistake(
        "divided by all frames",
        lambda *args: _loss(*args, frames=lambda error, mask: _over(error, mask) / error[0].numel()),
        "The right frames are summed, but you divide by the number of all.",
        "Then a clip with four frames of five given would seem five times as good.",
        "how many numbers are in the frames that count?",
    ),
    Mistake(
        "divided by frames only",
        lambda *args: _loss(*args, frames=lambda error, mask: _over(error, mask) / mask.sum(1)),
        "You divide by the number of frames, not of their elements.",
        "With a mask that is True everywhere the loss should be the one without a mask.",
        "how many numbers does one frame hold?",
    ),
    Mistake(
        "mask the other way round",
        lambda velocity, x0, noise, mask=None: _loss(velocity, x0, noise, None if mask is None else ~mask),
        "You count the frames with mask False.",
        "True means: this frame is generated, and counts.",
        "for image to video, does the first frame count?",
    ),
    Mistake(
        "one divisor for the batch",
        lambda *args: _loss(
            *args, frames=lambda error, mask: _over(error, mask) / (error[0, :, 0].numel() * mask.float().sum(1).mean())
        ),
        "You divide every clip by the average number of frames that count.",
        "Each clip has a mask of its own, and so its own number of frames.",
        "two clips, one frame and five frames that count: is the loss of both still a mean?",
    ),
    Mistake(
        "not squared",
        lambda *args: _loss(*args, distance=torch.abs),
        "You take the absolute difference.",
        "The average of all arrows through a point is what squares ask for; absolute values ask for the median.",
        "if two films cross in one point, which arrow should the network say there?",
    ),
    Mistake(
        "velocity detached",
        lambda velocity, *rest: _loss(velocity.detach(), *rest),
        "The value is right, but no gradient reaches the velocity: it was detached, or its graph is used up.",
        "The loss is a number to look at then, and nothing learns from it.",
        "what would `loss.mean().backward()` change?",
    ),
)
