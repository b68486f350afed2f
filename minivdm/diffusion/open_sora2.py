"""How Open-Sora 2.0 samples: its schedule, its two guidances, and the frames of a clip that are given.

t runs over [0, 1], 1 is noise, and the network predicts noise - x0: the path of `RectifiedFlow` with time in other
units and the other sign. So the walk is `euler_flow`, and only what differs is here. Clips are latents (C, T, H, W) or,
to the network, tokens (B, N, D) as `latent_tokens.pack` makes them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from einops import repeat
from torch import Tensor

from minivdm.diffusion import conditions
from minivdm.diffusion.flow_euler import euler_flow, flow_sigmas
from minivdm.diffusion.guidance import image_and_text, oscillating
from minivdm.errors import UserError

# (tokens (B, N, D), t (B,) in [0, 1], text scale (B,), condition (B, N, E)) -> noise - x0 (B, N, D)
TokenNetwork = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

CONDITIONS = (*conditions.CONDITIONS, "v2v_head_easy", "v2v_tail_easy")


def line_through(x: float, first: tuple[float, float] = (256, 1.0), second: tuple[float, float] = (4096, 3.0)) -> float:
    """The value at `x` of the straight line through two points (x, y); it goes on beyond them."""
    (x1, y1), (x2, y2) = first, second
    return y1 + (x - x1) * (y2 - y1) / (x2 - x1)


def schedule_shift(tokens: int, frames: int = 1) -> float:
    """The shift of `flow_sigmas` for `tokens` per latent frame: 1 for 256 of them, 3 for 4096, times sqrt(frames)."""
    if tokens < 1 or frames < 1:
        raise UserError(f"{tokens} tokens, {frames} latent frames: expected at least 1 each")
    return line_through(tokens) * frames**0.5


def schedule(steps: int, tokens: int, frames: int = 1, shift: float | None = None) -> list[float]:
    """`steps` + 1 noise levels from 1 to 0, even but for `shift`, which is `schedule_shift` unless given (1: none)."""
    shift = schedule_shift(tokens, frames) if shift is None else shift
    return flow_sigmas(steps, shift, smallest=1 / max(steps, 1))


@dataclass(frozen=True)
class GuidanceScales:
    """How strongly text and image guide each step.

    `oscillate_*`: every second step is unguided, once the first 10 are done (`guidance.oscillating`).
    `ramp`: the image guides early frames little (1, the first of them is the image) and late ones more, up to a peak
    that sinks from `image` towards 1 while sampling goes on.
    """

    text: float = 7.5
    image: float = 3.0
    oscillate_text: bool = False
    oscillate_image: bool = False
    ramp: bool = False

    def at(self, step: int, steps: int, frames: int) -> tuple[float, Tensor]:
        """The text scale, and the image scale (T,) of each of `frames` latent frames, in step 0, ..., steps - 1."""
        text = oscillating(self.text, step) if self.oscillate_text else self.text
        image = oscillating(self.image, step) if self.oscillate_image else self.image
        if self.ramp and image > 1:
            return text, torch.linspace(1.0, image + (1 - image) * step / steps, frames)
        return text, torch.full((frames,), float(image))


def sample_guided(
    network: TokenNetwork, x: Tensor, levels: Sequence[float], scales: GuidanceScales, condition: Tensor, frames: int
) -> Tensor:
    """Walk from noise `x` (B, N, D) of `frames` latent frames along `levels` with three predictions in every step.

    The network gets (3B, N, D), one third after the other: with text and image, with the image only, with neither. It
    knows which texts belong to which rows; `condition` (B, N, E), what is given, is zero in the last third.
    """
    batch, tokens, steps = len(x), x.shape[1], len(levels) - 1
    if tokens % frames:
        raise UserError(f"{tokens} tokens: expected equally many in each of {frames} latent frames")
    three_conditions = torch.cat([condition, condition, torch.zeros_like(condition)])
    told = x.new_full((3 * batch,), scales.text)  # what a guidance-distilled network is told, also when it oscillates
    step = count()

    def velocity(x: Tensor, level: float) -> Tensor:
        text, image = scales.at(next(step), steps, frames)
        three = network(torch.cat([x, x, x]), x.new_full((3 * batch,), level), told, three_conditions)
        per_token = repeat(image.to(x), "t -> 1 (t s) 1", s=tokens // frames)
        return image_and_text(*three.chunk(3), text, per_token)

    return euler_flow(velocity, x, levels)


def given_frames(kind: str, frames: int, causal: bool = True) -> Tensor:
    """Which latent frames (T,) of a clip are given under one of `CONDITIONS`: True is given, False is generated.

    "i2v" gives one frame at the head, the tail or both (loop); "v2v" gives 8, "easy" 16, and one more of a `causal`
    VAE, whose first latent frame holds a single picture. A clip shorter than that is given whole, but one frame alone
    is always generated.
    """
    head, tail = _given_at_ends(kind, frames, causal)
    given = torch.zeros(frames, dtype=torch.bool)
    given[:head] = True
    given[frames - tail :] = True
    return given


def place_references(kind: str, z: Tensor, references: Sequence[Tensor], causal: bool = True) -> tuple[Tensor, Tensor]:
    """What tells the network about given frames of a clip shaped like z (C, T, H, W): mask (1, T, H, W) and latents.

    The mask is 1 and the latents (C, T, H, W) hold the reference where frames are given; elsewhere both are 0. The
    head comes from the beginning of the first reference (C, T', H, W), the tail from the end of the last one.
    """
    channels, frames, height, width = z.shape
    head, tail = _given_at_ends(kind, frames, causal)
    for needed, reference in ((head, references[:1]), (tail, references[-1:])):
        found = tuple(reference[0].shape) if reference else None
        if needed and (found is None or found[1] < needed or (found[0], *found[2:]) != (channels, height, width)):
            expected = f"({channels}, at least {needed}, {height}, {width})"
            raise UserError(f"condition {kind!r} with reference {found}: expected latents {expected}")
    latents = torch.zeros_like(z)
    if head:
        latents[:, :head] = references[0][:, :head]
    if tail:
        latents[:, -tail:] = references[-1][:, -tail:]
    mask = repeat(given_frames(kind, frames, causal).to(z), "t -> 1 t h w", h=height, w=width)
    return mask, latents


def _given_at_ends(kind: str, frames: int, causal: bool) -> tuple[int, int]:
    """How many frames are given at the head and at the tail."""
    if kind not in CONDITIONS:
        raise UserError(f"condition {kind!r}: expected one of {', '.join(CONDITIONS)}")
    if frames == 1:
        return 0, 0
    long = (16 if kind.endswith("easy") else 8) + int(causal)
    given = min(long if kind.startswith("v2v") else 1, frames)
    return given * ("head" in kind or "loop" in kind), given * ("tail" in kind or "loop" in kind)


def noised_references(reference: Tensor, mask: Tensor, noise: Tensor, t: float, smallest: float = 1e-5) -> Tensor:
    """The given frames at noise level t in [0, 1], 0 elsewhere; any shapes that broadcast, `mask` 1 where given.

    A share `smallest` of the reference is left at t = 1, so that its place is never pure noise (Lipman et al. 2023,
    equation 22).
    """
    return mask * ((1 - (1 - smallest) * t) * reference + t * noise)
