"""How good is a model? Films graded by the judge: legal, as asked, and in the right proportions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.data.captions import parse_caption
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.judge import judge, prompt_accuracy
from minivdm.data.scenes import Scene, sample_scenes
from minivdm.data.verdicts import Verdict
from minivdm.pipelines import UnetPipeline

ATTRIBUTES = ("colour", "shape", "size", "column", "row")
BATCH = 25  # films drawn at once


def evaluate(pipeline: UnetPipeline, clips: int, seed: int = 1) -> dict[str, Any]:
    """Grade `clips` films asked for with captions of the test split, and as many that nobody asked for anything.

    The test split is half pairs of colour and shape that training never showed. Shares are from 0 to 1.
    """
    data, sampling = pipeline.config.data, pipeline.config.sampling
    tests = FireworksDataset(clips, level=data.level, split="test", frames=data.frames, size=data.size, seed=seed)
    trained = sample_scenes(2000, data.level, "train", generator=torch.Generator().manual_seed(seed))
    prompts = tests.captions()
    wanted = [parse_caption(prompt) for prompt in prompts]
    prompted, free = draw(pipeline, prompts, seed), judge(draw(pipeline, [""] * clips, seed))
    held_out = [scene.held_out for scene in tests.scenes]
    return {
        "clips": clips,
        "sampler": f"{sampling.method}, {sampling.steps} steps, guidance {sampling.guidance}",
        "rendered": prompt_accuracy(torch.stack([item["video"] for item in tests]), wanted),
        "prompted": prompt_accuracy(prompted, wanted) | {"shares": shares(_legal(judge(prompted)))},
        "joint_seen": _joint(prompted, wanted, [not held for held in held_out]),
        "joint_held_out": _joint(prompted, wanted, held_out),
        "asked_shares": shares(tests.scenes),
        "free": {"legal": len(_legal(free)) / clips, "shares": shares(_legal(free))},
        "data_shares": shares(trained),
    }


def shares(scenes: Sequence[Scene | Verdict]) -> dict[str, dict[str, float]]:
    """How often each value of each attribute occurs among all shells."""
    shells = [shell for scene in scenes for shell in scene.shells]
    counts = {name: Counter(getattr(shell, name) for shell in shells) for name in ATTRIBUTES}
    return {
        name: {value: round(count / len(shells), 3) for value, count in sorted(counter.items())}
        for name, counter in counts.items()
    }


def distance(found: dict[str, float], expected: dict[str, float]) -> float:
    """Total variation: the share of shells that would have to change for the two to agree, from 0 to 1."""
    return sum(abs(found.get(value, 0) - expected.get(value, 0)) for value in found.keys() | expected.keys()) / 2


def draw(pipeline: UnetPipeline, prompts: Sequence[str], seed: int) -> Tensor:
    """A film per prompt, in batches, on the CPU."""
    starts = range(0, len(prompts), BATCH)
    return torch.cat([pipeline(prompts[i : i + BATCH], seed=seed * 1000 + i, progress=True).cpu() for i in starts])


def _legal(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.legal]


def _joint(videos: Tensor, wanted: Sequence[Scene], chosen: Sequence[bool]) -> float:
    places = [place for place, yes in enumerate(chosen) if yes]
    return prompt_accuracy(videos[places], [wanted[place] for place in places])["joint"]
