"""Spoilt clips: what the judge must bear, what it must refuse, and what it must refuse without having seen it before.

Every function takes clips (B, 3, T, H, W) in [-1, 1] with what it needs, and a generator, and returns as many clips.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

Spoil = Callable[[Tensor, torch.Generator], Tensor]
BURST = 0.78  # no rising spark is brighter, in [-1, 1], and nearly every burst is from its first frame on


def _luck(clips: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number per clip, (B, 1, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(clips), 1, 1, 1, 1, generator=generator)


def _normal(clips: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(clips.shape, generator=generator)


def blur(video: Tensor, sigma: float) -> Tensor:
    """Each frame blurred by a Gaussian of `sigma` pixels."""
    reach = max(1, round(3 * sigma))
    curve = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    curve = curve / curve.sum()
    stills = rearrange(video, "b c t h w -> (b c t) 1 h w")
    stills = F.pad(stills, (reach,) * 4, mode="replicate")
    stills = F.conv2d(F.conv2d(stills, rearrange(curve, "k -> 1 1 k 1")), rearrange(curve, "k -> 1 1 1 k"))
    return rearrange(stills, "(b c t) 1 h w -> b c t h w", c=video.shape[1], t=video.shape[2])


def imperfect(video: Tensor, generator: torch.Generator) -> Tensor:
    """Clips that still count: another brightness, a little blur, a little noise, as a good model might make them."""
    video = ((video + 1) * _luck(video, generator, 0.75, 1.25) - 1).clamp(-1, 1)
    blurred = blur(video, 0.4 + 0.5 * torch.rand((), generator=generator).item())
    video = torch.where(_luck(video, generator) < 0.35, blurred, video)
    amount = _luck(video, generator, -0.10, 0.12).clamp(min=0)
    return (video + amount * _normal(video, generator)).clamp(-1, 1)


def noised(video: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """The forward process: sqrt(1 - amount^2) x + amount noise, with `amount` (B,) in 0 ... 1."""
    amount = rearrange(amount, "b -> b 1 1 1 1")
    return (1 - amount**2).sqrt() * video + amount * _normal(video, generator)


# --- refused, seen in training ---


def pure_noise(video: Tensor, generator: torch.Generator) -> Tensor:
    level, spread = _luck(video, generator, -1, 0.5), _luck(video, generator, 0.05, 1)
    return (level + spread * _normal(video, generator)).clamp(-1, 1)


def empty_sky(video: Tensor, generator: torch.Generator) -> Tensor:
    sky = repeat(video[:, :, 0], "b c h w -> b c t h w", t=video.shape[2])
    return (sky + _luck(video, generator, 0, 0.05) * _normal(video, generator)).clamp(-1, 1)


def still_picture(video: Tensor, generator: torch.Generator) -> Tensor:
    """One late frame, all the time."""
    frame = int(torch.randint(video.shape[2] // 2, video.shape[2] - 2, (), generator=generator))
    return repeat(video[:, :, frame], "b c h w -> b c t h w", t=video.shape[2])


def shuffled(video: Tensor, generator: torch.Generator) -> Tensor:
    return video[:, :, torch.randperm(video.shape[2], generator=generator)]


def backwards(video: Tensor, generator: torch.Generator) -> Tensor:
    return video.flip(2)


def begun(video: Tensor, generator: torch.Generator) -> Tensor:
    """The film is cut so that it begins in the middle of the burst, and its last frame stays."""
    late = int(torch.randint(video.shape[2] // 3, video.shape[2] // 2, (), generator=generator))
    frames = (torch.arange(video.shape[2]) + late).clamp(max=video.shape[2] - 1)
    return video[:, :, frames]


def unrisen(video: Tensor, generator: torch.Generator) -> Tensor:
    """For clips of one shell: until something bright appears no spark is seen, or one that comes down from above."""
    bright = reduce(video, "b c t h w -> b t", "max") > BURST
    before = rearrange(bright.cumsum(1) == 0, "b t -> b 1 t 1 1")
    sky = torch.where(_luck(video, generator) < 0.5, video[:, :, :1], video.flip(3))
    return torch.where(before, sky, video)


def coloured_blobs(video: Tensor, generator: torch.Generator) -> Tensor:
    """Soft patches of light that come and go: what a model makes that has learnt blobs and no fireworks."""
    batch, channels, *size = video.shape
    coarse = torch.randn(batch, channels, 4, 6, 6, generator=generator)
    blobs = F.interpolate(coarse, size=size, mode="trilinear")
    return (blobs * _luck(video, generator, 0.5, 1.5) - _luck(video, generator, 0.6, 1.4)).clamp(-1, 1)


def flickering_colours(video: Tensor, generator: torch.Generator) -> Tensor:
    """The right shapes, but each frame in another colour."""
    swaps = torch.rand(video.shape[2], 3, generator=generator).argsort(1)
    return torch.stack([video[:, swap, frame] for frame, swap in enumerate(swaps)], dim=2)


def speckled_colours(video: Tensor, generator: torch.Generator) -> Tensor:
    """The right shapes, but each little patch in another colour."""
    swaps = torch.rand(len(video), 3, video.shape[2], 8, 8, generator=generator).argsort(1)
    size = [video.shape[2], *video.shape[3:]]
    return video.gather(1, F.interpolate(swaps.float(), size=size, mode="nearest").long())


def cross_faded(video: Tensor, generator: torch.Generator) -> Tensor:
    """Ghosts: a mixture of a clip, its mirror image, and two others of which one has its colours swapped."""
    other = video.roll(1, dims=0)
    ghosts = torch.stack([video, video.flip(4), other, other.flip(4)[:, torch.randperm(3, generator=generator)]])
    shares = torch.rand(len(ghosts), len(video), generator=generator) + 0.2
    shares = rearrange(shares / shares.sum(0), "g b -> g b 1 1 1 1")
    return (shares * ghosts).sum(0)


TRAINED: dict[str, Spoil] = {
    "pure noise": pure_noise,
    "empty sky": empty_sky,
    "still picture": still_picture,
    "frames shuffled": shuffled,
    "backwards": backwards,
    "coloured blobs": coloured_blobs,
    "flickering colours": flickering_colours,
    "speckled colours": speckled_colours,
    "clips cross-faded": cross_faded,
}


# --- refused, kept for the examination ---


def upside_down(video: Tensor, generator: torch.Generator) -> Tensor:
    return video.flip(3)


def patches_shuffled(video: Tensor, generator: torch.Generator) -> Tensor:
    patches = rearrange(video, "b c t (i h) (j w) -> b c t h w (i j)", i=4, j=4)
    patches = patches[..., torch.randperm(16, generator=generator)]
    return rearrange(patches, "b c t h w (i j) -> b c t (i h) (j w)", i=4, j=4)


def mean_of_eight(video: Tensor, generator: torch.Generator) -> Tensor:
    """What a model makes that has learnt nothing but the average."""
    return torch.stack([video.roll(shift, dims=0) for shift in range(8)]).mean(0)


def negative_picture(video: Tensor, generator: torch.Generator) -> Tensor:
    return -video


def other_clip_each_frame(video: Tensor, generator: torch.Generator) -> Tensor:
    return torch.stack([video[:, :, frame].roll(frame, dims=0) for frame in range(video.shape[2])], dim=2)


def drifting_bars(video: Tensor, generator: torch.Generator) -> Tensor:
    frames, width = video.shape[2], video.shape[4]
    phase = repeat(torch.arange(width), "w -> t w", t=frames) + rearrange(torch.arange(frames), "t -> t 1")
    bars = rearrange(torch.sin(phase * 0.8), "t w -> 1 1 t 1 w")
    return (bars * _luck(video, generator, 0.3, 1)).expand_as(video).clone()


def clouds(video: Tensor, generator: torch.Generator) -> Tensor:
    """Noise with large, slow structures."""
    cloud = sum(
        F.interpolate(
            torch.randn(len(video), 3, 3, side, side, generator=generator), size=video.shape[2:], mode="trilinear"
        )
        * (4 / side)
        for side in (4, 8, 16)
    )
    return (0.5 * cloud - 0.5).clamp(-1, 1)


def grey(video: Tensor, generator: torch.Generator) -> Tensor:
    """A uniform picture whose brightness follows the clip's."""
    return reduce(video, "b c t h w -> b c t 1 1", "mean").expand_as(video).clone() + _luck(video, generator, 0, 0.8)


HELD_BACK: dict[str, Spoil] = {
    "upside down": upside_down,
    "patches shuffled": patches_shuffled,
    "mean of eight clips": mean_of_eight,
    "negative picture": negative_picture,
    "another clip each frame": other_clip_each_frame,
    "drifting bars": drifting_bars,
    "clouds": clouds,
    "uniform light": grey,
}
