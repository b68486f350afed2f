"""The network that looks at a clip and says which shells are in it.

Fireworks burst at one of six places, so the network asks the same questions about each of them: is there a shell, does
it do what shells do, which colour, which shape, which size, when? A shared trunk sees the whole clip with its frames
stacked as channels; then ONE head looks at a window around each place. Sharing the head means that a red ring learnt on
the left is known on the right, and two shells of one clip cannot be confused: each window has its own answer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.data.scenes import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, TICKS

CANVAS = (17, 32, 32)  # frames, height, width that the network sees, whatever a clip has
PLACES = tuple((column, row) for row in ROWS for column in COLUMNS)
WINDOW = 10  # cells of the 16 x 16 feature map
# Where windows begin on the map: a place's mean centre in cells, less half a window.
WINDOW_TOPS = (-1, 5)
WINDOW_LEFTS = (-1, 3, 7)
# The strip of the canvas in which a shell rises, and the frames before its burst in which to look.
STRIP = 12
STRIP_LEFTS = (1, 10, 19)
BEFORE = 5


@dataclass(frozen=True)
class Reading:
    """Answers for each of the six places (the order of PLACES), as logits over the last axis where there is one.

    there (B, 6): a shell bursts here. genuine (B, 6): it opens and fades as shells do, on a clean sky. risen (B, 6): a
    spark climbed here before the burst. colour (B, 6, 8), shape (B, 6, 6), size (B, 6, 2). burst (B, 6): ticks.
    """

    there: Tensor
    genuine: Tensor
    risen: Tensor
    colour: Tensor
    shape: Tensor
    size: Tensor
    burst: Tensor


class JudgeNetwork(nn.Module):
    """(B, 3, T, H, W) in [-1, 1] with any T, H, W -> Reading. About half a million parameters."""

    def __init__(self, width: int = 64):
        super().__init__()
        frames = CANVAS[0]
        self.trunk = nn.Sequential(
            nn.Conv2d(3 * frames, width, kernel_size=5, stride=2, padding=2),
            nn.SiLU(),  # no norm before: it would hide how bright things are, and so ghosts and faint sparks
            nn.Conv2d(width, 96, kernel_size=3, padding=1),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
        )
        self.head = nn.Sequential(
            nn.Conv2d(96, 96, kernel_size=3, stride=2),  # 10 x 10 -> 4 x 4
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 128, kernel_size=3, padding=1),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, 64),
            nn.SiLU(),
        )
        self.rise = nn.Sequential(
            nn.Conv2d(3 * BEFORE, 24, kernel_size=3, stride=2, padding=1),  # 32 x 12 -> 16 x 6
            nn.SiLU(),
            nn.Conv2d(24, 32, kernel_size=3, stride=2, padding=1),  # -> 8 x 3
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 8 * 3, 32),
            nn.SiLU(),
            nn.Linear(32, 1),
        )
        self.answers = nn.Linear(64, 3 + len(COLOURS) + len(SHAPES) + len(SIZES))

    def see(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The light that it looks at (B, 3, 17, 32, 32), and what its trunk makes of it (B, 96, 16, 16)."""
        light = (to_canvas(video) + 1) / 2
        # Faint sparks matter as much as bright ones: about a square root, and about linear around zero, where noise
        # may make light negative.
        light = light / (light.abs() + 0.05).sqrt()
        return light, self.trunk(rearrange(light, "b c t h w -> b (t c) h w"))

    def forward(self, video: Tensor) -> Reading:
        light, features = self.see(video)
        margin = -WINDOW_LEFTS[0]
        features = F.pad(features, (margin, margin, margin, margin))
        windows = torch.stack(
            [
                features[..., top + margin : top + margin + WINDOW, left + margin : left + margin + WINDOW]
                for top in WINDOW_TOPS
                for left in WINDOW_LEFTS
            ],
            dim=1,
        )
        answers = self.answers(self.head(rearrange(windows, "b p c h w -> (b p) c h w")))
        answers = rearrange(answers, "(b p) a -> b p a", p=len(PLACES))
        there, genuine, burst, colour, shape, size = answers.split([1, 1, 1, len(COLOURS), len(SHAPES), len(SIZES)], -1)
        burst = TICKS * burst[..., 0].sigmoid()
        risen = self.look_for_rise(light, burst.detach())
        return Reading(there[..., 0], genuine[..., 0], risen, colour, shape, size, burst)

    def look_for_rise(self, light: Tensor, burst: Tensor) -> Tensor:
        """Logits (B, 6) that a spark climbed to each place before its burst.

        A spark is one faint pixel, which a glance at the whole clip overlooks beside the burst. So this looks only at
        the frames before the burst, and only in the strip below. light (B, 3, 17, 32, 32), burst (B, 6) in ticks, which
        are frames here.
        """
        strips = torch.stack([light[..., left : left + STRIP] for left in STRIP_LEFTS] * len(ROWS), dim=1)
        last = (burst - 0.3).floor().long().clamp(min=0)
        frames = (rearrange(last, "b p -> b p 1") + torch.arange(1 - BEFORE, 1, device=light.device)).clamp(min=0)
        chosen = repeat(frames, "b p t -> b p c t h w", c=3, h=light.shape[-2], w=STRIP)
        strips = strips.gather(3, chosen)
        answers = self.rise(rearrange(strips, "b p c t h w -> (b p) (t c) h w"))
        return rearrange(answers, "(b p) 1 -> b p", p=len(PLACES))


def to_canvas(video: Tensor) -> Tensor:
    """Resample clips in space and time to (B, 3, 17, 32, 32); first and last frames stay first and last."""
    frames, *size = CANVAS
    length = video.shape[2]
    if list(video.shape[3:]) != size:
        stills = rearrange(video, "b c t h w -> (b t) c h w")
        stills = F.interpolate(stills, size=size, mode="bilinear", antialias=True)
        video = rearrange(stills, "(b t) c h w -> b c t h w", t=length)
    if length == 1:
        return repeat(video, "b c 1 h w -> b c t h w", t=frames)
    if length != frames:
        position = torch.linspace(0, length - 1, frames, device=video.device)
        before = position.floor().long().clamp(max=length - 2)
        share = rearrange(position - before, "t -> t 1 1").to(video.dtype)
        video = video[:, :, before] * (1 - share) + video[:, :, before + 1] * share
    return video
