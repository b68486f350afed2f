"""Order and noise are functions of the clip's number in the run."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.training.randomness import CountedBatches, clip_order, stream_seed


@settings(deadline=None, max_examples=30)
@given(num_clips=st.integers(1, 23), batch=st.integers(1, 7), skip=st.integers(0, 9))
def test_starting_late_continues_the_same_order(num_clips, batch, skip):
    whole = [pair for share in CountedBatches(num_clips, 5, batch, 0, 12, 0, 1) for pair in share]
    late = [pair for share in CountedBatches(num_clips, 5, batch, skip, 12, 0, 1) for pair in share]
    assert whole[skip * batch :] == late


@settings(deadline=None, max_examples=30)
@given(num_clips=st.integers(1, 23), share=st.integers(1, 4), world=st.integers(1, 3))
def test_processes_share_one_order(num_clips, share, world):
    batch = share * world
    whole = list(CountedBatches(num_clips, 5, batch, 2, 6, 0, 1))
    parts = [list(CountedBatches(num_clips, 5, batch, 2, 6, rank, world)) for rank in range(world)]
    assert whole == [[pair for part in step for pair in part] for step in zip(*parts, strict=True)]
    counters = [CountedBatches(num_clips, 5, batch, 2, 6, rank, world).counters(3) for rank in range(world)]
    assert [c for part in counters for c in part] == list(range(3 * batch, 4 * batch))


def test_an_epoch_shows_every_clip_once_and_the_next_in_another_order():
    order = clip_order(11, seed=2, first=0, count=22)
    assert Counter(order) == Counter({(index, epoch): 1 for index in range(11) for epoch in (0, 1)})
    assert [index for index, _ in order[:11]] != [index for index, _ in order[11:]]


def test_seeds_differ_between_runs_streams_and_counters():
    seeds = {
        stream_seed(seed, stream, counter)
        for seed in range(5)
        for stream in ("noise", "order", "sample")
        for counter in range(50)
    }
    assert len(seeds) == 5 * 3 * 50
