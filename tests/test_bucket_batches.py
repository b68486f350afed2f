"""Batches from buckets: pure, complete, and the same whoever asks, from where and with how many."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.data.bucket_batches import BucketBatches
from minivdm.errors import UserError

BUCKETS = st.lists(st.tuples(st.integers(1, 12), st.sampled_from([2, 4, 6])), min_size=1, max_size=4)


def batches(buckets, first=0, stop=24, rank=0, world=1, seed=5):
    sizes, batch_sizes = zip(*buckets, strict=True)
    return BucketBatches(sizes, batch_sizes, seed, first, stop, rank, world)


def bucket_of(buckets, index):
    starts = [sum(size for size, _ in buckets[:k]) for k in range(len(buckets))]
    return max(k for k, start in enumerate(starts) if index >= start)


@settings(deadline=None, max_examples=50)
@given(buckets=BUCKETS)
def test_a_batch_is_of_one_bucket_and_as_large_as_this_says(buckets):
    for batch in batches(buckets):
        (bucket,) = {bucket_of(buckets, index) for index, _ in batch}
        assert len(batch) == buckets[bucket][1]


@settings(deadline=None, max_examples=50)
@given(buckets=BUCKETS, first=st.integers(0, 20))
def test_whoever_resumes_goes_on_with_the_same_batches(buckets, first):
    assert list(batches(buckets, first=first)) == list(batches(buckets))[first:]
    assert len(batches(buckets, first=first)) == 24 - first


@settings(deadline=None, max_examples=50)
@given(buckets=BUCKETS)
def test_two_processes_see_together_what_one_sees(buckets):
    parts = [batches(buckets, rank=rank, world=2) for rank in range(2)]
    assert list(batches(buckets)) == [one + other for one, other in zip(*parts, strict=True)]
    for number in range(24):
        assert [k for part in parts for k in part.counters(number)] == list(batches(buckets).counters(number))


@settings(deadline=None, max_examples=50)
@given(buckets=BUCKETS)
def test_no_two_clips_of_a_run_have_the_same_number(buckets):
    sampler = batches(buckets)
    counters = [k for number in range(24) for k in sampler.counters(number)]
    assert len(counters) == len(set(counters)) == sum(map(len, sampler))


@settings(deadline=None, max_examples=50)
@given(buckets=BUCKETS)
def test_in_every_epoch_every_clip_is_seen_once(buckets):
    """After 12 epochs every stream ends with a whole batch, for 12 is a multiple of 2, 4 and 6."""
    total = sum(12 * size // batch for size, batch in buckets)
    seen = Counter(which for batch in batches(buckets, stop=total) for which in batch)
    clips = sum(size for size, _ in buckets)
    assert seen == Counter({(index, epoch): 1 for index in range(clips) for epoch in range(12)})


def test_buckets_take_turns_in_every_epoch_and_orders_differ():
    buckets = [(40, 4), (20, 4)]
    order = [bucket_of(buckets, batch[0][0]) for batch in batches(buckets, stop=150)]
    epochs = [tuple(order[start : start + 15]) for start in range(0, 150, 15)]
    assert all(epoch.count(0) == 10 and epoch.count(1) == 5 for epoch in epochs)
    assert len(set(epochs)) == 10
    first, second = ([which[0] for batch in batches(buckets, k, k + 15) for which in batch] for k in (0, 15))
    assert sorted(first) == sorted(second) == list(range(60)) and first != second
    assert list(batches(buckets, seed=6)) != list(batches(buckets))


def test_far_into_a_run_is_as_near_as_its_beginning():
    buckets = [(1_000_003, 8), (17, 4), (5, 16)]
    far = 10**12
    (batch,) = batches(buckets, first=far, stop=far + 1)
    assert len({index for index, _ in batch}) == len(batch) and batch[0][1] > 10**6


def test_a_batch_that_cannot_be_shared_is_one_line():
    with pytest.raises(UserError, match="batches of 3 clips cannot be shared by 2 processes.*multiple of 2"):
        batches([(5, 2), (5, 3)], world=2)
