"""Derived seeds are distinct, and the same whenever they are asked for."""

import itertools

from data.seeds import derive_seed


def test_derived_seeds_of_a_grid_are_distinct_and_fit_63_bits() -> None:
    seeds = [derive_seed(*position) for position in itertools.product(range(12), repeat=3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive_seed(7, 1) == derive_seed(7, 1)
