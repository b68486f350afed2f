"""Rectified flow: straight paths between data and noise (Liu et al. 2022), in the convention of Open-Sora 1.2.

t runs over [0, 1000], 0 is data and 1000 is noise: x_t = (1 - t/1000) x0 + (t/1000) noise. The network predicts the
velocity v = x0 - noise, and sampling walks from t = 1000 to 0 with x += v dt.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.diffusion.flow_euler import shift_sigma
from minivdm.errors import UserError

# (x (B, C, T, H, W), t (B,), frame mask (B, T) or None) -> velocity, shaped like x
Velocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Number = float | Tensor


def shift_ratio(height: Number, width: Number, latent_frames: Number, scale: float = 1.0) -> Tensor:
    """How far noise levels move towards noise: 1 for one 512 x 512 image, more for larger or longer clips.

    `height` and `width` in pixels, `latent_frames` as the VAE makes them (not frames of the film), numbers or (B,).
    Each of the three has to be at least 1: a length of 0 would map every t to 0 and leave nothing to learn.
    """
    sizes = [torch.as_tensor(size, dtype=torch.float32) for size in (height, width, latent_frames)]
    if any((size < 1).any() for size in sizes):
        found = ", ".join(str(size.tolist()) for size in sizes)
        raise UserError(f"height, width, latent frames {found}: expected at least 1 each; pass the VAE's own length")
    return (sizes[0] * sizes[1] / 512**2).sqrt() * sizes[2].sqrt() * scale


def open_sora_latent_frames(frames: Tensor) -> Tensor:
    """The length (B,) that Open-Sora 1.2 puts into the shift: 5 per 17 whole frames, or 1 if the first is an image.

    For comparing with it only: it is 0 for clips of 2 to 16 frames.
    """
    return torch.ones_like(frames) if frames.flatten()[0] == 1 else frames // 17 * 5


class RectifiedFlow:
    """Training targets and samplers of rectified flow. Holds no network.

    `t_sampling` is "uniform" or "logit-normal" (Esser et al. 2024, section 3.1: `location`, `spread` of the logit).
    """

    num_steps = 1000

    def __init__(self, t_sampling: str = "uniform", location: float = 0.0, spread: float = 1.0) -> None:
        if t_sampling not in ("uniform", "logit-normal") or not spread > 0:
            raise UserError(f"t_sampling {t_sampling!r}, spread {spread}: expected uniform or logit-normal, above 0")
        self.t_sampling, self.location, self.spread = t_sampling, location, spread

    def sample_t(self, batch: int, ratio: Number | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Times (B,) in [0, 1000] for training, moved by `ratio` (see `shift_ratio`) if it is given."""
        if self.t_sampling == "uniform":
            u = torch.rand(batch, generator=generator)
        else:
            u = torch.sigmoid(self.location + self.spread * torch.randn(batch, generator=generator))
        return self.shift(u * self.num_steps, ratio)

    def shift(self, t: Tensor, ratio: Number | None) -> Tensor:
        """Move times in [0, 1000] towards noise (ratio > 1) or data (< 1); both ends stay."""
        if ratio is None:
            return t
        # Rounding would put 1000 at 1000.0001 for some sizes: above every edit ratio, so that nothing is open there.
        return (shift_sigma(t / self.num_steps, ratio) * self.num_steps).clamp(max=self.num_steps)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t for x0 (B, ...) and t (B,) in [0, 1000]."""
        u = _broadcast(t / self.num_steps, x0)
        return (1 - u) * x0 + u * noise

    def loss(self, velocity: Velocity, x0: Tensor, t: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean squared error (B,) of the velocity for x0 (B, C, T, H, W).

        `mask` (B, T) boolean: True frames are noised and counted, the others are given to the network clean.
        """
        x_t = self.add_noise(x0, noise, t)
        if mask is not None:
            x_t = torch.where(_over_frames(mask), x_t, x0)
        return mean_per_sample((velocity(x_t, t, mask) - (x0 - noise)) ** 2, mask)

    def timesteps(self, steps: int, batch: int, ratio: Number | None = None, discrete: bool = False) -> list[Tensor]:
        """`steps` times (B,) from 1000 down, without the final 0; `discrete` rounds them to integers."""
        if not isinstance(steps, Integral) or steps < 1:
            raise UserError(f"{steps!r} sampling steps: expected a whole number of at least 1")
        levels = [(1 - k / steps) * self.num_steps for k in range(steps)]
        return [self.shift(torch.full((batch,), float(round(t) if discrete else t)), ratio) for t in levels]

    @torch.no_grad()
    def sample(
        self,
        velocity: Velocity,
        z: Tensor,
        steps: int = 30,
        method: str = "euler",
        ratio: Number | None = None,
        discrete: bool = False,
        mask: Tensor | None = None,
        noises: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
        eta: float = 0.0,
        fresh: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Walk from noise `z` (B, C, T, H, W) to data with "euler" or "midpoint" steps (two evaluations each).

        `mask` (B, T) in [0, 1] is an edit ratio per latent frame: 0 keeps the frame that `z` holds, 1 generates it, a
        value between keeps it until the noise level falls to that value and re-noises it there. `noises[k]` is the
        noise of step k for that; without it, it is drawn from `generator`.

        `eta` in [0, 1] renews noise on the way, as in DDIM (Song et al. 2021, equation 16, with α = 1 - t/1000 and
        σ = t/1000): 0 follows the first noise to the end; with 1 each step forgets as much of it as the forward process
        would, so that what an imprecise network did with it is forgotten too. `fresh()` draws noise like z; without it,
        it is drawn from `generator`.
        """
        if not 0 <= eta <= 1:
            raise UserError(f"eta is {eta}: expected a share from 0 to 1")
        if method not in ("euler", "midpoint"):
            raise UserError(f"sampler {method!r}: expected euler or midpoint")
        if mask is not None and mask.shape != (z.shape[0], z.shape[2]):
            raise UserError(f"frame mask {tuple(mask.shape)}: expected (batch, frames) = {(z.shape[0], z.shape[2])}")
        times = [t.to(z.device) for t in self.timesteps(steps, len(z), ratio, discrete)]
        times.append(torch.zeros_like(times[0]))
        open_now, opened = None, None if mask is None else mask == 1
        for k, (t, then) in enumerate(tqdm(list(zip(times, times[1:], strict=False)), disable=not progress)):
            if mask is not None:
                open_now = mask * self.num_steps >= t[:, None]
                noise = _draw(z, generator) if noises is None else noises[k]
                z = torch.where(_over_frames(open_now & ~opened), self.add_noise(z, noise, t), z)
                opened = open_now
            dt = _broadcast((t - then) / self.num_steps, z)
            v = velocity(z, t, open_now)
            if method == "midpoint":
                halfway = _kept(open_now, z + v * dt / 2, z)
                v = velocity(halfway, (t + then) / 2, open_now)
            moved = z + v * dt
            if eta and k < steps - 1:
                moved = moved + self._renewed(z, v, t, then, eta, fresh() if fresh else _draw(z, generator))
            z = _kept(open_now, moved, z)
        return z

    def _renewed(self, z: Tensor, v: Tensor, t: Tensor, then: Tensor, eta: float, fresh: Tensor) -> Tensor:
        """What to add at time `then`, so that a part of the noise is fresh and all of it as strong as before."""
        now, after = (_broadcast(time / self.num_steps, z) for time in (t, then))
        noise = z - (1 - now) * v  # that is in z, by the network's word
        # how much of the noise of `then` is still there at `t`, going forward; all of it if no time passes at 1000
        lasting = ((1 - now) * after / ((1 - after) * now)).nan_to_num(1.0)
        share = eta * (1 - lasting**2).sqrt()
        return after * (((1 - share**2).sqrt() - 1) * noise + share * fresh)


def mean_per_sample(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean (B,) of x (B, C, T, H, W) over everything, or over the True frames of `mask` (B, T); 0 if there are none."""
    if mask is None:
        return x.flatten(1).mean(1)
    per_frame = x.mean(dim=(1, 3, 4))
    return (per_frame * mask).sum(1) / mask.sum(1).clamp(min=1)


def _broadcast(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


def _over_frames(mask: Tensor) -> Tensor:
    return mask[:, None, :, None, None]


def _kept(open_now: Tensor | None, moved: Tensor, before: Tensor) -> Tensor:
    return moved if open_now is None else torch.where(_over_frames(open_now), moved, before)


def _draw(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
