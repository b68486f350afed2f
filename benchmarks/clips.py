"""A folder of GIFs as training batches, against video-diffusion-pytorch's Dataset: read anew, and once it was read."""

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers import VIDEO_DIFFUSION, video_diffusion
from benchmarks.work import Run, Work, relative
from minivdm.data.folder import VideoFolder
from minivdm.data.write_dataset import write_fireworks
from minivdm.training.tasks import collate


@dataclass(frozen=True)
class Batches(Work):
    """All clips of a folder once, in batches of 8, in [-1, 1].

    stored, size: pixels of the files and of the batches. warm: the folder has been read before.
    """

    peer: str = VIDEO_DIFFUSION
    clips: int = 32
    frames: int = 10
    stored: int = 64
    size: int = 64
    warm: bool = False

    tensors = False

    def ours(self) -> Run:
        make = functools.partial(VideoFolder, fireworks(self.clips, self.frames, self.stored), self.size, self.frames)
        return self._run(make, lambda dataset: DataLoader(dataset, 8, collate_fn=collate), lambda batch: batch["video"])

    def theirs(self) -> Run:
        theirs, folder = video_diffusion(), fireworks(self.clips, self.frames, self.stored)

        def make():
            dataset = theirs.Dataset(folder, self.size, num_frames=self.frames)
            dataset.paths.sort()  # it takes the order of the file system
            return dataset

        return self._run(make, lambda dataset: DataLoader(dataset, 8), theirs.normalize_img)

    def _run(self, make, load, video) -> Run:
        once = functools.cache(make)

        def run() -> Tensor:
            batches = [video(batch) for batch in load(once() if self.warm else make())]
            return torch.cat(batches)

        return run

    def difference(self, ours: Run, theirs: Run) -> float:
        """Largest, of 255 grey levels: both round pixels to bytes when they resize."""
        return relative(ours(), theirs())


@functools.cache
def fireworks(clips: int, frames: int, size: int) -> str:
    """A folder of rendered GIFs, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="minivdm-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_fireworks(folder, clips, level="scene", frames=frames, size=size))


def works(tiny: bool) -> list[Work]:
    """The rows."""
    sizes = {"clips": 2, "frames": 3, "stored": 16, "size": 16} if tiny else {}
    small = "The files are of a few kilobytes: opening and parsing them takes as long as their pixels, on both sides."
    memory = (
        "No file is read any more. What is left is to take every number through memory, from bytes to [-1, 1] and from "
        "clips to batches, and to start a DataLoader, which is the same on both sides."
    )
    filters = (
        "On both sides Pillow decodes every frame and shrinks it by the same filter, in C: nothing is left to save but "
        "to do it only once, which is the row above."
    )
    rows = [
        Batches("gif-cold", "32 GIFs of 10×64×64 -> batches, decoded anew", time=0.5, why=small, **sizes),
        Batches("gif-warm", "the same, decoded before", time=0.05, why=memory, warm=True, **sizes),
    ]
    if not tiny:
        name = "32 GIFs of 10×128×128 -> batches of 64×64, decoded anew"
        rows += [Batches("gif-resize", name, time=0.5, why=filters, stored=128)]
    return rows
