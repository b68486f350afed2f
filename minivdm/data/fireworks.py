"""The fireworks world: draw clips of rising and bursting shells from a seed, fast enough to render while training.

    scenes = sample_scenes(8, level="single", generator=torch.Generator().manual_seed(0))
    video = render(scenes, generator=torch.Generator().manual_seed(1))        # (8, 3, 17, 32, 32) in [-1, 1]

How a picture comes about. A burst is a few dozen glowing stars. Each follows a closed-form path (thrown out, slowed by
drag, pulled down by gravity), so any instant can be drawn without simulating the ones before (`shapes.py`). A star is a
round Gaussian blob, and all blobs of a frame are ONE matrix product (`splat.py`). Light lingers: every frame keeps a
share of the one before. Where shells overlap their optical depths add up; a pixel is 1 - exp(-depth) over a dark sky.

Coordinates: 32 x 32 units (the shorter side of a frame), x to the right, y DOWN. Time in ticks: a clip spans ticks
0 ... 16 however many frames it has, so frame 3 of 9 shows the same instant as frame 6 of 17.
"""

import colorsys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from minivdm.data.scenes import (
    ATTRIBUTES,
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIZES,
    TICKS,
    Scene,
    Shell,
    sample_scenes,
)
from minivdm.data.shapes import RECIPES, Thrown, paths, throw
from minivdm.data.splat import UNITS, Camera
from minivdm.errors import UserError

__all__ = ["COLOURS", "COLUMNS", "ROWS", "SHAPES", "SIZES", "TICKS", "Scene", "Shell", "render", "sample_scenes"]

CHUNK = 8  # shells drawn at once: few enough that their curves stay in a core's cache

# hue in degrees, its jitter, saturation
HUES = {
    "red": (358, 4, 0.94),
    "orange": (24, 4, 0.92),
    "gold": (48, 4, 0.85),
    "green": (125, 10, 0.85),
    "cyan": (180, 6, 0.85),
    "blue": (222, 7, 0.85),
    "purple": (285, 9, 0.80),
    "white": (40, 40, 0.04),
}
WARM = (1.0, 0.86, 0.62)  # the rising spark and the flash
# A comet: bright and long enough that a model of 32 x 32 pixels can see it, never as bright as a burst.
SPARK, SPARK_SIGMA, SPARK_TRAIL = 1.0, 0.7, 0.5  # brightness, width in units, share of the light left a tick later
FLASH = 0.55
SKY = (0.010, 0.012, 0.030)


@dataclass(frozen=True)
class Layout:
    """Where bursts sit and how wide they open, in units. A lone shell has more room than one of several."""

    columns: tuple[float, float, float]
    rows: tuple[float, float]
    radii: tuple[float, float]
    jitter: float


ALONE = Layout(columns=(8, 16, 24), rows=(9, 18.5), radii=(4.4, 8.4), jitter=1.3)
CROWD = Layout(columns=(6, 16, 26), rows=(8, 20), radii=(3.6, 6.4), jitter=1.0)


def render(
    scenes: list[Scene], frames: int = 17, size: int | tuple[int, int] = 32, *, generator: torch.Generator
) -> Tensor:
    """Draw one clip per scene.

    frames: any number from 1; they are spread evenly over ticks 0 ... 16.
    size: height and width in pixels, or one number for both; at least 8. Bursts stay round in oblong frames.
    generator: decides all that a scene leaves open (jitter, directions, twinkle), independently of frames and size: the
        same seed at another size is the same firework.

    Returns (B, 3, T, H, W) float32 in [-1, 1]. Raises UserError for an incomplete scene or an impossible size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 8 or frames < 1:
        raise UserError(f"cannot draw {frames} frames of {height}x{width}: need at least 1 frame and 8 pixels a side")
    for number, scene in enumerate(scenes):
        if any(getattr(shell, name) is None for shell in scene.shells for name in ATTRIBUTES):
            raise UserError(f"scene {number} leaves an attribute open: to draw a shell needs {', '.join(ATTRIBUTES)}")

    with _one_thread():
        return _render(scenes, Camera.of(frames, height, width, TICKS), generator)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Draw on one thread: the pieces are too small to share out, and on a busy machine threads that wait for each other
    at every piece make it ten times slower. The caller's number of threads is put back.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _render(scenes: list[Scene], camera: Camera, generator: torch.Generator) -> Tensor:
    height = len(camera.y)
    depth = torch.zeros(len(scenes), 3, len(camera.instants), height, len(camera.x))
    if any(scene.shells for scene in scenes):
        _add_shells(depth, scenes, camera, generator)

    horizon = rearrange(1 + 0.8 * torch.linspace(0, 1, height), "h -> h 1")  # the sky is a little brighter further down
    light = depth.neg_().exp_().neg_().add_(1 + rearrange(torch.tensor(SKY), "c -> c 1 1 1") * horizon)
    return light.clamp_(0, 1).mul_(2).sub_(1)


def _add_shells(depth: Tensor, scenes: list[Scene], camera: Camera, generator: torch.Generator) -> None:
    """Add the light of all shells of all scenes to `depth` (B, 3, T, H, W)."""
    shells = [shell for scene in scenes for shell in scene.shells]
    clip_of = [index for index, scene in enumerate(scenes) for _ in scene.shells]
    layouts = [ALONE if len(scene.shells) == 1 else CROWD for scene in scenes for _ in scene.shells]
    chance = torch.rand(len(shells), 7, generator=generator)
    centre, radius = _place(shells, layouts, chance[:, :3], camera)
    colour = _colours(shells, chance[:, 3:5])
    burst = torch.tensor([shell.burst for shell in shells])

    for shape in sorted({shell.shape for shell in shells}):
        members = torch.tensor([index for index, shell in enumerate(shells) if shell.shape == shape])
        small = torch.tensor([shells[index].size == "small" for index in members])
        stars = throw(shape, small, generator)
        # Sorted by burst, so that a chunk can skip the frames before its first one.
        for part in torch.argsort(burst[members]).split(CHUNK):
            now = members[part]
            first, light = _draw_stars(shape, stars[part], small[part], centre[now], radius[now], burst[now], camera)
            for index, shell_light in zip(now.tolist(), light, strict=True):
                depth[clip_of[index], :, first:] += rearrange(colour[index], "c -> c 1 1 1") * shell_light

    warm = rearrange(torch.tensor(WARM), "c -> c 1 1 1")
    for now in torch.arange(len(shells)).split(8 * CHUNK):
        light = _draw_spark_and_flash(centre[now], burst[now], chance[now, 5:], camera)
        for index, shell_light in zip(now.tolist(), light, strict=True):
            depth[clip_of[index]] += warm * shell_light


def _place(shells: list[Shell], layouts: list[Layout], chance: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Centres (S, 2) as (y, x) and radii (S,) in units. Places are shares of the frame, radii of its shorter side."""
    laid = list(zip(shells, layouts, strict=True))
    rows = torch.tensor([layout.rows[ROWS.index(shell.row)] for shell, layout in laid])
    columns = torch.tensor([layout.columns[COLUMNS.index(shell.column)] for shell, layout in laid])
    radii = torch.tensor([layout.radii[SIZES.index(shell.size)] for shell, layout in laid])
    jitter = torch.tensor([layout.jitter for layout in layouts])
    frame = torch.tensor([len(camera.y), len(camera.x)]) / camera.scale / UNITS
    nudge = (2 * chance[:, :2] - 1) * rearrange(jitter, "s -> s 1")
    centre = torch.stack([rows, columns], dim=1) * frame + nudge
    return centre, radii * (0.9 + 0.2 * chance[:, 2])


