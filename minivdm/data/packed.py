"""Sequences for very many small things: what they hold lies in one block of bytes, and is unpacked when asked for.

A million Paths take 400 MB and a million lists of strings as much again, for names and captions that fill a tenth of
it. Here a million entries cost their bytes and eight more each, and are as quick to find.
"""

import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Packed(Sequence[T]):
    """A sequence that cannot be changed; equal to a list of the same things.

    items: the bytes of each entry. unpack: bytes -> what the entry is; a function of a module, so that worker
    processes can be given it.
    """

    def __init__(self, items: Iterable[bytes], unpack: Callable[[bytes], T]):
        self._unpack, self._ends, block = unpack, array("q"), bytearray()
        for item in items:
            block += item
            self._ends.append(len(block))
        self._block = bytes(block)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, which: int | slice) -> T | list[T]:
        if isinstance(which, slice):
            return [self[index] for index in range(*which.indices(len(self)))]
        index = range(len(self))[which]  # counts from the end as well, and raises IndexError
        return self._unpack(self._block[self._ends[index - 1] if index else 0 : self._ends[index]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None

    def unpacked_by(self, unpack: Callable[[bytes], T]) -> "Packed[T]":
        """The same bytes, not copied, as something else."""
        other = Packed((), unpack)
        other._ends, other._block = self._ends, self._block
        return other

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return len(self._block) + self._ends.itemsize * len(self._ends)


class Chosen(Sequence[T]):
    """Those entries of a sequence that an array of numbers names, in its order."""

    def __init__(self, items: Sequence[T], numbers: Sequence[int]):
        self.items, self.numbers = items, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, which: int | slice) -> T | list[T]:
        if isinstance(which, slice):
            return [self[index] for index in range(*which.indices(len(self)))]
        return self.items[int(self.numbers[which])]

    def __iter__(self) -> Iterator[T]:
        return (self.items[int(number)] for number in self.numbers)
