"""The six shapes of a burst: how many stars are thrown, whereto, and how each one moves, glows and leaves a trail.

Every star follows one closed-form path. With tau ticks since the burst:

    offset = turned(thrown, spin * tau) * (1 - exp(-drag * tau)) * radius       thrown out, slowed by the air
           + split * (1 - exp(-0.9 * (tau - SPLIT_AT)))          after SPLIT_AT  a crossette's stars break into four
           + gravity * tau^2                                                     and all of it sinks
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

SPLIT_AT = 2.0  # ticks after the burst
SPIN = 0.16  # radians per tick


@dataclass(frozen=True)
class ShapeRecipe:
    """How many stars; brightness (`weight`) and width (`sigma`, units) of one, times `small_*` in small bursts.

    drag: per tick. gravity: units per tick^2. life: ticks until a star has faded to 1/e. trail: share of light that is
    left one tick later.
    """

    stars: int
    weight: float
    sigma: float
    drag: float
    gravity: float
    life: float
    trail: float
    small_weight: float
    small_sigma: float = 1.0


RECIPES = {
    "peony": ShapeRecipe(96, 0.22, 0.60, 0.50, 0.012, 5.0, 0.35, small_weight=0.55),
    "ring": ShapeRecipe(48, 0.34, 0.60, 0.50, 0.012, 5.0, 0.35, small_weight=0.75),
    "willow": ShapeRecipe(26, 0.20, 0.55, 0.40, 0.085, 7.5, 0.86, small_weight=0.80),
    "palm": ShapeRecipe(56, 0.17, 0.85, 0.50, 0.035, 5.5, 0.66, small_weight=0.80, small_sigma=0.73),
    "crossette": ShapeRecipe(20, 0.40, 0.52, 0.80, 0.010, 6.0, 0.72, small_weight=0.75),
    "spiral": ShapeRecipe(54, 0.30, 0.60, 0.60, 0.008, 5.5, 0.25, small_weight=0.80, small_sigma=0.9),
}


@dataclass(frozen=True)
class Thrown:
    """What chance decided for the stars of some shells of one shape, P stars each.

    thrown (S, P, 2): direction times share of the radius, as (y, x). split (S, P, 2): a second push, likewise.
    spin (S,): radians per tick. twinkle (S, P, 2): phase and speed of the sparkle.
    """

    thrown: Tensor
    split: Tensor
    spin: Tensor
    twinkle: Tensor

    def __getitem__(self, rows: Tensor) -> "Thrown":
        return Thrown(self.thrown[rows], self.split[rows], self.spin[rows], self.twinkle[rows])


def throw(shape: str, small: Tensor, generator: torch.Generator) -> Thrown:
    """Let chance throw the stars of S shells of one shape. small (S,) bool: some shapes get fewer arms then."""
    shells, stars = len(small), RECIPES[shape].stars

    def luck(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    turn = luck(shells, 1, high=2 * math.pi)
    index = torch.arange(stars)
    split = torch.zeros(shells, stars, 2)
    spin = torch.zeros(shells)
    if shape == "peony":  # evenly over a sphere, seen from the side
        height = luck(shells, stars, low=-1.0)
        distance = (1 - height**2).sqrt() * luck(shells, stars, low=0.75)
        angle = luck(shells, stars, high=2 * math.pi)
    elif shape == "ring":
        distance = luck(shells, stars, low=0.97, high=1.03)
        angle = turn + index * (2 * math.pi / stars)
    elif shape == "willow":
        distance = luck(shells, stars, low=0.45, high=0.95)
        angle = turn + (index + luck(shells, stars)) * (2 * math.pi / stars)
    elif shape == "palm":  # five to seven thick arms
        arms = 5 + (3 * luck(shells, 1)).floor()
        distance = luck(shells, stars, low=0.25, high=1.05)
        angle = turn + (index % arms).floor() * (2 * math.pi / arms) + luck(shells, stars, low=-0.1, high=0.1)
    elif shape == "crossette":  # five stars (four when small), each of which breaks into a cross
        arms = torch.where(small, 4.0, 5.0).unsqueeze(1)
        star = (index // 4) % arms
        distance = luck(shells, 1, low=0.68, high=0.76) * torch.ones(stars)
        angle = turn + star * (2 * math.pi / arms)
        push = angle + math.pi / 4 + (index % 4) * (math.pi / 2)
        split = 0.30 * torch.stack([push.sin(), push.cos()], dim=-1)
    else:  # spiral: curved arms that turn
        arms = torch.where(small, 2.0, 3.0).unsqueeze(1)
        hand = torch.where(luck(shells, 1) < 0.5, -1.0, 1.0)
        distance = 0.08 + 0.97 * (index // arms) * arms / stars
        angle = turn + (index % arms) * (2 * math.pi / arms) + hand * 3.6 * distance
        spin = SPIN * hand.squeeze(1)
    thrown = distance.unsqueeze(-1) * torch.stack([angle.sin(), angle.cos()], dim=-1)
    twinkle = torch.stack([luck(shells, stars, high=2 * math.pi), luck(shells, stars, low=1.5, high=3.0)], dim=-1)
    return Thrown(thrown, split, spin, twinkle)


def paths(shape: str, stars: Thrown, small: Tensor, radius: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets from the burst's centre and brightness, at `tau` (S, N) ticks after the burst.

    small, radius (S,). Returns offsets (S, N, P, 2) as (y, x) in units and brightness (S, N, P), 0 before the burst.
    """
    recipe = RECIPES[shape]
    since = tau.clamp(min=0)
    reach = rearrange(radius, "s -> s 1") * (1 - torch.exp(-recipe.drag * since))
    outward = stars.thrown
    if shape == "spiral":
        turn = rearrange(stars.spin, "s -> s 1") * since
        sin, cos = (rearrange(value, "s n -> s n 1") for value in (turn.sin(), turn.cos()))
        y, x = (rearrange(outward[..., axis], "s p -> s 1 p") for axis in (0, 1))
        offset = torch.stack([y * cos + x * sin, x * cos - y * sin], dim=-1) * rearrange(reach, "s n -> s n 1 1")
    else:
        offset = rearrange(outward, "s p a -> s 1 p a") * rearrange(reach, "s n -> s n 1 1")
    if shape == "crossette":
        apart = rearrange(radius, "s -> s 1") * (1 - torch.exp(-0.9 * (since - SPLIT_AT).clamp(min=0)))
        offset = offset + rearrange(stars.split, "s p a -> s 1 p a") * rearrange(apart, "s n -> s n 1 1")
    fall = recipe.gravity * since**2
    if shape == "willow":
        fall = torch.minimum(fall, 0.55 * since)  # long trails reach a steady speed
    fall = fall * rearrange(torch.where(small, 0.75, 1.0), "s -> s 1")
    offset[..., 0] += rearrange(fall, "s n -> s n 1")

    glow = recipe.weight * torch.exp(-((since / recipe.life) ** 2)) * (tau >= 0)
    glow = glow * rearrange(torch.where(small, recipe.small_weight, 1.0), "s -> s 1")
    phase, speed = (repeat(stars.twinkle[..., part], "s p -> s 1 p") for part in (0, 1))
    since = rearrange(since, "s n -> s n 1")
    flicker = 0.25 * (since > 3) * torch.sin(phase + speed * since)
    return offset, rearrange(glow, "s n -> s n 1") * (1 + flicker)
