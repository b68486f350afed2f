"""Batches of which each comes from one bucket, as functions of their number: nothing is stored, nothing is left out.

Every bucket is a stream of clips: all its clips in a random order, then again in another, without end. It gives its
batches from the beginning of the stream on, so that a batch may hold the end of one round and the start of the next. In
each epoch a bucket has as many batches as its stream has become longer by: n clips in batches of b make n/b batches,
rounded such that it comes out even over the epochs. Each clip is seen once per epoch, also in a bucket that is smaller
than its batch; and the batches of an epoch come in a random order.

Batch number k therefore follows from k: whoever resumes asks for the next number. Several processes share out each
batch, so that all work on the same size at the same time, and see together what one would see alone.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from torch.utils.data import Sampler

from minivdm.data.shuffle import shuffled
from minivdm.errors import UserError

_BATCHES, _CLIPS = range(2)  # what an order is of


class BucketBatches(Sampler[list[tuple[int, int]]]):
    """Batch sampler: this process's share of the batches number `first` to `stop` of a run, as (index, epoch).

    sizes: clips in each bucket; clip i of bucket b has the index sum(sizes[:b]) + i. batch_sizes: for each bucket, over
    all processes. Raises UserError when a batch cannot be shared out.
    """

    def __init__(
        self, sizes: Sequence[int], batch_sizes: Sequence[int], seed: int, first: int, stop: int, rank: int, world: int
    ):
        if uneven := [size for size in batch_sizes if size % world]:
            raise UserError(
                f"batches of {uneven[0]} clips cannot be shared by {world} processes; "
                f"let every batch of data.buckets be a multiple of {world}"
            )
        self.sizes, self.batch_sizes, self.seed = list(sizes), list(batch_sizes), seed
        self.starts = [0, *accumulate(self.sizes)]
        self.first, self.stop, self.rank, self.world = first, stop, rank, world
        self.largest = max(batch_sizes)

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.first, self.stop):
            bucket, number = self.locate(batch)
            share = self.batch_sizes[bucket] // self.world
            start = number * self.batch_sizes[bucket] + self.rank * share
            yield [self._clip(bucket, place) for place in range(start, start + share)]

    def counters(self, batch: int) -> range:
        """Numbers for this process's share of a batch, which no other clip of the run has."""
        share = self.batch_sizes[self.locate(batch)[0]] // self.world
        start = batch * self.largest + self.rank * share
        return range(start, start + share)

    def locate(self, batch: int) -> tuple[int, int]:
        """(bucket, number among the bucket's own batches) of a batch of the run."""
        epoch = self._epoch(batch)
        before, after = self._done(epoch), self._done(epoch + 1)
        ends = list(accumulate(late - early for early, late in zip(before, after, strict=True)))
        place = shuffled(batch - sum(before), ends[-1], self.seed, _BATCHES, epoch)
        bucket = bisect_right(ends, place)
        return bucket, before[bucket] + place - (ends[bucket - 1] if bucket else 0)

    def _done(self, epoch: int) -> list[int]:
        """How many batches each bucket has given before an epoch."""
        return [epoch * size // batch for size, batch in zip(self.sizes, self.batch_sizes, strict=True)]

    def _epoch(self, batch: int) -> int:
        """The epoch of a batch, by halving: the number of batches grows with the epochs."""
        low, high = 0, 1
        while sum(self._done(high)) <= batch:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._done(middle)) <= batch else (low, middle)
        return low

    def _clip(self, bucket: int, place: int) -> tuple[int, int]:
        """(index, epoch) of a place in a bucket's stream."""
        epoch, place = divmod(place, self.sizes[bucket])
        return self.starts[bucket] + shuffled(place, self.sizes[bucket], self.seed, _CLIPS, bucket, epoch), epoch
