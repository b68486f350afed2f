"""A random order of any number of things that is computed place by place, and never held in memory.

A Feistel network turns a number of 2k bits into another and can be undone, whatever the function inside: halves (a, b)
become (b, a XOR f(b)), again and again. So it is a permutation of all numbers of 2k bits. To permute fewer, walk on
from a number that is too large until one is not: the cycle it lies on comes back below the bound. (Black and Rogaway
2002, "Ciphers with Arbitrary Finite Domains".)
"""

import functools

from minivdm.seeds import derive_seed

ROUNDS = 6
_MASK = 2**64 - 1


def shuffled(place: int, count: int, *key: int) -> int:
    """Which of `count` things stands at `place` in the order that `key`, whole numbers ≥ 0, decides.

    For each key all `place`s from 0 to count - 1 give different things.
    """
    if not 0 <= place < count:
        raise IndexError(f"place {place} of {count}")
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    while True:
        place = _feistel(place, half, _round_keys(key))
        if place < count:  # less than 4 steps on average, for at least a quarter of the numbers are small enough
            return place


def _feistel(number: int, half: int, keys: tuple[int, ...]) -> int:
    a, b = number >> half, number & (1 << half) - 1
    for key in keys:
        a, b = b, a ^ _mixed(b ^ key) & (1 << half) - 1
    return a << half | b


def _mixed(number: int) -> int:
    """64 bits of which each depends on all bits of the number (the finaliser of SplitMix64)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


@functools.lru_cache(maxsize=1024)
def _round_keys(key: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(derive_seed(*key, number) for number in range(ROUNDS))
