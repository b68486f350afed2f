"""Randomness without state: every draw is a function of the run's seed and of a counter.

A training that stops and resumes must see the same noise and the same order of clips as one that never stopped. The
usual way is to save the states of all random generators. Ours has nothing to save: the k-th clip of a run, counted
from its beginning, always gets the generator seeded by (seed, stream, k). The same holds when the clips are shared out
over several processes, because k counts clips and not batches.
"""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from minivdm.seeds import derive_seed

STREAMS = {"noise": 0, "order": 1, "sample": 2}


def stream_seed(seed: int, stream: str, counter: int) -> int:
    """The seed of draw number `counter` of a stream (a key of STREAMS)."""
    return derive_seed(seed, STREAMS[stream], counter)


@contextlib.contextmanager
def seeded_modules(seed: int) -> Iterator[None]:
    """Build modules inside: their initialisers know no generator, so the global one is seeded, and put back after."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def clip_order(num_clips: int, seed: int, first: int, count: int) -> list[tuple[int, int]]:
    """Which clips are number `first`, `first + 1`, … of a run: a list of (index, epoch).

    Each epoch is its own permutation of all clips; batches run on across the border between two epochs.
    """
    order: list[tuple[int, int]] = []
    while len(order) < count:
        epoch, position = divmod(first + len(order), num_clips)
        part = _permutation(num_clips, seed, epoch)[position : position + count - len(order)]
        order += [(index, epoch) for index in part.tolist()]
    return order


@functools.lru_cache(maxsize=2)
def _permutation(num_clips: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_clips, generator=torch.Generator().manual_seed(stream_seed(seed, "order", epoch)))


class CountedBatches(Sampler[list[tuple[int, int]]]):
    """Batch sampler: this process's share of the batches number `first` to `stop` of a run."""

    def __init__(self, num_clips: int, seed: int, batch_size: int, first: int, stop: int, rank: int, world: int):
        self.num_clips, self.seed, self.batch_size = num_clips, seed, batch_size
        self.first, self.stop, self.rank = first, stop, rank
        self.share = batch_size // world

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.first, self.stop):
            yield clip_order(self.num_clips, self.seed, batch * self.batch_size + self.rank * self.share, self.share)

    def counters(self, batch: int) -> range:
        """The run-wide clip numbers of this process's share of a batch."""
        start = batch * self.batch_size + self.rank * self.share
        return range(start, start + self.share)