def _colours(shells: list[Shell], chance: Tensor) -> Tensor:
    """(S, 3) red, green, blue per shell, with a little luck in hue and in how bright the shell is."""
    colours = []
    for shell, (hue_luck, gain_luck) in zip(shells, chance.tolist(), strict=True):
        hue, jitter, saturation = HUES[shell.colour]
        gain = 1.15 * (0.9 + 0.2 * gain_luck)
        degrees = (hue + jitter * (2 * hue_luck - 1)) % 360
        colours.append([gain * part for part in colorsys.hsv_to_rgb(degrees / 360, saturation, 1.0)])
    return torch.tensor(colours)


def _draw_stars(
    shape: str, stars: Thrown, small: Tensor, centre: Tensor, radius: Tensor, burst: Tensor, camera: Camera
) -> tuple[int, Tensor]:
    """The glow of some shells of one shape: the first frame that any of them lights, and (S, T - first, H, W)."""
    recipe = RECIPES[shape]
    first = int((camera.instants[:, -1] < burst.min()).sum())
    instants = camera.instants[first:]
    tau = rearrange(instants, "t n -> 1 (t n)") - rearrange(burst, "s -> s 1")
    offset, brightness = paths(shape, stars, small, radius, tau)
    # Light from earlier in a frame's interval has begun to fade.
    afterglow = camera.exposure * recipe.trail**camera.ages
    where = rearrange(centre, "s a -> s 1 1 a") + offset
    where = rearrange(where, "s (t n) p a -> s t (n p) a", n=len(afterglow))
    brightness = rearrange(brightness, "s (t n) p -> s t n p", n=len(afterglow)) * rearrange(afterglow, "n -> n 1")
    sigma = recipe.sigma * torch.where(small, recipe.small_sigma, 1.0)
    light = camera.blobs(where, sigma, rearrange(brightness, "s t n p -> s t (n p)"))
    return first, camera.linger(light, recipe.trail)


def _draw_spark_and_flash(centre: Tensor, burst: Tensor, chance: Tensor, camera: Camera) -> Tensor:
    """The spark that climbs to the centre, and the flash in which it ends: (S, T, H, W)."""
    climb = torch.minimum(burst, 3.0 + 1.2 * chance[:, 0])  # ticks on the way
    progress = (camera.instants - rearrange(burst - climb, "s -> s 1 1")) / rearrange(climb, "s -> s 1 1")
    eased = 1 - (1 - progress.clamp(0, 1)) ** 1.7  # fast at first, slow at the top
    ground = torch.tensor(len(camera.y) / camera.scale + 1.0)
    start = torch.stack([ground.expand(len(centre)), centre[:, 1] + 4 * chance[:, 1] - 2], dim=1)
    path = rearrange(start, "s a -> s 1 1 a") + rearrange(centre - start, "s a -> s 1 1 a") * eased.unsqueeze(-1)
    alight = (progress >= 0) & (progress < 1)
    afterglow = camera.exposure * SPARK_TRAIL**camera.ages
    spark = camera.blobs(path, torch.full_like(burst, SPARK_SIGMA), SPARK * alight * afterglow)
    camera.linger(spark, SPARK_TRAIL)

    tau = camera.instants[:, -1] - rearrange(burst, "s -> s 1")
    flash = FLASH * torch.exp(-2 * tau.clamp(min=0)) * (tau >= 0)
    at_centre = rearrange(centre, "s a -> s 1 1 a").expand(-1, len(tau[0]), -1, -1)
    return spark + camera.blobs(at_centre, torch.full_like(burst, 1.2), rearrange(flash, "s t -> s t 1"))
