"""The judge's own examination: clips it has not seen, in ways it has and has not seen, and the page that reports it."""

from collections.abc import Callable

import torch
from torch import Tensor

from minivdm.data.corruptions import HELD_BACK, TRAINED, begun, imperfect, noised, unrisen
from minivdm.data.fireworks import render, sample_scenes
from minivdm.data.judge import attribute_accuracy, judge, prompt_accuracy
from minivdm.data.judge_network import JudgeNetwork
from minivdm.data.verdicts import accuracy

SEED = 1234
GRADES = ("joint", "colour", "shape", "size", "place", "order", "legal")


def examine(network: JudgeNetwork) -> dict[str, dict[str, dict[str, float]]]:
    """Three tables, as {table: {row: {column: share}}}: "graded", "refused" (share called legal), "noise"."""

    def generator(offset: int) -> torch.Generator:
        return torch.Generator().manual_seed(SEED + offset)

    def clips(level: str, count: int, frames: int = 17, size: int | tuple[int, int] = 32) -> tuple[list, Tensor]:
        scenes = sample_scenes(count, level, "test", generator=generator(0))
        return scenes, render(scenes, frames, size, generator=generator(1))

    settings: dict[str, tuple] = {
        "single": ("single", 1024),
        "single, 9 frames": ("single", 1024, 9),
        "single, 10 frames": ("single", 512, 10),
        "single, 64 px": ("single", 256, 17, 64),
        "single, 24 x 36 px": ("single", 256, 17, (24, 36)),
        "scene": ("scene", 1024),
        "scene, 9 frames": ("scene", 512, 9),
        "scene, 64 px": ("scene", 256, 17, 64),
    }
    graded: dict[str, dict[str, float]] = {}
    for name, setting in settings.items():
        scenes, video = clips(*setting)
        graded[name] = prompt_accuracy(video, scenes, network)
        if name in ("single", "single, 9 frames", "scene"):
            spoilt = imperfect(video, generator(2))
            graded[f"{name}, blurred, noisy, dimmed"] = prompt_accuracy(spoilt, scenes, network)
        if name == "scene":
            verdicts = judge(video, network)
            for count, order in ((1, "together"), (2, "together"), (2, "then"), (3, "together"), (3, "then")):
                rows = [i for i, scene in enumerate(scenes) if (len(scene.shells), scene.order) == (count, order)]
                part = accuracy([verdicts[i] for i in rows], [scenes[i] for i in rows])
                graded[f"scene of {count}{', ' + order if count > 1 else ''}"] = part

    scenes, video = clips("single", 256)
    mixed = torch.cat([video, clips("scene", 256)[1]])[torch.randperm(512, generator=generator(3))]

    def legal(spoil: Callable, source: Tensor) -> dict[str, float]:
        verdicts = judge(spoil(source, generator(4)), network)
        return {"legal": sum(verdict.legal for verdict in verdicts) / len(verdicts)}

    refused = {f"{name} (trained)": legal(spoil, video) for name, spoil in TRAINED.items()}
    refused["no spark before the burst, or one that falls (trained)"] = legal(unrisen, video)
    for share in (0.5, 0.7, 0.9):
        amount = torch.full((len(mixed),), share)
        refused[f"{share:.0%} Gaussian noise (trained)"] = legal(
            lambda clip, luck, a=amount: noised(clip, a, luck), mixed
        )
    refused["begins in mid-burst"] = legal(begun, video)
    for name, spoil in HELD_BACK.items():
        refused[name] = legal(spoil, mixed)

    noise = {}
    for share in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0):
        spoilt = noised(video, torch.full((len(video),), share), generator(5))
        noise[f"{share:.2f}"] = attribute_accuracy(spoilt, scenes, network)
    return {"graded": graded, "refused": refused, "noise": noise}


def model_card(network: JudgeNetwork, tables: dict[str, dict[str, dict[str, float]]], log: list[str]) -> str:
    """The page that is shipped beside the weights."""
    parameters = sum(weight.numel() for weight in network.parameters())
    return f"""# The judge

Reads shells (colour, shape, place, size, burst time) from clips of the fireworks world, and refuses other clips.
{parameters:,} parameters, stored in half precision. Made by `python -m minivdm.data.train_judge` from rendered clips
only: it has never seen a generated one. See `minivdm/data/judge.py` for how to ask it.

## On rendered clips of the test split (half of them hold combinations that no model sees in training)

"joint": everything right, order included. Colour, shape, size, place: shares of shells. "legal" should be 1.

{_table("clips", tables["graded"], GRADES)}

## On what is not fireworks

Share that is called legal; it should be 0. "(trained)": spoilt in a way that training showed, on other clips.

{_table("clips", tables["refused"], ("legal",))}

## Under Gaussian noise: sqrt(1 - s^2) x + s noise, one shell, 17 frames

Shares right of `attribute_accuracy`, which has to answer; guessing gives 0.125, 0.167, 0.167, 0.5.

{_table("s", tables["noise"], ("colour", "place", "shape", "size"))}

## Limits

It names the nearest thing that it knows: what is not in this world is either refused or misread. It is lenient about
fine structure. The last burst of three, in the clip's last ticks, is hard to tell apart, for people as well.

## Log

```
{chr(10).join(log)}
```
"""


def _table(corner: str, rows: dict[str, dict[str, float]], columns: tuple[str, ...]) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, shares in rows.items():
        cells = (f"{shares[column]:.3f}" if column in shares else "" for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
