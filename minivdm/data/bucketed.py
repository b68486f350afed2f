"""A folder of clips of all sizes and lengths as training data: each in the bucket that suits it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from torch.utils.data import Dataset

from minivdm.data.bucket_batches import BucketBatches
from minivdm.data.buckets import Bucket, Buckets
from minivdm.data.folder import VideoFolder
from minivdm.data.listing import Listing
from minivdm.data.measure import CACHE, Measures, measure
from minivdm.errors import UserError
from minivdm.seeds import generator_for


class Bucketed(Dataset):
    """Several data sets, each of clips of one size and length, as one; `batches` makes batches that do not mix them.

    `dataset[i]` and `dataset[i, epoch]` are items of the parts, which are numbered one after another.
    """

    def __init__(self, parts: Sequence[Dataset], batch_sizes: Sequence[int]):
        self.parts, self.batch_sizes = list(parts), list(batch_sizes)
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        part, number = self._place(index)
        return self.parts[part][number, epoch]

    def caption(self, index: int, epoch: int = 0) -> str:
        """The wording of a clip in an epoch."""
        part, number = self._place(index)
        return self.parts[part].caption(number, epoch)

    def captions(self) -> list[str]:
        """Every wording that any epoch can show."""
        return [wording for part in self.parts for wording in part.captions()]

    def each(self, change: Callable[[Dataset], Dataset]) -> "Bucketed":
        """The same with every part changed into another data set."""
        return Bucketed([change(part) for part in self.parts], self.batch_sizes)

    def batches(self, seed: int, first: int, stop: int, rank: int, world: int) -> BucketBatches:
        """This process's share of the batches number `first` to `stop` of a run."""
        return BucketBatches([len(part) for part in self.parts], self.batch_sizes, seed, first, stop, rank, world)

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        part = int(np.searchsorted(self.ends, index, side="right"))
        return part, index - int(self.ends[part - 1] if part else 0)


def bucketed_folder(folder: VideoFolder, buckets: Buckets, seed: int = 0, cache: Path | None = CACHE) -> Bucketed:
    """The clips of a folder in their buckets; what fits none, and what cannot be read, is left out.

    cache: where `measure` remembers sizes. Raises UserError when no clip fits.
    """
    listing = Listing(folder.folder, folder.names, [], False)
    measures = measure(listing, cache)
    members = sort_clips(listing.names, measures, buckets, seed)
    left_out = members.pop(None, [])
    if not members:
        rows = measures.rows[measures.rows["frames"] > 0]
        longest, largest = rows["frames"].max(), (rows["height"] * rows["width"]).max()
        raise UserError(
            f"none of the {len(left_out)} clips in {folder.folder} fits a bucket: they have up to {longest} frames of "
            f"up to {largest:,} pixels; add smaller or shorter ones to data.buckets"
        )
    parts = []
    for bucket, numbers in members.items():
        frames, *size = buckets.shape(bucket)
        parts.append(
            folder.narrowed(np.array(numbers, np.int32), tuple(size), frames, folder.cache_bytes // len(members))
        )
    return Bucketed(parts, [buckets.batch_size(bucket) for bucket in members])


def sort_clips(
    names: Sequence[str], measures: Measures, buckets: Buckets, seed: int = 0
) -> dict[Bucket | None, list[int]]:
    """Bucket -> numbers of the clips in it, None -> those that fit none. Clips that cannot be read are in neither.

    Where `keep` and `skip` leave it to chance, a clip's luck comes from its name and the seed: it is the same in every
    epoch, so that its latents are computed once, and whatever other clips there are.
    """
    members: dict[Bucket | None, list[int]] = {}
    for number, (name, row) in enumerate(zip(names, measures.rows, strict=True)):
        if row["frames"]:
            luck = partial(generator_for, seed, crc32(name.encode("utf-8", "surrogateescape")))
            size = int(row["frames"]), int(row["height"]), int(row["width"])
            members.setdefault(buckets.find(*size, luck=luck), []).append(number)
    order = {bucket: members[bucket] for bucket in sorted(filter(None, members))}
    return order | ({None: members[None]} if None in members else {})
