"""Right answers to the exercises of lesson 08 written in another way: loops, other algebra, other idioms."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat


def patchify(x, patch):
    """By `unfold`, axis after axis."""
    missing = [(p - n % p) % p for n, p in zip(x.shape[2:], patch, strict=True)]
    x = F.pad(x, [size for side in reversed(missing) for size in (0, side)])
    for axis, side in enumerate(patch):
        x = x.unfold(2 + axis, side, side)  # the window goes to the end
    return x.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4).flatten(1, 3)


def patchify_loop(x, patch):
    grid = [math.ceil(n / p) for n, p in zip(x.shape[2:], patch, strict=True)]
    whole = x.new_zeros(*x.shape[:2], *(n * p for n, p in zip(grid, patch, strict=True)))
    whole[:, :, : x.shape[2], : x.shape[3], : x.shape[4]] = x
    tokens = []
    for corner in itertools.product(*map(range, grid)):
        t, h, w = (slice(i * p, (i + 1) * p) for i, p in zip(corner, patch, strict=True))
        tokens.append(whole[:, :, t, h, w].movedim(1, -1).reshape(len(x), -1))
    return torch.stack(tokens, dim=1)


def patchify_conv(x, patch):
    """A convolution whose kernels each pick one number, as an embedding of patches would."""
    channels, volume = x.shape[1], math.prod(patch)
    x = F.pad(x, [size for n, p in zip(x.shape[:1:-1], patch[::-1], strict=True) for size in (0, -n % p)])
    picks = torch.eye(volume * channels, dtype=x.dtype).reshape(-1, *patch, channels).movedim(-1, 1)
    return F.conv3d(x, picks, stride=patch).flatten(2).transpose(1, 2)


def unpatchify(tokens, patch, out_channels, grid):
    out = tokens.reshape(len(tokens), *grid, *patch, out_channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return out.reshape(len(tokens), out_channels, *(n * p for n, p in zip(grid, patch, strict=True)))


def unpatchify_loop(tokens, patch, out_channels, grid):
    out = tokens.new_zeros(len(tokens), out_channels, *(n * p for n, p in zip(grid, patch, strict=True)))
    for number, corner in enumerate(itertools.product(*map(range, grid))):
        t, h, w = (slice(i * p, (i + 1) * p) for i, p in zip(corner, patch, strict=True))
        out[:, :, t, h, w] = rearrange(
            tokens[:, number], "b (pt ph pw c) -> b c pt ph pw", pt=patch[0], ph=patch[1], c=out_channels
        )
    return out


def modulate(x, shift, scale):
    return torch.addcmul(shift.unsqueeze(1), x, scale.unsqueeze(1) + 1)


def modulate_einsum(x, shift, scale):
    return x + torch.einsum("bnd,bd->bnd", x, scale) + rearrange(shift, "b d -> b 1 d")


def masked_modulate(x, shift, scale, shift0, scale0, mask):
    def whole(shift, scale):
        return x * (1 + scale[:, None, None]) + shift[:, None, None]

    return torch.where(mask[..., None, None], whole(shift, scale), whole(shift0, scale0))


def masked_modulate_loop(x, shift, scale, shift0, scale0, mask):
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            now = (shift[b], scale[b]) if mask[b, t] else (shift0[b], scale0[b])
            out[b, t] = x[b, t] * (1 + now[1]) + now[0]
    return out


def masked_modulate_weights(x, shift, scale, shift0, scale0, mask):
    share = mask.to(x.dtype)[:, :, None, None]
    noisy, clean = (x + x * b[:, None, None] + a[:, None, None] for a, b in ((shift, scale), (shift0, scale0)))
    return share * noisy + (1 - share) * clean


def space_time_rearrange(tokens, T, S, axis):
    grid = tokens.view(tokens.shape[0], T, S, -1)
    return (grid if axis == "space" else grid.transpose(1, 2)).flatten(0, 1)


def space_time_rearrange_loop(tokens, T, S, axis):
    clips = [clip[frame * S : (frame + 1) * S] for clip in tokens for frame in range(T)]
    return torch.stack(clips if axis == "space" else [clip[place::S] for clip in tokens for place in range(S)])


def pos_embed_2d(h, w, dim, scale, base_size):
    """A grid of places in float32, as published code has it."""
    rows, columns = torch.arange(h) / scale, torch.arange(w) / scale
    if base_size is not None:
        rows, columns = rows * (base_size / h), columns * (base_size / w)
    inv_freq = 1.0 / (10000 ** (torch.arange(0, dim // 2, 2).float() / (dim // 2)))
    grid = torch.meshgrid(columns, rows, indexing="ij")
    parts = []
    for places in grid:
        angles = places.t().reshape(-1)[:, None] * inv_freq[None]
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1).unsqueeze(0)


def pos_embed_2d_loop(h, w, dim, scale, base_size):
    def half(index, count):
        place = index / scale * (1 if base_size is None else base_size / count)
        angles = [place * math.exp(-math.log(10000) * i / (dim // 4)) for i in range(dim // 4)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    return torch.tensor([[half(j, w) + half(i, h) for i in range(h) for j in range(w)]])


def attention_cost(frames, spatial, width, factorised):
    in_frames, in_places = frames * 2 * spatial**2 * width, spatial * 2 * frames**2 * width
    return in_frames + in_places if factorised else 2 * (frames * spatial) ** 2 * width


def attention_cost_counted(frames, spatial, width, factorised):
    """Multiply-adds of (queries, width) · (width, keys) and of (queries, keys) · (keys, width)."""

    def attention(sequences, length):
        return sequences * (length * width * length + length * length * width)

    if not factorised:
        return attention(1, frames * spatial)
    return attention(frames, spatial) + attention(spatial, frames)


def flow_interpolate(x0, noise, t, num_timesteps=1000):
    return torch.stack([torch.lerp(a, b, u / num_timesteps) for a, b, u in zip(x0, noise, t, strict=True)])


def flow_interpolate_from_noise(x0, noise, t, num_timesteps=1000):
    left = 1 - t.view(-1, *(1 for _ in x0.shape[1:])) / num_timesteps
    return noise + left * (x0 - noise)


def flow_loss(velocity, x0, noise, mask=None):
    error = (velocity - x0 + noise).square()
    mask = torch.ones(len(x0), x0.shape[2], dtype=torch.bool) if mask is None else mask
    return torch.stack([error[b][:, mask[b]].mean() for b in range(len(error))])


def flow_loss_target_detached(velocity, x0, noise, mask=None):
    """The target has no gradient in training, so nothing is lost by cutting it off."""
    losses = F.mse_loss(velocity, (x0 - noise).detach(), reduction="none")
    if mask is None:
        return reduce(losses, "b c t h w -> b", "mean")
    kept = repeat(mask.to(losses.dtype), "b t -> b c t h w", c=x0.shape[1], h=x0.shape[3], w=x0.shape[4])
    return (losses * kept).sum((1, 2, 3, 4)) / kept.sum((1, 2, 3, 4))


def euler_sample(velocity_fn, noise, num_steps):
    """All times in advance, with gradients off."""
    times = torch.linspace(1000, 0, num_steps + 1, dtype=torch.float64)
    z = noise.clone()
    with torch.no_grad():
        for now, then in itertools.pairwise(times.tolist()):
            z += velocity_fn(z, torch.full((z.shape[0],), now)) * (now - then) / 1000
    return z


def euler_sample_counting_down(velocity_fn, noise, num_steps):
    z, t = noise, torch.ones(len(noise)) * 1000
    for _ in range(num_steps):
        z = velocity_fn(z=z, t=t) / num_steps + z
        t = t - 1000 / num_steps
    return z


def euler_sample_by_sample(velocity_fn, noise, num_steps):
    out = []
    for z in noise.split(1):
        for left in range(num_steps, 0, -1):
            z = z + velocity_fn(z, torch.tensor([1000 * left / num_steps])) / num_steps
        out.append(z)
    return torch.cat(out)


def shift_timestep(t, height, width, latent_frames):
    """Odds: the shift multiplies u/(1 − u) by r, and odds have no number at the end."""
    r = np.sqrt(height * width / 512**2 * latent_frames).item()
    kept = (1000 - t) / 1000
    return 1000 * (1 - kept / (kept + r * (1 - kept)))


def shift_timestep_loop(t, height, width, latent_frames):
    r = math.sqrt(latent_frames) * math.sqrt(height / 512) * math.sqrt(width / 512)
    return torch.tensor([r * one / (1 + (r - 1) * one / 1000) for one in t.tolist()], dtype=t.dtype)


ALTERNATIVES = {
    "08.patchify": [patchify, patchify_loop, patchify_conv],
    "08.unpatchify": [unpatchify, unpatchify_loop],
    "08.modulate": [modulate, modulate_einsum],
    "08.masked_modulate": [masked_modulate, masked_modulate_loop, masked_modulate_weights],
    "08.space_time_rearrange": [space_time_rearrange, space_time_rearrange_loop],
    "08.pos_embed_2d": [pos_embed_2d, pos_embed_2d_loop],
    "08.attention_cost": [attention_cost, attention_cost_counted],
    "08.flow_interpolate": [flow_interpolate, flow_interpolate_from_noise],
    "08.flow_loss": [flow_loss, flow_loss_target_detached],
    "08.euler_sample": [euler_sample, euler_sample_counting_down, euler_sample_by_sample],
    "08.shift_timestep": [shift_timestep, shift_timestep_loop],
}

# Lists of one length need no `strict`.
EQUIVALENT = {"08.patchify": r"strict=False", "08.unpatchify": r"strict=False"}
