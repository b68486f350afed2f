"""Films as latents, computed once and kept on disk: the denoiser never sees a pixel.

The file is named after everything that decides what is in it, the VAE and the clips, so a changed VAE or another data
set makes a new file instead of using the wrong one.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.errors import UserError
from minivdm.vae.video import VideoAutoencoder

BLOCK = 16  # clips encoded at once


class LatentFilms(Dataset):
    """A data set of latents z (C, T', h, w) in half precision, with a caption each. Unreadable clips are left out.

    `films[i]`, or `films[i, epoch]` for another wording, is {"latents": z as float32, "caption": str}.
    cache: folder for the latents, None to keep none. Raises UserError for a damaged file in it.
    """

    def __init__(self, dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder, cache: str | Path | None):
        self.dataset = dataset
        file = None if cache is None else Path(cache) / f"{fingerprint(dataset, vae)}.safetensors"
        if file is not None and file.is_file():
            self.latents, self.clips = _read(file)
        else:
            self.latents, self.clips = encode_films(dataset, vae)
            if file is not None:
                _write(file, self.latents, self.clips)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        return {"latents": self.latents[index].float(), "caption": self.caption(index, epoch)}

    def caption(self, index: int, epoch: int = 0) -> str:
        """The wording of film `index` in an epoch."""
        return self.dataset.caption(int(self.clips[index]), epoch)


@torch.no_grad()
def encode_films(dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder) -> tuple[Tensor, Tensor]:
    """The most probable latents of N clips, (N, C, T', h, w) float16 on the CPU, and the clips' numbers, (N,)."""
    device, latents, numbers = vae.shift.device, [], []
    with tqdm(total=len(dataset), desc=f"encoding {len(dataset)} clips", delay=1, leave=False) as bar:
        for clips, block in _clips(dataset):
            numbers += clips
            for videos in block.split(BLOCK):
                latents.append(vae.encode(videos.to(device), sample=False).half().cpu())
                bar.update(len(videos))
    return torch.cat(latents), torch.tensor(numbers)


def _clips(dataset: FireworksDataset | VideoFolder) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Blocks of clips (B, 3, T, H, W) with their numbers."""
    done = 0
    if isinstance(dataset, FireworksDataset):
        for block in dataset.rendered():
            yield range(done, done + len(block)), block.float().div_(127.5).sub_(1)
            done += len(block)
        return
    for start in range(0, len(dataset), BLOCK):
        items = {number: dataset[number] for number in range(start, min(start + BLOCK, len(dataset)))}
        # another clip takes the place of one that cannot be read: it would get words that are not its own
        own = {k: item["video"] for k, item in items.items() if item["path"] == str(dataset.paths[k])}
        if own:
            yield list(own), torch.stack(list(own.values()))


def fingerprint(dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder) -> str:
    """A name for what `encode_films` would compute: it changes with the VAE, the clips, their size and length."""
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(repr((dataset.identity(), vae.micro_frame_size)).encode())
    return digest.hexdigest()[:24]


def _read(file: Path) -> tuple[Tensor, Tensor]:
    try:
        stored = load_file(file)
        return stored["latents"], stored["clips"]
    except (OSError, SafetensorError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read latents from {file} ({reason}); delete it, and they are computed anew") from None


def _write(file: Path, latents: Tensor, clips: Tensor) -> None:
    """Under another name first, so that a file with the right name is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        save_file({"latents": latents, "clips": clips}, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
