"""How do a training step's time and memory grow with frames, resolution and width?

Factorised attention is there to make both grow like the number of pixels: double the frames, double the cost; double
the side of the picture, four times the cost. Attention over all tokens of a clip at once would grow like its square.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measure import Times
from benchmarks.unet3d import UnetTraining
from benchmarks.work import Run
from minivdm import viz
from minivdm.memory import watch_memory

MIB = 2**20
PLOT = Path(__file__).with_name("growth.png")


@dataclass(frozen=True)
class Axis:
    """One quantity that grows. expected: the power of it that the cost should grow with, once it is large."""

    name: str
    values: tuple[int, ...]
    expected: int
    step: Callable[[int], UnetTraining]


def _unet(dim: int = 16, frames: int = 8, size: int = 32) -> UnetTraining:
    sizes = {"dim": dim, "dim_mults": (1, 2, 4)}
    return UnetTraining("growth", "growth", sizes=sizes, clips=(1, 3, frames, size, size))


def axes(tiny: bool) -> list[Axis]:
    return [
        Axis("frames", (2, 4) if tiny else (8, 16, 32, 64), 1, lambda n: _unet(frames=n, size=8 if tiny else 32)),
        Axis("side", (8, 16) if tiny else (16, 32, 64, 128), 2, lambda n: _unet(frames=2 if tiny else 8, size=n)),
        Axis("width", (4, 8) if tiny else (8, 16, 32, 64), 2, lambda n: _unet(n, *((2, 8) if tiny else (8, 32)))),
    ]


@dataclass
class Curve:
    """Seconds (of the processor, a median) and bytes for each value of an axis."""

    axis: str
    expected: int
    values: tuple[int, ...]
    seconds: list[float]
    bytes: list[float]


def measure(threads: int, repeats: int, tiny: bool) -> list[Curve]:
    """All curves. First every time, then every memory: to see memory, the allocator must be slow."""
    torch.set_num_threads(threads)
    curves = []
    for axis in axes(tiny):
        seconds = [_seconds(axis.step(value).ours(), repeats) for value in axis.values]
        curves.append(Curve(axis.name, axis.expected, axis.values, seconds, []))
    for curve, axis in zip(curves, axes(tiny), strict=True):
        curve.bytes = [_bytes(axis.step(value).ours()) for value in axis.values]
    return curves


def _seconds(run: Run, repeats: int) -> float:
    """The best of several: what other programs do can only add."""
    run()
    times = Times()
    for _ in range(repeats):
        times.add(run)
    return min(times.cpu)


def _bytes(run: Run) -> int:
    gc.collect()
    with watch_memory() as seen:
        run()
        run()
    return seen.peak


def power(values: tuple[int, ...], costs: list[float]) -> float:
    """The p of cost = value^p between the last two values."""
    return math.log(costs[-1] / costs[-2]) / math.log(values[-1] / values[-2])


def draw(curves: list[Curve]) -> None:
    """Write the plot."""
    figure, panels = viz.figure(2, len(curves), width=9.0, height=5.0)
    for column, curve in enumerate(curves):
        for panel, costs, unit in zip(
            panels[:, column], (curve.seconds, [b / MIB for b in curve.bytes]), ("CPU seconds", "MiB"), strict=True
        ):
            panel.loglog(curve.values, costs, "o-", color=viz.SPACE, label="measured")
            for name, exponent, style in (
                ("as designed", curve.expected, "--"),
                ("if all tokens met", 2 * curve.expected, ":"),
            ):
                if curve.axis == "width" and style == ":":
                    continue
                line = [costs[-1] * (value / curve.values[-1]) ** exponent for value in curve.values]
                panel.loglog(curve.values, line, style, color=viz.NOISE, label=name)
            panel.set(xlabel=curve.axis, ylabel=unit)
            panel.set_xticks(curve.values, [str(value) for value in curve.values])
            panel.minorticks_off()
    panels[0, 0].legend(frameon=False)
    viz.save_png(figure, PLOT)


def table(curves: list[Curve]) -> list[str]:
    """What was measured, and the powers it grows with."""
    lines = ["| a training step against | values | CPU seconds | MiB | time grows with its power | memory with |"]
    lines += ["|---|---|---|---|---|---|"]
    for curve in curves:
        values = ", ".join(map(str, curve.values))
        seconds = ", ".join(f"{value:.2f}" for value in curve.seconds)
        memory = ", ".join(f"{value / MIB:.0f}" for value in curve.bytes)
        lines.append(
            f"| {curve.axis} | {values} | {seconds} | {memory} | {power(curve.values, curve.seconds):.2f} "
            f"(designed: {curve.expected}) | {power(curve.values, curve.bytes):.2f} |"
        )
    return lines
