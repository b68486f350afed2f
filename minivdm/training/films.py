"""Films as latents, computed once and kept on disk: the denoiser never sees a pixel.

The file is named after everything that decides what is in it, the VAE and the clips, so a changed VAE or another data
set makes a new file instead of using the wrong one. Clips of several sizes have a file for each.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from minivdm.data.bucketed import Bucketed
from minivdm.data.fireworks_dataset import FireworksDataset, joined
from minivdm.data.folder import VideoFolder
from minivdm.pipelines.device import on_best_device
from minivdm.training.latent_file import Block, read_latents, write_latents
from minivdm.vae.video import VideoAutoencoder

BLOCK = 16  # clips encoded at once


def latent_films(
    dataset: FireworksDataset | VideoFolder | Bucketed, vae: VideoAutoencoder, cache: str | Path | None
) -> "LatentFilms | Bucketed":
    """The latents of a data set; of one in buckets, in the same buckets."""
    if isinstance(dataset, Bucketed):
        return dataset.each(lambda part: LatentFilms(part, vae, cache))
    return LatentFilms(dataset, vae, cache)


class LatentFilms(Dataset):
    """A data set of latents z (C, T', h, w) in half precision, with a caption each. Unreadable clips are left out.

    `films[i]`, or `films[i, epoch]` for another wording, is {"latents": z as float32, "caption": str}.
    cache: folder for the latents, from which they are then read one by one, so that they may be more than fit into
        memory; None to keep them there. Raises UserError for a damaged file in it.
    """

    def __init__(self, dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder, cache: str | Path | None):
        self.dataset = dataset
        if cache is None:
            clips: list[int] = []

            def blocks() -> Iterator[Tensor]:
                for numbers, latents in encode_films(dataset, vae):
                    clips.extend(numbers)
                    yield latents

            self.latents, self.clips = joined(blocks(), len(dataset)), torch.tensor(clips)
            return
        file = Path(cache) / f"{fingerprint(dataset, vae)}.safetensors"
        if not file.is_file():
            write_latents(file, encode_films(dataset, vae))
        self.latents, self.clips = read_latents(file)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        return {"latents": self.latents[index].float(), "caption": self.caption(index, epoch)}

    def caption(self, index: int, epoch: int = 0) -> str:
        """The wording of film `index` in an epoch."""
        return self.dataset.caption(int(self.clips[index]), epoch)

    def captions(self) -> list[str]:
        """Wordings that will be asked for."""
        return self.dataset.captions()


@torch.no_grad()
def encode_films(dataset: FireworksDataset | VideoFolder, vae: VideoAutoencoder) -> Iterator[Block]:
    """Numbers of clips with their most probable latents, (B, C, T', h, w) float16 on the CPU, until all N are done.

    They are computed on the best device there is; afterwards the VAE is where it was.
    """
    title = f"encoding {len(dataset)} clips"
    with on_best_device(vae) as device, tqdm(total=len(dataset), desc=title, delay=1, leave=False) as bar:
        for clips, block in _clips(dataset):
            for numbers, videos in zip(_split(clips), block.split(BLOCK), strict=True):
                yield numbers, vae.encode(videos.to(device), sample=False).half().cpu()
                bar.update(len(videos))


def _split(clips: Sequence[int]) -> Iterator[Sequence[int]]:
    return (clips[start : start + BLOCK] for start in range(0, len(clips), BLOCK))


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
    settings = vae.vae2d.config, vae.temporal and vae.temporal.config, vae.micro_frame_size
    digest.update(repr((dataset.identity(), settings)).encode())
    return digest.hexdigest()[:24]
