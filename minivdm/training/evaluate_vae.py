"""How much does a VAE lose? Distances in dB, and what the judge can still read from the reconstructions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.judge import prompt_accuracy
from minivdm.vae.metrics import likeness

BATCH = 16  # clips reconstructed at once
KINDS = {"single": ("single", None), "scene of 1": ("scene", 1), "scene of 2": ("scene", 2), "scene of 3": ("scene", 3)}


def evaluate_vae(
    rebuild: Callable[[Tensor], Tensor], clips: int, frames: int, size: int, seed: int = 1
) -> dict[str, dict[str, Any]]:
    """Reconstruct `clips` clips of the test split per kind of scene, and grade them.

    rebuild: (B, 3, T, H, W) -> the same shape. Half of the test split are combinations that training never showed.
    Returns per kind "psnr", "psnr_lit" in dB, "ssim", "rendered" and "judged" (see `prompt_accuracy`).
    """
    sets = {level: FireworksDataset(4 * clips, level, "test", frames, size, seed) for level in ("single", "scene")}
    results = {}
    for kind, (level, shells) in KINDS.items():
        data = sets[level]
        chosen = [index for index, scene in enumerate(data.scenes) if shells in (None, len(scene.shells))][:clips]
        videos = torch.stack([data[index]["video"] for index in chosen])
        scenes = [data.scenes[index] for index in chosen]
        parts = tqdm(videos.split(BATCH), desc=kind, leave=False)
        again = torch.cat([rebuild(part).clamp(-1, 1).cpu() for part in parts])
        results[kind] = {
            "clips": len(chosen),
            **likeness(videos, again),
            "rendered": prompt_accuracy(videos, scenes),
            "judged": prompt_accuracy(again, scenes),
        }
    return results


def as_table(results: dict[str, dict[str, Any]]) -> str:
    """The same as lines of a Markdown table."""
    asked = ("joint", "colour", "shape", "size", "place")
    lines = [
        "| kind | clips | PSNR | PSNR, lit | SSIM | all right | colour | shape | size | place | rendered, all right |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, result in results.items():
        right = " | ".join(f"{result['judged'][name]:.1%}" for name in asked)
        lines.append(
            f"| {kind} | {result['clips']} | {result['psnr']:.1f} dB | {result['psnr_lit']:.1f} dB | "
            f"{result['ssim']:.3f} | {right} | {result['rendered']['joint']:.1%} |"
        )
    return "\n".join(lines)
