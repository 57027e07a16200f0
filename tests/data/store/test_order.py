"""The order of the samples: every epoch shows each once, a few shards at a time, whoever asks for whatever part."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.store.order import SampleOrder

sizes = {"num_items": st.integers(1, 60), "seed": st.integers(0, 5), "shard_rows": st.integers(1, 7)}
orders = st.builds(SampleOrder, **sizes, window_shards=st.integers(1, 5))


@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 20), st.integers(0, 40), st.integers(0, 30))
def test_few_shards_are_shuffled_as_one(num_items: int, seed: int, shard_rows: int, start: int, count: int) -> None:
    """What it was before there were windows: a permutation an epoch, one after another."""
    epochs = (np.random.default_rng([seed, epoch]).permutation(num_items) for epoch in itertools.count())
    expected = np.concatenate(list(itertools.islice(epochs, (start + count) // num_items + 1)))[start : start + count]
    rows = SampleOrder(num_items, seed, shard_rows).rows(start, count)
    assert rows.dtype == np.int64
    assert rows.tolist() == expected.tolist()


@given(orders, st.integers(0, 3))
def test_every_epoch_shows_each_row_once(order: SampleOrder, epoch: int) -> None:
    rows = order.rows(epoch * order.num_items, order.num_items)
    assert sorted(rows.tolist()) == list(range(order.num_items))


@given(orders, st.integers(0, 150), st.integers(0, 150))
def test_any_part_is_a_slice_of_the_whole_sequence(order: SampleOrder, start: int, count: int) -> None:
    assert order.rows(start, count).tolist() == order.rows(0, 300)[start : start + count].tolist()


@given(orders, st.sampled_from([1, 2, 4]), st.integers(1, 5), st.integers(0, 20))
def test_ranks_share_a_global_batch_without_gap_or_overlap(
    order: SampleOrder, ranks: int, rows: int, step: int
) -> None:
    start = step * ranks * rows
    parts = [order.rows(start + rank * rows, rows) for rank in range(ranks)]
    assert np.concatenate(parts).tolist() == order.rows(start, ranks * rows).tolist()


@given(orders, st.integers(0, 2))
def test_a_window_needs_few_shards_and_each_shard_is_in_one_window(order: SampleOrder, epoch: int) -> None:
    position, shards = epoch * order.num_items, []
    while position < (epoch + 1) * order.num_items:
        window = order.window(position)
        assert window.start == position
        assert order.window(window.stop - 1) == window
        assert len(window.shards) <= order.window_shards
        assert order.rows(position, len(window.rows)).tolist() == window.rows.tolist()
        assert set((window.rows // order.shard_rows).tolist()) == set(window.shards.tolist())
        shards += window.shards.tolist()
        position = window.stop
    assert position == (epoch + 1) * order.num_items
    assert sorted(shards) == list(range(-(-order.num_items // order.shard_rows)))


@pytest.mark.parametrize("window_shards", [32, 3])
def test_epochs_and_seeds_differ_and_windows_are_mixed(window_shards: int) -> None:
    epochs = [SampleOrder(60, seed, 5, window_shards).rows(epoch * 60, 60) for seed in (0, 1) for epoch in range(4)]
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 8
    firsts = [len(set((epoch[:10] // 5).tolist())) for epoch in epochs]
    assert min(firsts) > 1  # not one shard after another


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**12))
def test_a_huge_store_costs_no_more_than_its_shards(position: int) -> None:
    order = SampleOrder(10**8, 0, 1 << 10)
    rows = order.rows(position, 64)
    assert len(set((rows // order.shard_rows).tolist())) <= 64
    assert (rows >= 0).all()
    assert (rows < 10**8).all()
