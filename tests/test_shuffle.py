"""Orders that are computed and not stored."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.data.shuffle import shuffled


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 300), key=st.lists(st.integers(0, 2**40), max_size=3))
def test_every_thing_stands_somewhere_once(count, key):
    assert sorted(shuffled(place, count, *key) for place in range(count)) == list(range(count))


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 10**15), seed=st.integers(0, 99), data=st.data())
def test_of_very_many_things_places_are_found_one_by_one(count, seed, data):
    places = data.draw(st.sets(st.integers(0, count - 1), max_size=5))
    found = [shuffled(place, count, seed) for place in places]
    assert len(set(found)) == len(places) and all(0 <= thing < count for thing in found)
    assert found == [shuffled(place, count, seed) for place in places]


def test_all_orders_are_about_as_frequent():
    """χ² with 23 degrees of freedom is above 49.7 once in a thousand."""
    orders = Counter(tuple(shuffled(place, 4, key) for place in range(4)) for key in range(2400))
    assert set(orders) == set(permutations(range(4)))
    assert sum((count - 100) ** 2 / 100 for count in orders.values()) < 49.7


def test_neighbours_do_not_stay_together():
    """In a random order of n things about two pairs of neighbours, in either direction, were neighbours before."""
    order = [shuffled(place, 5000, 3) for place in range(5000)]
    assert sum(abs(one - other) == 1 for one, other in zip(order, order[1:], strict=False)) < 10


def test_a_place_that_there_is_not():
    for place in (-1, 3):
        with pytest.raises(IndexError, match="of 3"):
            shuffled(place, 3, 0)
