"""Which clips can share a batch: buckets over resolution, length and shape, as Open-Sora has them.

A bucket is (resolution, frames, ratio), and all that is in it has one size and one length. A configuration lists
resolutions and lengths, with a batch size for each: as many clips as fit into memory at that size. The shapes come
from the tables of `aspect`. Where a clip goes, in plain words:

1. Resolutions are tried from the largest down; one with more than 1.25 times the pixels of the clip is passed over, so
   that nothing is blown up by much.
2. There, lengths are tried from the longest down, and the first that the clip has frames for is taken. What is longer
   is cut. A picture, a clip of one frame, goes to lengths of one frame only, and a film never does.
3. Either choice can be left to chance. With `skip` a clip passes a length over and takes a shorter one, that often.
   With `keep` less than 1 the others leave the resolution for a smaller one: so large clips also teach small sizes.
4. The shape is the one of the table that is nearest.
5. A clip for which there is no length, or no resolution small enough, is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from minivdm.data.aspect import OPEN_SORA_12, Resolution, closest_ratio, named_by_shape, resolution
from minivdm.errors import UserError

FILL = 0.8  # how many of a bucket's pixels a clip must have, at least


@dataclass(frozen=True)
class BucketConfig:
    """One length at one resolution."""

    size: str  # such as 256px, a square's worth of pixels, or 360p, so many lines of 16:9: see `aspect.resolution`
    frames: int
    batch: int  # clips in a batch, over all processes
    keep: float = 1.0  # share of the clips that stay, where they could
    skip: float = 0.0  # share of the clips that take a shorter length at the same resolution, where they could


class Bucket(NamedTuple):
    """Where a clip goes: names of its resolution and ratio, and its length."""

    size: str
    frames: int
    ratio: str


class Buckets:
    """The buckets of a configuration, and which clip goes into which.

    configs: see `BucketConfig`. tables: pixels and sizes of each resolution; None: Open-Sora 2's sizes for training, by
        their true shapes, in multiples of `multiple` pixels: of how much the VAE makes smaller times the denoiser's
        patch.
    longer: a film needs more frames than its bucket has, not just as many: Open-Sora 1.2's rule.

    `len(buckets)` counts all of them, those that stay empty too. Raises UserError for configurations that cannot work.
    """

    def __init__(
        self,
        configs: Sequence[BucketConfig],
        tables: Mapping[str, Resolution] | None = None,
        multiple: int = 16,
        longer: bool = False,
    ):
        check_buckets(configs)
        if multiple < 1:
            raise UserError(f"sizes in multiples of {multiple} pixels; expected a number from 1 on")
        names = dict.fromkeys(config.size for config in configs)
        if tables is None:
            tables = {name: named_by_shape(resolution(name, multiple=multiple)) for name in names}
        elif unknown := [name for name in names if name not in tables]:
            raise UserError(f"{unknown[0]!r} is no resolution; known are {', '.join(tables)}")
        if empty := [name for name in names if not tables[name][1]]:
            raise UserError(f"{empty[0]} is too small for sizes in multiples of {multiple} pixels; take a larger one")
        self.tables, self.longer = tables, longer
        largest = sorted(names, key=lambda name: tables[name][0], reverse=True)  # of equal ones the first stays first
        self.lengths = {
            name: sorted((c for c in configs if c.size == name), key=lambda c: c.frames, reverse=True)
            for name in largest
        }

    def __len__(self) -> int:
        return sum(len(lengths) * len(self.tables[name][1]) for name, lengths in self.lengths.items())

    def find(
        self, frames: int, height: int, width: int, interval: int = 1, luck: Callable[[], torch.Generator] | None = None
    ) -> Bucket | None:
        """The bucket of a clip of so many frames and pixels, or None where it is left out.

        interval: only every so manieth frame is used. luck: makes the generator that decides where `keep` and `skip`
        leave it to chance; called only where they do.
        """
        chance = Chance(luck)
        for name, lengths in self.lengths.items():
            pixels, sizes = self.tables[name]
            if height * width < FILL * pixels:
                continue
            config = self._length(lengths, frames, interval, chance)
            if config is not None and chance(config.keep):
                return Bucket(name, config.frames, closest_ratio(height, width, sizes))
        return None

    def _length(
        self, lengths: Sequence[BucketConfig], frames: int, interval: int, chance: "Chance"
    ) -> BucketConfig | None:
        used = frames if self.longer else frames // interval
        for config in lengths:
            if config.frames == 1 or used == 1:
                fits = config.frames == used == 1
            else:
                fits = frames > config.frames * interval if self.longer else used >= config.frames
            if fits and not chance(config.skip):
                return config
        return None

    def shape(self, bucket: Bucket) -> tuple[int, int, int]:
        """(frames, height, width) of the clips of a bucket."""
        return bucket.frames, *self.tables[bucket.size][1][bucket.ratio]

    def batch_size(self, bucket: Bucket) -> int:
        """How many clips of a bucket make a batch."""
        return next(config.batch for config in self.lengths[bucket.size] if config.frames == bucket.frames)


def check_buckets(configs: Sequence[BucketConfig]) -> None:
    """Raise UserError for values that cannot work."""
    if not configs:
        raise UserError("no buckets; expected at least one, such as {size: 32px, frames: 9, batch: 16}")
    seen = set()
    for config in configs:
        where = f"bucket {{size: {config.size}, frames: {config.frames}}}"
        for name in ("frames", "batch"):
            if getattr(config, name) < 1:
                raise UserError(f"{where} has {name} {getattr(config, name)}; expected a number from 1 on")
        for name in ("keep", "skip"):
            if not 0 <= getattr(config, name) <= 1:
                raise UserError(f"{where} has {name} {getattr(config, name)}; expected a share from 0 to 1")
        if (config.size, config.frames) in seen:
            raise UserError(f"{where} is there twice; expected one line for each length of each size")
        seen.add((config.size, config.frames))


def open_sora_buckets(config: Mapping[str, Mapping[int, Sequence]], version: str) -> Buckets:
    """Buckets from a `bucket_config` of Open-Sora, version "1.2" or "2": {size: {frames: (probability, batch)}}.

    The probability is that of staying; or a pair, of which the second is, in version 2, that of skipping the length,
    and in 1.2 that of not skipping it.
    """
    configs = []
    for size, lengths in config.items():
        for frames, (probability, batch) in lengths.items():
            keep, second = probability if isinstance(probability, list | tuple) else (probability, None)
            skip = 0.0 if second is None else second if version == "2" else 1.0 - second
            configs.append(BucketConfig(size, int(frames), batch, keep, skip))
    if version == "2":
        return Buckets(configs, {name: resolution(name) for name in config})
    return Buckets(configs, OPEN_SORA_12, longer=True)


def closest_smaller(value: int, steps: Sequence[int]) -> int:
    """The largest of rising `steps` that is not above `value`, or the first: Open-Sora 1.2's choice of a length."""
    return max([step for step in steps if step <= value], default=steps[0])


class Chance:
    """Yes or no, with a probability. Certain answers draw nothing, and need no generator."""

    def __init__(self, luck: Callable[[], torch.Generator] | None):
        self._luck, self._generator = luck, None

    def __call__(self, share: float) -> bool:
        if share in (0, 1):
            return share == 1
        if self._generator is None:
            if self._luck is None:
                raise UserError(f"a share of {share} leaves a bucket to chance; expected a generator in `luck`")
            self._generator = self._luck()
        return bool(torch.rand((), generator=self._generator) < share)
