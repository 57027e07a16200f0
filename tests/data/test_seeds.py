"""Derived seeds are distinct, and the same whenever they are asked for; so are coins, which are fair."""

import itertools

import numpy as np
from numpy.random import SeedSequence

from data.seeds import coins, derive_seed


def test_derived_seeds_of_a_grid_are_distinct_and_fit_63_bits() -> None:
    seeds = [derive_seed(*position) for position in itertools.product(range(12), repeat=3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive_seed(7, 1) == derive_seed(7, 1)


def test_coins_are_the_lowest_bits_of_philox() -> None:
    """Against the ten rounds of Philox4x64 as the paper writes them (section 3.3), in whole numbers."""
    for seed in (0, 5, 1 << 40):
        key = int(SeedSequence([seed, 0xC014]).generate_state(1, np.uint64)[0]) >> 1
        words = [word for block in range(8) for word in _philox(1 + block, key)]  # numpy counts before it draws
        assert coins(seed, 0, 32).tolist() == [word % 2 == 1 for word in words]


def _philox(counter: int, key: int) -> tuple[int, int, int, int]:
    mask, keys, words = (1 << 64) - 1, (key, 0), (counter, 0, 0, 0)
    for _ in range(10):
        products = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        high, low = [product >> 64 for product in products], [product & mask for product in products]
        words = high[1] ^ words[1] ^ keys[0], low[1], high[0] ^ words[3] ^ keys[1], low[0]
        keys = (keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask
    return words


def test_a_coin_is_the_same_from_wherever_it_is_tossed() -> None:
    whole = coins(3, 0, 1000)
    for start, count in ((0, 0), (1, 1), (2, 7), (4, 4), (5, 300), (997, 3)):
        assert np.array_equal(coins(3, start, count), whole[start : start + count])
    far = 3 << 61
    assert np.array_equal(coins(3, far, 8)[5:], coins(3, far + 5, 3))


def test_coins_are_fair_and_know_nothing_of_each_other() -> None:
    """Means of 40,000 signs are within five deviations of zero: of the coins, and of products of two."""
    signs = {seed: 1.0 - 2.0 * coins(seed, 0, 40_100) for seed in (0, 1, 2)}
    first, others = signs[0][:40_000], (signs[1][:40_000], signs[2][:40_000])
    shifted = [signs[0][shift:][:40_000] for shift in (1, 2, 3, 4, 8, 100)]
    for product in (first, *(first * other for other in (*others, *shifted))):
        assert abs(product.mean()) < 5 / np.sqrt(40_000)
