"""`generate` of lesson 09 as a learner meets it: wrong ways that no exercise lists, and right ones of every sort."""

import math

import torch

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


def noise_of(parts, seed):
    return torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))


def way(prompt, parts, steps, scale, seed, *, z=None, guide=None, t_of=None, times=None, finish=None, text=None):
    """The right way, with parts of it to be replaced."""
    y, mask = text or parts.encode([prompt])
    none, none_mask = parts.null(1)
    z = noise_of(parts, seed) if z is None else z
    guide = guide or (lambda cond, uncond, step: uncond + scale * (cond - uncond))
    for step, time in enumerate(times or [1000 * (1 - step / steps) for step in range(steps)]):
        t = t_of(time) if t_of else torch.full((len(z),), float(time))
        z = z + guide(parts.velocity(z, t, y, mask), parts.velocity(z, t, none, none_mask), step) / steps
    return finish(z) if finish else parts.decode(z).clamp(-1, 1)


@wrong("09.generate")
def global_seed(prompt, parts, steps, scale, seed):
    torch.manual_seed(seed)
    return way(prompt, parts, steps, scale, seed, z=torch.randn(1, *parts.latent_shape))


@wrong("09.generate")
def sides_walk_alone(prompt, parts, steps, scale, seed):
    """Two films, one with and one without text, guided only at the end."""
    cond = way(prompt, parts, steps, 1.0, seed, finish=lambda z: z)
    uncond = way(prompt, parts, steps, 0.0, seed, finish=lambda z: z)
    return parts.decode(uncond + scale * (cond - uncond)).clamp(-1, 1)


@wrong("09.generate")
def midpoint(prompt, parts, steps, scale, seed):
    text, none, z = parts.encode([prompt]), parts.null(1), noise_of(parts, seed)

    def velocity(z, t):
        cond, uncond = (parts.velocity(z, torch.full((1,), t), *side) for side in (text, none))
        return uncond + scale * (cond - uncond)

    for step in range(steps):
        t = 1000 * (1 - step / steps)
        half = z + velocity(z, t) / steps / 2
        z = z + velocity(half, t - 500 / steps) / steps
    return parts.decode(z).clamp(-1, 1)


@wrong("09.generate")
def takes_velocity_for_noise(prompt, parts, steps, scale, seed):
    """Predicts x0 = z − noise and mixes anew: another convention."""
    text, none, z = parts.encode([prompt]), parts.null(1), noise_of(parts, seed)
    for step in range(steps):
        level, then = 1 - step / steps, 1 - (step + 1) / steps
        t = torch.full((1,), 1000 * level)
        cond, uncond = parts.velocity(z, t, *text), parts.velocity(z, t, *none)
        noise = uncond + scale * (cond - uncond)
        z = (1 - then) * (z - level * noise) / max(1 - level, 1e-3) + then * noise
    return parts.decode(z).clamp(-1, 1)


@wrong("09.generate")
def one_embedding_per_letter(prompt, parts, steps, scale, seed):
    return way(prompt, parts, steps, scale, seed, text=parts.encode(list(prompt)))


@wrong("09.generate")
def a_bare_prompt(prompt, parts, steps, scale, seed):
    return way(prompt, parts, steps, scale, seed, text=parts.encode(prompt))


@wrong("09.generate")
def both_texts_and_one_film(prompt, parts, steps, scale, seed):
    """Right numbers by broadcasting: a network would refuse one film with two texts."""
    y, mask = (torch.cat(pair) for pair in zip(parts.encode([prompt]), parts.null(1), strict=True))
    z = noise_of(parts, seed)
    for step in range(steps):
        cond, uncond = parts.velocity(z, torch.full((1,), 1000 * (1 - step / steps)), y, mask).chunk(2)
        z = z + (uncond + scale * (cond - uncond)) / steps
    return parts.decode(z).clamp(-1, 1)


def with_noise(make):
    return lambda prompt, parts, steps, scale, seed: way(prompt, parts, steps, scale, seed, z=make(parts, seed))


def with_times(make):
    return lambda prompt, parts, steps, scale, seed: way(prompt, parts, steps, scale, seed, times=make(steps))


def with_t(make):
    return lambda *args: way(*args, t_of=make)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


