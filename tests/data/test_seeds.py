"""The shuffled sequence is what one would get by writing all epochs one after another."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.seeds import batch_indices, derive_seed


def naive_sequence(num_items: int, seed: int, length: int) -> list[int]:
    sequence: list[int] = []
    for epoch in itertools.count():
        if len(sequence) >= length:
            return sequence[:length]
        sequence += np.random.default_rng([seed, epoch]).permutation(num_items).tolist()
    raise AssertionError


@given(st.integers(1, 9), st.integers(0, 5), st.integers(0, 40), st.integers(0, 30))
def test_a_batch_is_a_slice_of_all_epochs_in_a_row(num_items: int, seed: int, start: int, count: int) -> None:
    batch = batch_indices(num_items, seed, start, count)
    assert batch.dtype == np.int64
    assert batch.tolist() == naive_sequence(num_items, seed, start + count)[start:]


def test_every_epoch_shows_each_item_once_and_epochs_differ() -> None:
    epochs = [batch_indices(50, 3, epoch * 50, 50) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_derived_seeds_of_a_grid_are_distinct_and_fit_63_bits() -> None:
    seeds = [derive_seed(*position) for position in itertools.product(range(12), repeat=3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive_seed(7, 1) == derive_seed(7, 1)
