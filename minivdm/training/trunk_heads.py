"""How much each channel of a perceptual trunk should count: learned from pairs of which the nearer one is known.

A published LPIPS has learned this from people who chose between spoilt photographs. Here the world is known, so the
right answer is too: less blur is nearer than more, less noise than more, a blurred frame than another firework, and the
same shell with other sparks is nearer than the blur of a dozen of them. That last one is what squared error gets wrong.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

from minivdm.data.fireworks import render, sample_scenes
from minivdm.vae.lpips import LPIPS

SCENES, LUCKS, STEPS, LEARNING_RATE = 192, 8, 400, 0.05
NOISES, BLURS = (0.03, 0.1, 0.25), (0.6, 1.2, 2.0)
AFTER_BURST = 4  # ticks


@dataclass(frozen=True)
class Choices:
    """Per question, squared differences of features of frame and nearer copy, and of frame and farther copy: (N, C)."""

    near: dict[str, Tensor]
    far: dict[str, Tensor]

    def right(self, weights: Tensor, rows: slice) -> dict[str, float]:
        """Share of questions answered right, by channel weights (C,)."""
        return {
            name: (near[rows] @ weights < self.far[name][rows] @ weights).float().mean().item()
            for name, near in self.near.items()
        }


def blur(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of frames (N, C, H, W), sigma in pixels; the border is repeated."""
    reach = int(3 * sigma) + 1
    curve = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=frames.dtype, device=frames.device) / sigma) ** 2)
    curve, channels = curve / curve.sum(), frames.shape[1]
    padded = F.pad(frames, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, repeat(curve, "k -> c 1 1 k", c=channels), groups=channels)
    return F.conv2d(across, repeat(curve, "k -> c 1 k 1", c=channels), groups=channels)


def make_choices(distance: LPIPS, generator: torch.Generator) -> Choices:
    """Render frames, spoil them, and measure the channels' differences."""
    scenes = sample_scenes(SCENES, "single", "train", generator=generator)
    lucks = torch.stack([_at_its_best(scenes, generator) for _ in range(LUCKS)])  # (LUCKS, N, 3, H, W)
    frame, other, average = lucks[0], lucks[1], lucks[1:].mean(0)
    noise = torch.randn(frame.shape, generator=generator)
    noisy, blurred = [frame + s * noise for s in NOISES], [blur(frame, s) for s in BLURS]
    pairs = {
        "less noise": (torch.cat(noisy[:-1]), torch.cat(noisy[1:])),
        "less blur": (torch.cat(blurred[:-1]), torch.cat(blurred[1:])),
        "other sparks, not their average": (other, average),
        "other sparks, not a strong blur": (other, blurred[-1]),
        "other sparks, not another shell": (other, other.roll(1, 0)),
        "a blur, not night": (blurred[-1], torch.full_like(frame, -0.97)),
    }
    seen = {}
    for place in (0, 1):
        seen[place] = {
            name: channel_differences(distance, frame.repeat(len(pair[place]) // SCENES, 1, 1, 1), pair[place])
            for name, pair in pairs.items()
        }
    return Choices(seen[0], seen[1])


def channel_differences(distance: LPIPS, x: Tensor, y: Tensor) -> Tensor:
    """What `LPIPS` sums up, before it is weighted: (N, channels of all levels)."""
    levels = zip(distance.unit_features(x), distance.unit_features(y), strict=True)
    return torch.cat([reduce((a - b).square(), "n c h w -> n c", "mean") for a, b in levels], dim=1)


def weigh_channels(distance: LPIPS, generator: torch.Generator) -> tuple[dict[str, float], dict[str, float]]:
    """Set `distance.heads`; the share of right choices on scenes not learned from, before and after.

    Weights are positive, and scaled so that a frame is 1 away from night on average.
    """
    choices = make_choices(distance, generator)
    test, learn = slice(0, SCENES // 4), slice(SCENES // 4, None)
    equal = torch.ones(sum(len(head) for head in distance.heads))
    logits = torch.zeros_like(equal, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for _ in range(STEPS):
        weights = logits.exp()
        wrong = sum(
            F.softplus(-4 * ((choices.far[name][learn] @ weights).log() - (near[learn] @ weights).log())).mean()
            for name, near in choices.near.items()
        )
        optimizer.zero_grad()
        (wrong + 1e-2 * logits.square().mean()).backward()
        optimizer.step()
    weights = logits.detach().exp()
    weights /= (choices.far["a blur, not night"] @ weights).mean()
    for head, part in zip(distance.heads, weights.split([len(head) for head in distance.heads]), strict=True):
        head.data.copy_(part)
    return choices.right(equal, test), choices.right(weights, test)


def _at_its_best(scenes: list, generator: torch.Generator) -> Tensor:
    """One frame of each scene, a few ticks after its burst: (N, 3, 32, 32)."""
    video = render(scenes, 17, generator=generator)
    ticks = torch.tensor([min(16, int(scene.shells[0].burst) + AFTER_BURST) for scene in scenes])
    return rearrange(video, "n c t h w -> n t c h w")[torch.arange(len(scenes)), ticks]
