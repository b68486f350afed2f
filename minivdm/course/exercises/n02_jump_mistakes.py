"""Wrong answers that newcomers really give about the jump to x_t and back, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake


def _at(a, t, x):
    return a[t].reshape(-1, *[1] * (x.ndim - 1))


def _mix(x, t, noise, a, keep=lambda a: a.sqrt(), add=lambda a: (1 - a).sqrt()):
    a = _at(a, t, x)
    return keep(a) * x + add(a) * noise


EXTRACT = (
    Mistake(
        "not reshaped",
        lambda a, t, x_shape: a[t],
        "You picked the right numbers, but they stand in a row of shape (B,).",
        "Multiplied by a clip (B, C, T, H, W), a row lines up with the last axis, the width, and not with the batch.",
        "what would happen, without any error, if the width happened to be B?",
    ),
    Mistake(
        "one step early",
        lambda a, t, x_shape: a[t - 1].reshape(-1, *[1] * (len(x_shape) - 1)),
        "Your numbers belong to t − 1 (and for t = 0 to the very last step: index −1 wraps around).",
        "In this course timesteps start at 0 and are indices as they are.",
        "which entry of `a` belongs to a clip that has had exactly one noising step?",
    ),
    Mistake(
        "for videos only",
        lambda a, t, x_shape: a[t].reshape(-1, 1, 1, 1, 1),
        "Right for videos, wrong for everything else: you always return five axes.",
        "The number of axes comes from `x_shape`. Soon we shall noise points in a plane, of shape (B, 2).",
        "how many ones are needed for an `x_shape` of length n?",
    ),
    Mistake(
        "spread over the whole shape",
        lambda a, t, x_shape: a[t].reshape(-1, *[1] * (len(x_shape) - 1)).expand(x_shape),
        "You return a copy for every pixel, shape `x_shape`.",
        "Axes of size 1 do the same by broadcasting.",
        "how much memory does a (B, 3, 17, 64, 64) tensor of B different numbers take?",
    ),
    Mistake(
        "batch axis last",
        lambda a, t, x_shape: a[t].reshape(*[1] * (len(x_shape) - 1), -1),
        "The axes of size 1 stand in front of the batch axis, not behind it.",
        "A clip has its batch axis first, so the numbers must lie along the first axis too.",
        "which axis of your result lines up with the axis of size B?",
    ),
    Mistake(
        "the first sample's t for all",
        lambda a, t, x_shape: a[t[0]].reshape(*[1] * len(x_shape)),
        "You looked up `t[0]` only.",
        "Every clip in a training batch gets a timestep of its own.",
        "how many different t does a batch of 16 clips hold?",
    ),
)

Q_SAMPLE = (
    Mistake(
        "no square roots",
        lambda x, t, noise, a: _mix(x, t, noise, a, lambda a: a, lambda a: 1 - a),
        "You computed ᾱ·x0 + (1 − ᾱ)·noise: both square roots are missing.",
        "ᾱ and 1 − ᾱ are shares of the variance; a factor acts on variance squared. Without roots the clip goes "
        "grey half way.",
        "what is the variance of your result for ᾱ = 1/2, if clip and noise have variance 1?",
    ),
    Mistake(
        "noise without its root",
        lambda x, t, noise, a: _mix(x, t, noise, a, add=lambda a: 1 - a),
        "The clip is right, the noise is multiplied by 1 − ᾱ instead of √(1 − ᾱ).",
        "So there is too little noise, most of all in the early steps.",
        "do the squares of your two factors add up to 1?",
    ),
    Mistake(
        "clip without its root",
        lambda x, t, noise, a: _mix(x, t, noise, a, keep=lambda a: a),
        "The noise is right, the clip is multiplied by ᾱ instead of √ᾱ.",
        "The clip fades faster than the noise makes up for.",
        "do the squares of your two factors add up to 1?",
    ),
    Mistake(
        "clip and noise swapped",
        lambda x, t, noise, a: _mix(noise, t, x, a),
        "√ᾱ multiplies the noise and √(1 − ᾱ) the clip: they have changed places.",
        "ᾱ is near 1 in the beginning, and there the clip is still nearly whole.",
        "what should come out for ᾱ = 1?",
    ),
    Mistake(
        "noise subtracted",
        lambda x, t, noise, a: _mix(x, t, -noise, a),
        "Your noise has the opposite sign.",
        "Noise is symmetric, but the network will be taught to find this very noise, and the sampler subtracts it.",
        "what would a perfect sampler do to your x_t?",
    ),
    Mistake(
        "one step early",
        lambda x, t, noise, a: _mix(x, t - 1, noise, a),
        "You used ᾱ_{t−1}; for t = 0 that wraps around to the last step, and the clean clip becomes noise.",
        "t = 0 has had one noising step, so its share is ᾱ_0 = `alphas_cumprod[0]`.",
        "what does `alphas_cumprod[-1]` hold?",
    ),
    Mistake(
        "the first sample's t for all",
        lambda x, t, noise, a: a[t[0]].sqrt() * x + (1 - a[t[0]]).sqrt() * noise,
        "Sample 0 is right, and all the others got the t of sample 0.",
        "Every clip of the batch is noised to its own t; `extract` looks all of them up.",
        "why is a batch with many different t a better lesson for the network?",
    ),
    Mistake(
        "product taken twice",
        lambda x, t, noise, a: _mix(x, t, noise, torch.cumprod(a, 0)),
        "Right at t = 0 only, then far too noisy: you took a running product of `alphas_cumprod`.",
        "The bar in ᾱ says that the product is already in it.",
        "what is the name of the argument short for?",
    ),
)

PREDICT_X0 = (
    Mistake(
        "not divided",
        lambda x, t, noise, a: x - (1 - _at(a, t, x)).sqrt() * noise,
        "You took the noise away and stopped: √ᾱ·x0 is left.",
        "The clip was shrunk by √ᾱ on the way; divide to undo it.",
        "how bright is your x0 for large t?",
    ),
    Mistake(
        "only x_t divided",
        lambda x, t, noise, a: x / _at(a, t, x).sqrt() - (1 - _at(a, t, x)).sqrt() * noise,
        "You divided x_t by √ᾱ but not the noise.",
        "Both sides of the equation are divided: the noise's factor becomes √((1 − ᾱ)/ᾱ) = √(1/ᾱ − 1).",
        "where are the brackets in (x_t − …)/√ᾱ?",
    ),
    Mistake(
        "divided by ᾱ",
        lambda x, t, noise, a: (x - (1 - _at(a, t, x)).sqrt() * noise) / _at(a, t, x),
        "You divided by ᾱ instead of √ᾱ.",
        "`q_sample` multiplied by √ᾱ; undo exactly that.",
        "does `predict_x0(q_sample(x0, …), …)` give x0 back?",
    ),
    Mistake(
        "noise added",
        lambda x, t, noise, a: (x + (1 - _at(a, t, x)).sqrt() * noise) / _at(a, t, x).sqrt(),
        "You added the noise a second time.",
        "`q_sample` added it, so its inverse takes it away.",
        "is your x0 cleaner than x_t?",
    ),
    Mistake(
        "clipped",
        lambda x, t, noise, a: ((x - (1 - _at(a, t, x)).sqrt() * noise) / _at(a, t, x).sqrt()).clamp(-1, 1),
        "All is right between −1 and 1, and everything beyond is cut off.",
        "Clipping is the sampler's decision (`p_sample` has a switch for it). This function is the plain inverse.",
        "could one still get x_t back from your result?",
    ),
    Mistake(
        "1 − ᾱ without its root",
        lambda x, t, noise, a: (x - (1 - _at(a, t, x)) * noise) / _at(a, t, x).sqrt(),
        "You subtract (1 − ᾱ)·noise: the root is missing, so some noise stays.",
        "`q_sample` added √(1 − ᾱ)·noise; take away as much.",
        "for ᾱ = 3/4, how much noise was added, and how much do you remove?",
    ),
    Mistake(
        "one step early",
        lambda x, t, noise, a: (x - (1 - _at(a, t - 1, x)).sqrt() * noise) / _at(a, t - 1, x).sqrt(),
        "You used ᾱ_{t−1} (and for t = 0 the last entry).",
        "x_t was made with ᾱ_t, and only ᾱ_t takes it apart.",
        "which index did `q_sample` use?",
    ),
)

PREDICT_V = (
    Mistake(
        "sign",
        lambda x, t, noise, a: -_mix(noise, t, -x, a),
        "Your v has the opposite sign: it points from the noise to the clip.",
        "By convention v is the direction in which x_t moves as t grows, towards the noise.",
        "at ᾱ = 1, should v be noise or −noise?",
    ),
    Mistake(
        "coefficients swapped",
        lambda x, t, noise, a: (1 - _at(a, t, x)).sqrt() * noise - _at(a, t, x).sqrt() * x,
        "√ᾱ and √(1 − ᾱ) have changed places.",
        "v is perpendicular to x_t: the factor that x0 has in x_t is the factor that noise has in v.",
        "multiply your v with x_t = √ᾱ·x0 + √(1 − ᾱ)·noise: do the terms cancel?",
    ),
    Mistake(
        "added",
        lambda x, t, noise, a: _mix(noise, t, x, a),
        "You added the two parts.",
        "One of them needs a minus, or v would not turn at a right angle.",
        "for two perpendicular axes x0 and noise, where do x_t and your v point?",
    ),
    Mistake(
        "no square roots",
        lambda x, t, noise, a: _at(a, t, x) * noise - (1 - _at(a, t, x)) * x,
        "The square roots are missing.",
        "The point on the circle is (√ᾱ, √(1 − ᾱ)): cosine and sine of one angle.",
        "do the squares of your factors add up to 1?",
    ),
    Mistake(
        "a straight line",
        lambda x, t, noise, a: noise - x,
        "You return noise − x0, whatever t is.",
        "That is the velocity along a straight line, which comes in lesson 08. Here the way is a quarter of a circle.",
        "on a circle, does the direction stay the same all the way?",
    ),
)


def _weights(x, t, points, a, divide=lambda a: 2 * (1 - a), shrink=lambda a: a.sqrt(), power=1.0, dim=1):
    a = a[t][:, None]
    distances = ((x[:, None] - shrink(a)[:, None] * points) ** 2).sum(2) ** power
    return torch.softmax(-distances / divide(a), dim)


OPTIMAL_DENOISER = (
    Mistake(
        "points not shrunk",
        lambda x, t, points, a: _weights(x, t, points, a, shrink=torch.ones_like) @ points,
        "You compare x_t with the points themselves.",
        "By step t a point has moved to √ᾱ times its place; x_t lies around there.",
        "where would x_t lie if the noise were exactly zero?",
    ),
    Mistake(
        "2 forgotten",
        lambda x, t, points, a: _weights(x, t, points, a, divide=lambda a: 1 - a) @ points,
        "Your weights are too sure of themselves: a factor 2 is missing under the squared distance.",
        "The exponent of a Gaussian is −d²/(2σ²).",
        "how much more probable does your formula make a point one σ nearer?",
    ),
    Mistake(
        "nearest point",
        lambda x, t, points, a: points[_weights(x, t, points, a).argmax(1)],
        "You return the single most probable point.",
        "The mean of what x0 may be has the smallest squared error, and it usually lies between the points.",
        "for pure noise, which of the points would you bet on, and what is the average?",
    ),
    Mistake(
        "plain average",
        lambda x, t, points, a: points.mean(0).expand_as(x),
        "You return the average of all points, whatever x_t is.",
        "That is right for pure noise only; x_t tells which points are more probable.",
        "at t = 0, how far is x_t from its own point?",
    ),
    Mistake(
        "softmax over the batch",
        lambda x, t, points, a: _weights(x, t, points, a, dim=0) @ points,
        "Your weights add up to 1 over the batch instead of over the points.",
        "For each x_t on its own, the probabilities of all the points add up to 1.",
        "what shape have your weights, and which axis counts the points?",
    ),
    Mistake(
        "distance not squared",
        lambda x, t, points, a: _weights(x, t, points, a, power=0.5) @ points,
        "You used the distance where its square belongs.",
        "A Gaussian falls with the squared distance.",
        "by which factor does the probability fall at 2σ, and at 4σ?",
    ),
    Mistake(
        "divided by ᾱ",
        lambda x, t, points, a: _weights(x, t, points, a, divide=lambda a: 2 * a) @ points,
        "You divide by 2ᾱ, the clip's share of the variance.",
        "What scatters x_t around √ᾱ·p is the noise, with variance 1 − ᾱ.",
        "should you be surer of the point at small t or at large t?",
    ),
)
