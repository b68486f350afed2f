"""Films as latents, computed once and kept on disk: the denoiser never sees a pixel.

The file is named after everything that decides what is in it, the weights of the VAE and the clips, so a changed VAE or
another data set makes a new file instead of using the wrong one.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.vae.video import VideoAutoencoder

BLOCK = 16  # clips encoded at once


class LatentFilms(Dataset):
    """A data set of latents z (C, T', h, w) in half precision, with a caption each.

    `films[i]`, or `films[i, epoch]` for another wording, is {"latents": z as float32, "caption": str, "fps": float}.
    cache: folder for the latents, None to keep none.
    """

    def __init__(self, dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder, cache: str | Path | None):
        self.dataset = dataset
        file = None if cache is None else Path(cache) / f"{fingerprint(dataset, vae)}.safetensors"
        if file is not None and file.is_file():
            self.latents = load_file(file)["latents"]
        else:
            self.latents = encode_films(dataset, vae)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
                save_file({"latents": self.latents}, partial)
                os.replace(partial, file)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        return {"latents": self.latents[index].float(), "caption": self.dataset.caption(index, epoch)}


@torch.no_grad()
def encode_films(dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder) -> Tensor:
    """The most probable latents of all clips, (N, C, T', h, w) float16 on the CPU."""
    device, parts = vae.shift.device, []
    with tqdm(total=len(dataset), desc=f"encoding {len(dataset)} clips", delay=1, leave=False) as bar:
        for block in _clips(dataset):
            for videos in block.split(BLOCK):
                parts.append(vae.encode(videos.to(device), sample=False).half().cpu())
                bar.update(len(videos))
    return torch.cat(parts)


def _clips(dataset: FireworksDataset | VideoFolder) -> Iterator[Tensor]:
    if isinstance(dataset, FireworksDataset):
        for block in dataset.rendered():
            yield block.float().div_(127.5).sub_(1)
        return
    for start in range(0, len(dataset), BLOCK):
        yield torch.stack([dataset[i]["video"] for i in range(start, min(start + BLOCK, len(dataset)))])


def fingerprint(dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder) -> str:
    """A name for what `encode_films` would compute: it changes with the weights, the clips, their size and length."""
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(repr(dataset.identity()).encode())
    return digest.hexdigest()[:24]
