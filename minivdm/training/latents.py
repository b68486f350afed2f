"""Latents of a data set, computed once: a frozen 2D VAE need not look at the same clip in every epoch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from minivdm.data.fireworks_dataset import FireworksDataset, joined
from minivdm.data.folder import VideoFolder
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.device import on_best_device
from minivdm.training.parts import averages, is_run, vae_weights
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.temporal import TemporalVAE

BLOCK = 16  # clips encoded at once


def find_vae2d(source: str | None) -> AutoEncoder2D:
    """A trained 2D VAE: "toy", a run folder of `minivdm train vae2d`, or a folder of `save_pretrained`.

    Raises UserError when it is none of these.
    """
    if source is None:
        raise UserError(
            "a temporal VAE stands on a 2D VAE: train one with `minivdm train vae2d` and give its run with "
            "--vae_loss.vae2d RUN, or take the shipped one with --vae_loss.vae2d toy"
        )
    folder = checkpoint_dir("toy/vae2d") if source == "toy" else Path(source)
    if is_run(folder):
        config, weights = averages(folder, "vae2d")
        vae = AutoEncoder2D(config.vae2d)
        vae.load_state_dict(vae_weights(weights))
    elif (folder / "config.json").is_file():
        vae = AutoEncoder2D.from_pretrained(folder)
    else:
        raise UserError(f"no 2D VAE in {folder}; expected a run of `minivdm train vae2d`, or config.json with weights")
    return vae.eval().requires_grad_(False)


def find_temporal_vae(source: str) -> TemporalVAE:
    """A trained temporal VAE: "toy", a run folder of `minivdm train temporal_vae`, or a folder of `save_pretrained`.

    Raises UserError when it is none of these.
    """
    folder = checkpoint_dir("toy/temporal_vae") if source == "toy" else Path(source)
    if is_run(folder):
        config, weights = averages(folder, "temporal_vae")
        vae = TemporalVAE(config.temporal_vae)
        vae.load_state_dict(vae_weights(weights))
        return vae.eval()
    if not (folder / "config.json").is_file():
        expected = "expected a run of `minivdm train temporal_vae`, or config.json with weights"
        raise UserError(f"no temporal VAE in {folder}; {expected}")
    return TemporalVAE.from_pretrained(folder)


@torch.no_grad()
def encode_frames(vae: AutoEncoder2D, video: Tensor) -> Tensor:
    """Latents (B, C, T, h, w) of clips (B, 3, T, H, W): the most probable ones, so that every epoch sees the same."""
    return vae.encode(video, sample=False)


class LatentClips(Dataset):
    """A data set whose items have "latents" (C, T, h, w) beside what they had.

    They are computed at the beginning, on the best device there is, and kept in memory in single precision. So a clip
    is in all epochs what it is in epoch 0, mirrored or not and cut where it was then; its words change.
    """

    def __init__(self, dataset: FireworksDataset | VideoFolder, vae: AutoEncoder2D):
        self.dataset = dataset
        self.latents = joined(self._encoded(vae), len(dataset))

    def _encoded(self, vae: AutoEncoder2D) -> Iterator[Tensor]:
        count = len(self.dataset)
        with on_best_device(vae) as device:
            for start in tqdm(range(0, count, BLOCK), desc=f"encoding {count} clips", delay=1, leave=False):
                clips = [self.dataset[index]["video"] for index in range(start, min(start + BLOCK, count))]
                yield encode_frames(vae, torch.stack(clips).to(device)).cpu()

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        words = {"caption": self.dataset.caption(index, epoch)}
        return self.dataset[index, 0] | words | {"latents": self.latents[index]}
