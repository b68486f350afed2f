"""Fireworks as training data, rendered in memory: no download, no files."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from minivdm.data.captions import caption_with_owners
from minivdm.data.fireworks import TICKS, render, sample_scenes
from minivdm.seeds import generator_for

BLOCK = 64  # clips rendered at once
SCENES, SKY, WORDS = range(3)  # what a generator decides


def joined(blocks: Iterable[Tensor], count: int) -> Tensor:
    """Blocks (n, …) of `count` items in all, or fewer, as one tensor; `torch.cat` would hold them twice on the way."""
    whole, done = torch.empty(0), 0
    for block in blocks:
        if done == 0:
            whole = block.new_empty(count, *block.shape[1:])
        whole[done : done + len(block)] = block
        done += len(block)
    return whole[:done]


class FireworksDataset(Dataset):
    """Clips rendered once and kept as bytes (4096 clips of 9 x 32 x 32 take 113 MB), with a new wording per epoch.

    num_clips, level ("single" or "scene"), split ("train" or "test"): see `sample_scenes`. frames, size: see `render`.
    seed: the same seed is the same data set; the two splits of one seed are drawn apart. open_places: see `caption`.

    `dataset[i]`, or `dataset[i, epoch]` for another wording of the same clip, is a dictionary:
        video    (3, T, H, W) float32 in [-1, 1]
        caption  str
        fps      float, such that a clip lasts two seconds whatever its number of frames
        path     str, a name for the clip; there is no such file
        scene    Scene, the answer to be graded against
    """

    def __init__(
        self,
        num_clips: int,
        level: str = "single",
        split: str = "train",
        frames: int = 17,
        size: int | tuple[int, int] = 32,
        seed: int = 0,
        open_places: float = 0.0,
    ):
        self.open_places = open_places
        self.name = f"fireworks-{level}-{split}-{seed}"
        self.key = (seed, int(level == "scene"), int(split == "test"))
        self.frames, self.size = frames, size
        self.fps = 8.0 * (max(frames, 2) - 1) / TICKS
        self.scenes = sample_scenes(num_clips, level, split, generator=self._generator(SCENES))

    @cached_property
    def videos(self) -> Tensor:
        """(N, 3, T, H, W) bytes, rendered when they are first asked for."""
        return joined(self.rendered(), len(self))

    def rendered(self) -> Iterator[Tensor]:
        """The same in blocks of up to 64 clips, without keeping them."""
        sky, count = self._generator(SKY), len(self)
        for start in tqdm(range(0, count, BLOCK), desc=f"rendering {count} clips", delay=1, leave=False):
            light = render(self.scenes[start : start + BLOCK], self.frames, self.size, generator=sky)
            yield light.add(1).mul(127.5).round().byte()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, which: int | tuple[int, int]) -> dict:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        return {
            "video": self.videos[index].float().div(127.5).sub(1),
            "caption": self.caption(index, epoch),
            "fps": self.fps,
            "path": f"{self.name}-{index:05d}",
            "scene": self.scenes[index],
        }

    def identity(self) -> tuple:
        """What decides every pixel: equal identities are equal clips."""
        return "fireworks", self.key, len(self), self.frames, self.size

    def captions(self, epoch: int = 0) -> list[str]:
        """The wording that each clip has in an epoch."""
        return [self.caption(index, epoch) for index in range(len(self))]

    def caption(self, index: int, epoch: int = 0) -> str:
        """The wording of clip `index` in an epoch."""
        return self.caption_with_owners(index, epoch)[0]

    def caption_with_owners(self, index: int, epoch: int = 0) -> tuple[str, list[int | None]]:
        """The same, and which shell each of its words speaks of."""
        # Seeded by what is asked for, and by nothing before it: a resumed training reads the same words.
        return caption_with_owners(self.scenes[index], self._generator(WORDS, epoch, index), self.open_places)

    def _generator(self, *purpose: int) -> torch.Generator:
        return generator_for(*self.key, *purpose)
