"""Wrong ways from a prompt to a film that newcomers really go, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake


def _guided(cond, uncond, scale):
    return uncond + scale * (cond - uncond)


def _falling(step, steps):
    return 1000 * (1 - step / steps)


def _noise(parts, seed):
    return torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))


def _film(parts, z):
    return parts.decode(z).clamp(-1, 1)


def _null(parts, mask):
    return parts.null(1)


def _way(
    prompt,
    parts,
    steps,
    scale,
    seed,
    *,
    guide=_guided,
    time=_falling,
    move=1.0,
    extra=0,
    null=_null,
    finish=_film,
    z=None,
):
    """The right way, with one part of it to be replaced."""
    y, mask = parts.encode([prompt])
    none, none_mask = null(parts, mask)
    z = _noise(parts, seed) if z is None else z
    for step in range(steps + extra):
        t = torch.full((1,), float(time(step, steps)))
        velocity = guide(parts.velocity(z, t, y, mask), parts.velocity(z, t, none, none_mask), scale)
        z = z + move * velocity / steps
    return finish(parts, z)


def _wrong(**part):
    return lambda *args: _way(*args, **part)


def _with_all_tokens(parts, mask):
    return parts.null(1)[0], torch.ones_like(mask)


def _deaf_to_masks(prompt, parts, steps, scale, seed):
    class Unmasked:
        latent_shape, null, decode = parts.latent_shape, parts.null, parts.decode

        @staticmethod
        def encode(texts):
            y, mask = parts.encode(texts)
            return y, torch.ones_like(mask)

        @staticmethod
        def velocity(z, t, y, mask):
            return parts.velocity(z, t, y, torch.ones_like(mask))

    return _way(prompt, Unmasked, steps, scale, seed)


def _two_noises(prompt, parts, steps, scale, seed):
    y, mask = (torch.cat(pair) for pair in zip(parts.encode([prompt]), parts.null(1), strict=True))
    z = torch.randn((2, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        cond, uncond = parts.velocity(z, torch.full((2,), float(_falling(step, steps))), y, mask).chunk(2)
        z = z + _guided(cond, uncond, scale) / steps
    return _film(parts, z[:1])


def _uniform(prompt, parts, steps, scale, seed):
    z = torch.rand((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    return _way(prompt, parts, steps, scale, seed, z=z)


def _whole_steps(prompt, parts, steps, scale, seed):
    return _way(prompt, parts, steps, scale, seed, move=steps)


GENERATE = (
    Mistake(
        "guidance exchanged",
        _wrong(guide=lambda cond, uncond, scale: _guided(uncond, cond, scale)),
        "Your guidance leads away from the prompt: with text and without have changed places.",
        "It starts at the prediction without text and goes towards the one with it. In a batch of two, mind which "
        "half is which.",
        "which of your two predictions has scale 1 all to itself?",
    ),
    Mistake(
        "no guidance",
        _wrong(guide=lambda cond, uncond, scale: cond),
        "Your film ignores `scale`: it follows the prediction with text alone.",
        "That is guidance at scale 1. The prompt is obeyed when its difference from no text is made larger.",
        "what does `parts.null` do in your function?",
    ),
    Mistake(
        "scale counted from the text",
        _wrong(guide=lambda cond, uncond, scale: cond + scale * (cond - uncond)),
        "You guide by one too much: scale 1 should be the model's own prediction with text, yours goes beyond.",
        "Papers differ here (their w is our scale − 1); in this course one starts at the prediction without text.",
        "what does your guidance give at scale 0?",
    ),
    Mistake(
        "an empty prompt for null",
        _wrong(null=lambda parts, mask: parts.encode([""])),
        "For “no text” you encode an empty prompt.",
        "The network never learnt that as “nothing”: captions were replaced by `null`, which it learnt itself.",
        "what did the network hear in training when a caption was dropped?",
    ),
    Mistake(
        "null unmasked",
        _wrong(null=_with_all_tokens),
        "Your null text comes with a mask of ones: its padding is heard.",
        "`parts.null(1)` returns embeddings and a mask, as `encode` does; use both.",
        "what becomes of guidance when one side hears padding?",
    ),
    Mistake(
        "the prompt's mask for null",
        _wrong(null=lambda parts, mask: (parts.null(1)[0], mask)),
        "Your null text goes with the mask of the prompt.",
        "Each text has its own mask: `none, none_mask = parts.null(1)`.",
        "how long is the null text in your version, and how long for another prompt?",
    ),
    Mistake(
        "no masks at all",
        _deaf_to_masks,
        "Your film hears all the padding: the masks are not used.",
        "`encode` and `null` each return embeddings and a mask; `velocity` needs them together.",
        "how many of the tokens are words in “a blue ring”?",
    ),
    Mistake(
        "t between 0 and 1",
        _wrong(time=lambda step, steps: 1 - step / steps),
        "Your t runs from 1 to 0, so the network takes everything for nearly clean.",
        "This network counts from 1000 (noise) to 0 (film).",
        "what would the network do with pure noise that is called finished?",
    ),
    Mistake(
        "t ascending",
        _wrong(time=lambda step, steps: 1000 * (step + 1) / steps),
        "Your t goes up: it should go from noise, 1000, down.",
        "z starts as noise, and t has to say so.",
        "what is in z when your t is smallest?",
    ),
    Mistake(
        "t from 0 upwards",
        _wrong(time=lambda step, steps: 1000 * step / steps),
        "Your t begins at 0 and goes up, while z begins as noise.",
        "0 is the finished film here. In step i, t = 1000 · (1 − i/steps).",
        "what does t = 0 say about z?",
    ),
    Mistake(
        "t one step ahead",
        _wrong(time=lambda step, steps: 1000 * (1 - (step + 1) / steps)),
        "Your t is that of the end of each step: it never is 1000, and at last 0.",
        "Euler asks for the velocity where it stands, at the beginning of the step.",
        "how noisy is z when you first call `velocity`?",
    ),
    Mistake(
        "t spread to 0",
        _wrong(time=lambda step, steps: torch.linspace(1000, 0, steps)[step]),
        "Your t are spread from 1000 to 0 with both ends: a little too far apart.",
        "n steps have n + 1 ends. The last one, 0, is where you arrive; nothing is asked there.",
        "how far apart are the entries of `torch.linspace(1000, 0, 5)`?",
    ),
    Mistake(
        "whole t rounded",
        _wrong(time=lambda step, steps: int(1000 * (1 - step / steps))),
        "Your t are whole numbers: their fractions were cut off.",
        "Rectified flow knows every t between 0 and 1000; with 6 steps it is 833.33 once.",
        "of which type is your t?",
    ),
    Mistake(
        "walking backwards",
        _wrong(move=-1.0),
        "You subtract the velocity: the way leads from noise to more noise.",
        "v = x0 − noise points from noise to film, and that is where we go.",
        "which way does v point?",
    ),
    Mistake(
        "whole steps",
        _whole_steps,
        "You go a whole v in every step.",
        "v leads from noise to film in one go. In `steps` steps, each goes v/steps.",
        "how far have you come after the last step?",
    ),
    Mistake(
        "steps in units of t",
        _wrong(move=1000.0),
        "Your steps are a thousand times too long: measured in t, not in parts of the way.",
        "t runs over 1000, but v is the whole way from noise to film: z ← z + v/steps.",
        "what is v times 1000?",
    ),
    Mistake(
        "one step too few",
        _wrong(extra=-1),
        "You decode before the last step: some noise is still in there.",
        "`steps` steps are to be made, i = 0 … steps − 1.",
        "how often is `velocity` called when steps is 1?",
    ),
    Mistake(
        "one step too many",
        _wrong(extra=1),
        "You go on for one step after the end, at t = 0.",
        "`steps` steps are to be made, i = 0 … steps − 1.",
        "where are you after `steps` steps of length 1/steps?",
    ),
    Mistake(
        "not clamped",
        _wrong(finish=lambda parts, z: parts.decode(z)),
        "The film is right except where it leaves [−1, 1].",
        "A decoder knows no limits, and a picture does: what is beyond would wrap or be refused when it is shown.",
        "how bright can a pixel be?",
    ),
    Mistake(
        "latents clamped",
        _wrong(finish=lambda parts, z: parts.decode(z.clamp(-1, 1))),
        "You clamp the latents, before they are decoded.",
        "Latents have no limits: in size 1 every third number lies beyond. It is the film's pixels that must be in "
        "[−1, 1].",
        "which values does a standard normal number take?",
    ),
    Mistake(
        "latents returned",
        _wrong(finish=lambda parts, z: z.clamp(-1, 1)),
        "You return latents: nothing was decoded.",
        "`parts.decode` turns latents (1, C, T, H, W) into a film (1, 3, T, H, W).",
        "how many colours do your frames have?",
    ),
    Mistake(
        "shown between 0 and 1",
        _wrong(finish=lambda parts, z: ((parts.decode(z) + 1) / 2).clamp(0, 1)),
        "Your film lies in [0, 1], as for a screen.",
        "In this course films lie in [−1, 1]; only what shows or writes them changes that.",
        "what value has black in your film?",
    ),
    Mistake(
        "always the same seed",
        lambda prompt, parts, steps, scale, seed: _way(prompt, parts, steps, scale, 0),
        "Your noise is that of seed 0, whatever `seed` says.",
        "Another seed should give another film of the same prompt.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "a noise for each side",
        _two_noises,
        "Your two predictions come from two different films: the batch of two has two noises.",
        "With and without text must be asked about the same z; only then is their difference what the text adds.",
        "what else than the text differs between the two halves of your batch?",
    ),
    Mistake(
        "uniform noise",
        _uniform,
        "Your noise lies between 0 and 1: `torch.rand` instead of `torch.randn`.",
        "The network learnt to start from standard normal noise, as many numbers below zero as above.",
        "what are mean and standard deviation of your noise?",
    ),
)