several(
    "09.generate",
    with_noise(lambda parts, seed: torch.rand((1, *parts.latent_shape), generator=seeded(seed)) * 2 - 1),
    with_noise(lambda parts, seed: torch.randn((1, *parts.latent_shape), generator=seeded(seed + 1))),
    with_noise(lambda parts, seed: torch.randn((1, *parts.latent_shape[::-1]), generator=seeded(seed)).mT.mT),
    with_noise(lambda parts, seed: torch.randn((1, *parts.latent_shape), generator=seeded(seed), dtype=torch.float64)),
    with_noise(lambda parts, seed: torch.randn((2, *parts.latent_shape), generator=seeded(seed))[1:]),
    with_noise(lambda parts, seed: 0 * noise_of(parts, seed)),
    with_noise(lambda parts, seed: noise_of(parts, seed)[0]),
    with_noise(lambda parts, seed: noise_of(parts, seed).clamp(-1, 1)),
    with_times(lambda steps: [1000 * (1 - step / steps) - 1 for step in range(steps)]),
    with_times(lambda steps: [999 * (1 - step / steps) for step in range(steps)]),
    with_times(lambda steps: [round(1000 * (1 - step / steps)) for step in range(steps)]),
    with_times(lambda steps: [1000 * (1 - (step + 0.5) / steps) for step in range(steps)]),
    with_times(lambda steps: [1000.0] * steps),
    with_times(lambda steps: list(range(steps, 0, -1))),
    with_times(lambda steps: [2 * math.pi * 1000 * (1 - step / steps) for step in range(steps)]),
    with_t(lambda time: time),
    with_t(lambda time: torch.tensor(time)),
    with_t(lambda time: torch.full((1, 1), time)),
    with_t(lambda time: torch.full((1, 1, 1, 1, 1), time)),
    with_t(lambda time: torch.full((2,), time)),
    with_t(lambda time: torch.tensor([time]).half()),
    lambda *args: way(*args)[0],
    lambda *args: way(*args).half(),
    lambda *args: way(*args).numpy(),
    lambda *args: way(*args).clamp(0, 1),
    lambda *args: (way(*args), args[-1]),
    lambda *args: ((way(*args) + 1) * 127.5).to(torch.uint8),
    lambda *args: torch.tanh(way(*args)),
    lambda *args: way(*args, finish=lambda z: args[1].decode(z.clone()).tanh()),
    lambda *args: way(*args, finish=lambda z: args[1].decode(z) / args[1].decode(z).abs().amax()),
    lambda *args: way(*args, finish=lambda z: args[1].decode(z).clamp(-1, 1).transpose(1, 2)),
    lambda *args: way(*args, guide=lambda cond, uncond, step: uncond),
    lambda *args: way(*args, guide=lambda cond, uncond, step: args[3] * (cond - uncond)),
    lambda *args: way(*args, guide=lambda cond, uncond, step: args[3] * cond),
    lambda *args: way(*args, guide=lambda cond, uncond, step: uncond + (args[3] - 1) * (cond - uncond)),
    lambda *args: way(*args, guide=lambda cond, uncond, step: cond if step else uncond + args[3] * (cond - uncond)),
    lambda *args: way(args[0].upper(), *args[1:]),
    lambda *args: way("a large red peony high on the left", *args[1:]),
    lambda *args: way(args[0], args[1], 2 * args[2], *args[3:]),
    lambda *args: way(args[0], args[1], 30, *args[3:]),
)


@right("09.generate")
def frozen(prompt, parts, steps, scale, seed):
    with torch.inference_mode():
        return way(prompt, parts, steps, scale, seed)


@right("09.generate")
def noise_without_the_batch_axis(prompt, parts, steps, scale, seed):
    """The same numbers in the same order."""
    return way(prompt, parts, steps, scale, seed, z=torch.randn(parts.latent_shape, generator=seeded(seed))[None])


@right("09.generate")
def previews(prompt, parts, steps, scale, seed):
    """Looks at what the decoder makes of every step's latents."""
    for count in range(steps):
        assert parts.decode(noise_of(parts, seed + count)).ndim == 5
    return way(prompt, parts, steps, scale, seed)
