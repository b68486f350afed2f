"""How well does a text-to-video model obey? Films graded by the judge, by number of shells; and how real they look.

Accuracy saturates: a model can obey always and still draw lumps. So there is a distance of distributions as well, of
Fréchet (Heusel et al. 2017), between what the judge's trunk sees in drawn and in rendered clips, beside the distance of
two sets of rendered clips, which is the least that a perfect model would show.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from minivdm.data.captions import caption, parse_caption
from minivdm.data.fireworks import render
from minivdm.data.judge import judge, load_judge
from minivdm.data.scenes import COLOURS, SHAPES, Scene, sample_scenes
from minivdm.data.verdicts import Verdict, accuracy
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.vae.video import VideoAutoencoder

BATCH = 16  # films drawn at once
KINDS = {"one shell": (1, None), "two": (2, None), "three together": (3, "together"), "three, one by one": (3, "then")}


def unseen_prompts(count: int, level: str, seed: int) -> tuple[list[str], list[Scene]]:
    """Captions of the test split and the scenes behind them; every second one holds what training never shows."""
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(count, level, "test", generator=generator)
    return [caption(scene, generator) for scene in scenes], scenes


def draw(pipeline: TextToVideoPipeline, prompts: Sequence[str], seed: int, **options: Any) -> Tensor:
    """A film per prompt, (N, 3, T, H, W) on the CPU; film k starts from seed + k."""
    starts = range(0, len(prompts), BATCH)
    return torch.cat([pipeline(prompts[k : k + BATCH], seed=seed + k, **options).cpu() for k in starts])


def short_sentences(pipeline: TextToVideoPipeline) -> dict[str, float]:
    """How many films obey where colour and shape are all that is said: "films" and "joint", the share of them."""
    prompts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    found = _grade(judge(draw(pipeline, prompts, seed=0)), prompts, range(len(prompts)))
    return {"films": len(prompts), "joint": found["joint"]}


def graded(videos: Tensor, prompts: Sequence[str], scenes: Sequence[Scene]) -> dict[str, dict[str, Any]]:
    """`verdicts.accuracy` by kind of scene, with "seen" and "unseen": joint where training shows it, and where not."""
    verdicts, results = judge(videos), {}
    for name, (shells, order) in KINDS.items():
        kind = [k for k, s in enumerate(scenes) if len(s.shells) == shells and order in (None, s.order)]
        if kind:
            results[name] = _grade(verdicts, prompts, kind) | {"films": len(kind)}
            for part, held_out in (("seen", False), ("unseen", True)):
                if chosen := [k for k in kind if scenes[k].held_out == held_out]:
                    results[name][part] = _grade(verdicts, prompts, chosen)["joint"]
    return results


def _grade(verdicts: Sequence[Verdict], prompts: Sequence[str], chosen: Sequence[int]) -> dict[str, Any]:
    return accuracy([verdicts[k] for k in chosen], [parse_caption(prompts[k]) for k in chosen])


@torch.no_grad()
def features(videos: Tensor) -> Tensor:
    """What the judge's trunk sees in clips, averaged over the picture: (N, 96) float64."""
    seen = [load_judge().see(part)[1] for part in videos.split(64)]
    return reduce(torch.cat(seen).double(), "n c h w -> n c", "mean")


def frechet(one: Tensor, other: Tensor) -> float:
    """Fréchet distance of two Gaussians with the means and covariances of features (N, D) and (M, D), float64."""
    difference = one.mean(0) - other.mean(0)
    first, second = torch.cov(one.T), torch.cov(other.T)
    # the trace of the root of first @ second: both are positive, so its eigenvalues are real and not negative
    root = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt().sum()
    return (difference.square().sum() + first.trace() + second.trace() - 2 * root).item()


def realism(videos: Tensor, scenes: Sequence[Scene], pipeline: TextToVideoPipeline, seed: int = 7) -> dict[str, float]:
    """Fréchet distances to rendered clips of the same scenes: "drawn" films, "rendered" anew, "reconstructed" ones."""
    frames, size = videos.shape[2], tuple(videos.shape[-2:])
    first, second = (rendered(scenes, frames, size, seed + k) for k in range(2))
    reference = features(second)
    sets = {"drawn": videos, "rendered": first, "reconstructed": reconstructed(first, pipeline.vae)}
    return {name: frechet(features(clips), reference) for name, clips in sets.items()}


@torch.no_grad()
def reconstructed(clips: Tensor, vae: VideoAutoencoder) -> Tensor:
    """Clips (N, 3, T, H, W) that went through the VAE and back: the most that a denoiser of its latents could reach."""
    parts = [vae.decode(vae.encode(part, sample=False), num_frames=clips.shape[2]) for part in clips.split(BATCH)]
    return torch.cat(parts).clamp(-1, 1)


def rendered(scenes: Sequence[Scene], frames: int, size: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat(
        [render(list(scenes[k : k + 64]), frames, size, generator=generator) for k in range(0, len(scenes), 64)]
    )
