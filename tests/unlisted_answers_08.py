"""Lesson 08 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from minivdm.course.exercise import get
from minivdm.denoisers import dit_blocks, dit_embeddings
from minivdm.diffusion.rectified_flow import RectifiedFlow, shift_ratio

WRONG, RIGHT = [], []
REFERENCE = {
    name: get(f"08.{name}").reference
    for name in (
        "patchify unpatchify modulate masked_modulate space_time_rearrange pos_embed_2d attention_cost "
        "flow_interpolate flow_loss euler_sample shift_timestep"
    ).split()
}


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


def around(name, *changes):
    """The right answer with something done to it afterwards."""
    several(f"08.{name}", *(lambda *args, change=change: change(REFERENCE[name](*args)) for change in changes))


# tokens


def padded(x, patch, mode="constant"):
    t, h, w = (-n % p for n, p in zip(x.shape[2:], patch, strict=True))
    return F.pad(x, (0, w, 0, h, 0, t), mode=mode)


def cut(x, patch, pattern="b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)"):
    return rearrange(x, pattern, pt=patch[0], ph=patch[1], pw=patch[2])


around(
    "patchify",
    lambda tokens: tokens.transpose(1, 2),
    lambda tokens: tokens.flatten(0, 1),
    lambda tokens: tokens.half(),
    lambda tokens: tokens.numpy(),
    lambda tokens: tokens.flip(1),
    lambda tokens: tokens.roll(1, 2),
    lambda tokens: tokens + 1e-2,
    lambda tokens: tokens.unsqueeze(1),
)
several(
    "08.patchify",
    lambda x, patch: cut(padded(x, patch, "replicate"), patch),
    lambda x, patch: cut(padded(x, patch, "circular"), patch),
    lambda x, patch: cut(padded(x, patch), patch, "b c (t pt) (h ph) (w pw) -> b (t h w) (pw ph pt c)"),
    lambda x, patch: cut(padded(x, patch), patch, "b c (t pt) (h ph) (w pw) -> b (t h w) (ph pw pt c)"),
    lambda x, patch: cut(padded(x, patch), patch, "b c (t pt) (h ph) (w pw) -> b t (h w) (pt ph pw c)"),
    lambda x, patch: cut(padded(x, patch), patch, "b c (t pt) (h ph) (w pw) -> (b t h w) (pt ph pw c)"),
    lambda x, patch: cut(padded(x, patch), patch, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt c ph pw)"),
    lambda x, patch: cut(padded(x, patch), patch[::-1]),
    lambda x, patch: cut(F.pad(x, [-n % p for n, p in zip(x.shape[2:], patch, strict=True) for _ in (0, 1)]), patch),
    lambda x, patch: cut(F.pad(x, [a for n, p in zip(x.shape[2:], patch, strict=True) for a in (0, -n % p)]), patch),
)

around(
    "unpatchify",
    lambda film: film.flip(2),
    lambda film: film.transpose(3, 4),
    lambda film: film[:, :, :-1],
    lambda film: film[:, :, :, :-1, :-1],
    lambda film: film[None],
    lambda film: film.half(),
    lambda film: film.clamp(-1, 1),
)
several(
    "08.unpatchify",
    lambda tokens, patch, c, grid: REFERENCE["unpatchify"](tokens, patch[::-1], c, grid[::-1]),
    lambda tokens, patch, c, grid: REFERENCE["unpatchify"](tokens, grid, c, patch),
    lambda tokens, patch, c, grid: REFERENCE["unpatchify"](tokens, patch, 4, grid),
)


@wrong("08.unpatchify")
def only_square_grids(tokens, patch, out_channels, grid):
    side = math.isqrt(grid[1] * grid[2])
    return REFERENCE["unpatchify"](tokens, patch, out_channels, (grid[0], side, side))


# modulation, places, costs


several(
    "08.modulate",
    lambda x, shift, scale: x * (1 - scale[:, None]) + shift[:, None],
    lambda x, shift, scale: x * (1 + scale[:, None]) - shift[:, None],
    lambda x, shift, scale: x * scale[:, None].exp() + shift[:, None],
    lambda x, shift, scale: x + scale[:, None] * shift[:, None],
    lambda x, shift, scale: x + x * scale[:, None] * shift[:, None],
    lambda x, shift, scale: x * (1 + scale.mean(0)) + shift.mean(0),
    lambda x, shift, scale: x * (1 + scale.mean(1)[:, None, None]) + shift.mean(1)[:, None, None],
    lambda x, shift, scale: (x * (1 + scale[:, None]) + shift[:, None]).half(),
    lambda x, shift, scale: x * (1 + scale[:, :, None]) + shift[:, :, None],
    lambda x, shift, scale: x * (2 + scale[:, None]) + shift[:, None],
    lambda x, shift, scale: x.mul_(1 + scale[:, None]).add_(shift[:, None]),
)


def by_frame(x, shift, scale, shift0, scale0, mask, choose=torch.where):
    def of_frames(noisy, clean):
        return choose(mask[:, :, None, None], noisy[:, None, None], clean[:, None, None])

    return x * (1 + of_frames(scale, scale0)) + of_frames(shift, shift0)


several(
    "08.masked_modulate",
    lambda x, *args: by_frame(x.flip(1), *args),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(x, shift, scale, shift0, scale0, mask.flip(1)),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(x, shift, scale, shift0, scale0, mask[:1].expand_as(mask)),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(
        x, shift, scale, shift0, scale0, mask.any(1, keepdim=True).expand_as(mask)
    ),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(x, shift, scale, shift0 * 0, scale0, mask),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(x, shift, scale, shift, scale, mask),
    lambda x, shift, scale, shift0, scale0, mask: by_frame(x, shift0, scale0, shift0, scale0, mask),
    lambda *args: by_frame(*args, choose=lambda mask, noisy, clean: noisy * mask),
    lambda *args: by_frame(*args, choose=lambda mask, noisy, clean: noisy * mask + clean),
    lambda *args: by_frame(*args).flatten(1, 2),
    lambda *args: by_frame(*args).half(),
)


@wrong("08.masked_modulate")
def writes_into_its_input(x, shift, scale, shift0, scale0, mask):
    out = by_frame(x, shift, scale, shift0, scale0, mask)
    x.copy_(out)
    return out


several(
    "08.space_time_rearrange",
    lambda tokens, T, S, axis: rearrange(
        tokens, "b (t s) d -> (b t) s d" if axis == "spatial" else "b (t s) d -> (b s) t d", t=T
    ),
    lambda tokens, T, S, axis: rearrange(tokens, "b (t s) d -> (b s) t d", t=T),
    lambda tokens, T, S, axis: tokens,
    lambda tokens, T, S, axis: REFERENCE["space_time_rearrange"](tokens, S, T, axis),
    lambda tokens, T, S, axis: REFERENCE["space_time_rearrange"](tokens, T, S, axis).transpose(1, 2),
    lambda tokens, T, S, axis: REFERENCE["space_time_rearrange"](tokens, T, S, axis).flip(1),
    lambda tokens, T, S, axis: REFERENCE["space_time_rearrange"](tokens, T, S, axis).half(),
    lambda tokens, T, S, axis: (
        tokens.reshape(-1, S, tokens.shape[2])
        if axis == "space"
        else tokens.reshape(-1, T, S, tokens.shape[2]).permute(2, 0, 1, 3).flatten(0, 1)
    ),
)


around(
    "pos_embed_2d",
    lambda places: places.expand(2, -1, -1),
    lambda places: places.half(),
    lambda places: places.round(decimals=2),
    lambda places: places.flip(1),
    lambda places: -places,
    lambda places: places.numpy(),
    lambda places: places.transpose(1, 2),
)


def places(h, w, dim, scale, base_size, base=10000.0, at=None, factor=None):
    half = dim // 2
    frequencies = base ** (-torch.arange(0, half, 2).double() / half)

    def waves(count):
        place = at(count) if at else torch.arange(count).double()
        place = place / scale * (1 if base_size is None else factor(count) if factor else base_size / count)
        return torch.cat([(place[:, None] * frequencies).sin(), (place[:, None] * frequencies).cos()], 1)

    return torch.cat([repeat(waves(w), "w d -> (h w) d", h=h), repeat(waves(h), "h d -> (h w) d", w=w)], 1)[None]


several(
    "08.pos_embed_2d",
    lambda *args: places(*args, base=1000.0),
    lambda *args: places(*args, base=9900.0),
    lambda *args: places(*args, at=lambda n: torch.arange(n).double() - (n - 1) / 2),
    lambda *args: places(*args, at=lambda n: torch.arange(n).double() + 0.5),
    lambda *args: places(*args, at=lambda n: torch.linspace(0, n, n).double()),
    lambda h, w, dim, scale, base: places(h, w, dim, scale, base, factor=lambda n: n / base),
    lambda h, w, dim, scale, base: places(h, w, dim, scale, base, factor=lambda n: base / math.sqrt(h * w)),
    lambda h, w, dim, scale, base: places(h, w, dim, scale, base, factor=lambda n: (base - 1) / max(n - 1, 1)),
    lambda h, w, dim, scale, base: places(h, w, dim, 1.0, base),
    lambda h, w, dim, scale, base: places(h, w, dim, scale, base)[:, : h * h],
)


several(
    "08.attention_cost",
    lambda frames, spatial, width, factorised: float(REFERENCE["attention_cost"](frames, spatial, width, factorised)),
    lambda frames, spatial, width, factorised: 2 * frames * spatial * (frames + spatial) * width,
    lambda frames, spatial, width, factorised: 2 * (frames * spatial) ** 2 * width,
    lambda frames, spatial, width, factorised: (
        2 * frames * spatial * (frames + spatial - 1 if factorised else frames * spatial) * width
    ),
    lambda frames, spatial, width, factorised: (
        2 * frames * spatial * (frames * spatial // (frames + spatial) if factorised else frames * spatial) * width
    ),
    lambda frames, spatial, width, factorised: (
        2 * frames * spatial * width * (frames + spatial if factorised else frames * spatial)
        + 4 * frames * spatial * width**2
    ),
    lambda frames, spatial, width, factorised: 2 * spatial**2 * width * (1 if factorised else frames**2),
    lambda frames, spatial, width, factorised: (
        2 * (frames**2 * spatial if factorised else (frames * spatial) ** 2) * width
    ),
)


# rectified flow


def path(x0, noise, t, n=1000, curve=lambda u: u, total=lambda u: 1.0):
    u = (t / n).reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - curve(u)) * total(u) * x0 + curve(u) * total(u) * noise


several(
    "08.flow_interpolate",
    lambda *args: path(*args, curve=lambda u: u**2),
    lambda *args: path(*args, curve=lambda u: 0.5 - 0.5 * torch.cos(math.pi * u)),
    lambda *args: path(*args, curve=lambda u: u.clamp(1e-2, 1)),
    lambda *args: path(*args, curve=lambda u: u.round(decimals=2)),
    lambda *args: path(*args, total=lambda u: (u**2 + (1 - u) ** 2).rsqrt()),
    lambda *args: path(*args).half(),
    lambda *args: path(*args).clamp(-1, 1),
    lambda x0, noise, t, n=1000: path(x0, noise, t.flip(0), n),
    lambda x0, noise, t, n=1000: path(x0, noise, t + 1, n),
    lambda x0, noise, t, n=1000: path(x0, noise, n - t, n),
    lambda x0, noise, t, n=1000: path(x0, torch.randn(x0.shape), t, n),
    lambda x0, noise, t, n=1000: path(x0, noise - x0, t, n),
    lambda x0, noise, t, n=1000: path(x0, noise, (t / n).clamp(0, 1), n),
)


def loss(velocity, x0, noise, mask=None, frames=None):
    error = (velocity - (x0 - noise)) ** 2
    if mask is None:
        return error.flatten(1).mean(1)
    return frames(error, mask) if frames else (error.mean((1, 3, 4)) * mask).sum(1) / mask.sum(1)


around(
    "flow_loss",
    lambda each: each.detach(),
    lambda each: torch.tensor(each.tolist()),
    lambda each: each.data.clone().requires_grad_(),
    lambda each: each.mean(),
    lambda each: each.sum(),
    lambda each: each[:, None],
    lambda each: each.sqrt(),
    lambda each: 0.5 * each,
    lambda each: each.half(),
    lambda each: each + (each - each.detach()),
    lambda each: each.detach() * each / each.detach().clamp(min=1e-3) * 2 - each.detach(),
)
several(
    "08.flow_loss",
    lambda velocity, x0, noise, mask=None: loss(velocity, x0, -noise, mask),
    lambda velocity, x0, noise, mask=None: loss(-velocity, x0, noise, mask),
    lambda velocity, x0, noise, mask=None: loss(velocity, x0.detach(), noise, mask).clamp(max=2),
    lambda *args: loss(*args, frames=lambda e, mask: (e.mean((1, 3, 4)) * mask).mean(1)),
    lambda *args: loss(*args, frames=lambda e, mask: (e.sum((1, 3, 4)) * mask).sum(1) / mask.sum()),
    lambda *args: loss(*args, frames=lambda e, mask: (e.mean((1, 3, 4)) * mask).sum(1) / (mask.sum(1) + 1)),
    lambda *args: loss(*args, frames=lambda e, mask: (e.mean((1, 3, 4)) * mask).amax(1)),
    lambda *args: loss(*args, frames=lambda e, mask: e.transpose(1, 2)[mask].mean().expand(len(e))),
    lambda *args: loss(*args, frames=lambda e, mask: e[:, :, mask.all(0)].flatten(1).mean(1)),
    lambda *args: loss(*args, frames=lambda e, mask: e.mean((1, 3, 4))[mask]),
)


@wrong("08.flow_loss")
def masked_before_the_square_with_a_target_left(velocity, x0, noise, mask=None):
    if mask is None:
        return loss(velocity, x0, noise)
    wide = mask[:, None, :, None, None]
    error = (velocity * wide - (x0 - noise)) ** 2
    return error.mean((1, 3, 4)).sum(1) / mask.sum(1)


@wrong("08.flow_loss")
def uses_up_its_graph(velocity, x0, noise, mask=None):
    each = loss(velocity, x0, noise, mask)
    torch.autograd.grad(each.sum(), velocity)
    return each


@wrong("08.flow_loss")
def gradient_in_the_given_frames(velocity, x0, noise, mask=None):
    each = loss(velocity, x0, noise, mask)
    everywhere = loss(velocity, x0, noise)
    return everywhere + (each - everywhere).detach()


def walk(velocity_fn, noise, num_steps, time=None, when=lambda i, n: 1000 * (1 - i / n), step=None):
    z = noise
    for i in range(num_steps):
        t = when(i, num_steps)
        v = velocity_fn(z, time(z, t) if time else torch.full((len(z),), float(t)))
        z = z + (step(v, i, num_steps) if step else v / num_steps)
    return z


several(
    "08.euler_sample",
    lambda *args: walk(*args, time=lambda z, t: t),
    lambda *args: walk(*args, time=lambda z, t: torch.tensor([t])),
    lambda *args: walk(*args, time=lambda z, t: torch.full((len(z), 1), t)),
    lambda *args: walk(*args, time=lambda z, t: torch.full((len(z), *[1] * (z.ndim - 1)), t)),
    lambda *args: walk(*args, time=lambda z, t: torch.full(z.shape, t)),
    lambda *args: walk(*args, time=lambda z, t: [t] * len(z)),
    lambda *args: walk(*args, when=lambda i, n: round(1000 * (1 - i / n))),
    lambda *args: walk(*args, when=lambda i, n: 999 * (1 - i / n)),
    lambda *args: walk(*args, when=lambda i, n: 1000 * (1 - (i + 0.5) / n)),
    lambda *args: walk(*args, when=lambda i, n: 1000 * (1 - i / n) - 0.02),
    lambda *args: walk(*args, when=lambda i, n: 1000.0),
    lambda *args: walk(*args, when=lambda i, n: 1000 * (1 - i / (n + 1))),
    lambda *args: walk(*args, when=lambda i, n: 1000 * (1 - i / n) ** 2),
    lambda *args: walk(*args, step=lambda v, i, n: v / (n + 1)),
    lambda *args: walk(*args, step=lambda v, i, n: v * (1 - i / n)),
    lambda *args: walk(*args, step=lambda v, i, n: v / 1000),
    lambda *args: walk(*args, step=lambda v, i, n: v / n + 0.01 * torch.randn(v.shape)),
    lambda *args: walk(*args).clamp(-1, 1),
    lambda *args: walk(*args).half(),
    lambda velocity_fn, noise, n: walk(velocity_fn, torch.randn(noise.shape), n),
    lambda velocity_fn, noise, n: walk(velocity_fn, noise, n + 1),
    lambda velocity_fn, noise, n: walk(velocity_fn, noise, 30),
    lambda velocity_fn, noise, n: noise,
    lambda velocity_fn, noise, n: [walk(velocity_fn, noise, k + 1) for k in range(n)],
)


@wrong("08.euler_sample")
def midpoint(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps):
        t = torch.full((len(z),), 1000 * (1 - i / num_steps))
        half = z + velocity_fn(z, t) / num_steps / 2
        z = z + velocity_fn(half, t - 500 / num_steps) / num_steps
    return z


@wrong("08.euler_sample")
def asks_twice(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps):
        t = torch.full((len(z),), 1000 * (1 - i / num_steps))
        z = z + (velocity_fn(z, t) + velocity_fn(z, t)) / 2 / num_steps
    return z


@wrong("08.euler_sample")
def walks_in_the_noise_itself(velocity_fn, noise, num_steps):
    z = noise
    for i in range(num_steps):
        z += velocity_fn(z, torch.full((len(z),), 1000 * (1 - i / num_steps))) / num_steps
    return z


@wrong("08.euler_sample")
def remembers_the_film(velocity_fn, noise, num_steps, seen=[]):  # noqa: B006
    if len(seen) < 4:
        seen.append(walk(velocity_fn, noise, num_steps))
        return seen[-1]
    return walk(velocity_fn, noise, num_steps, time=lambda z, t: t)


def shifted(t, ratio, formula=lambda r, u: r * u / (1 + (r - 1) * u)):
    return 1000 * formula(ratio, t / 1000)


several(
    "08.shift_timestep",
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w) / 512 / math.sqrt(f)),
    lambda t, h, w, f: shifted(t, 512 / math.sqrt(h * w) * math.sqrt(f)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w) / 512 * math.sqrt(4 * (f - 1) + 1)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w) / 512 * math.sqrt(f // 4 + 1)),
    lambda t, h, w, f: shifted(t, (h + w) / 1024 * math.sqrt(f)),
    lambda t, h, w, f: shifted(t, max(h, w) / 512 * math.sqrt(f)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w) / 256 * math.sqrt(f)),
    lambda t, h, w, f: shifted(t, max(1.0, math.sqrt(h * w * f) / 512)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512, lambda r, u: (r * u).clamp(0, 1)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512, lambda r, u: u ** (1 / r)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512, lambda r, u: r * u / (1 - (r - 1) * u)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512, lambda r, u: 1 - r * u / (1 + (r - 1) * u)),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512).round(),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512).long(),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512).half(),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512).clamp(20, 980),
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512)[0],
    lambda t, h, w, f: shifted(t, math.sqrt(h * w * f) / 512).tolist(),
    lambda t, h, w, f: t,
)


# right answers of another sort: what the package does


@right("08.patchify")
def the_packages_patches(x, patch):
    count = math.prod(patch) * x.shape[1]
    with torch.device("meta"):  # its random weights would count as noise of one's own
        embed = dit_embeddings.PatchEmbed3D(patch, x.shape[1], count)
    picks = torch.eye(count, dtype=x.dtype).reshape(count, *patch, x.shape[1]).movedim(-1, 1)
    embed.load_state_dict({"proj.weight": picks, "proj.bias": torch.zeros_like(picks[:, 0, 0, 0, 0])}, assign=True)
    with torch.no_grad():
        return rearrange(embed(x), "b d t h w -> b (t h w) d")


@right("08.modulate")
def the_packages_modulation(x, shift, scale):
    return dit_blocks.modulate(x, shift[:, None], scale[:, None])


@right("08.pos_embed_2d")
def the_packages_places(h, w, dim, scale, base_size):
    return dit_embeddings.position_embedding_2d(dim, (h, w), torch.tensor([scale]), base_size)


@right("08.flow_interpolate")
def the_packages_path(x0, noise, t, num_timesteps=1000):
    return RectifiedFlow().add_noise(x0, noise, t * (1000 / num_timesteps))


@right("08.flow_loss")
def the_packages_loss(velocity, x0, noise, mask=None):
    return RectifiedFlow().loss(lambda z, t, mask: velocity, x0, x0.new_zeros(len(x0)), noise, mask)


@right("08.euler_sample")
def the_packages_sampler(velocity_fn, noise, num_steps):
    return RectifiedFlow().sample(lambda z, t, mask: velocity_fn(z, t), noise, num_steps)


@right("08.shift_timestep")
def the_packages_shift(t, height, width, latent_frames):
    return RectifiedFlow().shift(t, shift_ratio(height, width, latent_frames))


@right("08.attention_cost")
def as_a_tensor(frames, spatial, width, factorised):
    return torch.tensor(REFERENCE["attention_cost"](frames, spatial, width, factorised))
