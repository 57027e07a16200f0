"""Intervals of random halves are as wide as the spread of fresh samples, also for distances that duplicates distort."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.scoring.intervals import halves, interval
from pipelines.scoring.measures import Seen, Sets, entries
from pipelines.scoring.metrics import frechet_distance, kernel_distance


def test_halves_are_sorted_distinct_and_a_function_of_the_seed() -> None:
    drawn = list(halves((9, 20), 5, seed=3))
    assert [(len(a), len(b)) for a, b in drawn] == [(4, 10)] * 5
    assert all((np.diff(chosen) > 0).all() for pair in drawn for chosen in pair)
    again = list(halves((9, 20), 5, seed=3))
    assert all((a == b).all() for x, y in zip(drawn, again, strict=True) for a, b in zip(x, y, strict=True))


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(lambda i: float(values[i].mean()), (400,), float(values.mean()), 400, 0) or (0, 0)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 20, rel=0.12)
    assert (low + high) / 2 == pytest.approx(values.mean())


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_the_interval_of_a_distance_is_as_wide_as_the_spread_of_fresh_samples(
    distance: Callable[..., float],
) -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(80, 6)), rng.normal(0.8, 1.3, size=(80, 6))

    fresh = [distance(*draw(seed)) for seed in range(200)]
    reaches = []
    for seed in range(20):
        a, b = draw(1000 + seed)
        low, high = interval(lambda i, j, a=a, b=b: distance(a[i], b[j]), (80, 80), 0.0, 60, seed) or (0, 0)
        reaches.append((high - low) / 2)
    assert np.mean(reaches) == pytest.approx(1.96 * np.std(fresh), rel=0.2)


def test_a_resampled_frechet_distance_is_above_its_own_and_a_half_s_spread_is_not_shifted() -> None:
    """Why there is no bootstrap here: duplicates alone move the distance out of a plain bootstrap's interval."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 20)), rng.normal(size=(60, 20))
    value = frechet_distance(a, b)
    resampled = [frechet_distance(a[rng.integers(60, size=60)], b[rng.integers(60, size=60)]) for _ in range(60)]
    assert np.quantile(resampled, 0.025) > value
    low, high = interval(lambda i, j: frechet_distance(a[i], b[j]), (60, 60), value, 60, 0) or (0, 0)
    assert low < value < high


def test_the_interval_of_the_kernel_distance_equals_that_of_its_halves_one_by_one() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(30, 5)).astype(np.float32)
    b = rng.normal(0.5, 1, size=(41, 5)).astype(np.float32)
    sets = Sets(Seen(a, a[:, :0], a[:, :0]), Seen(b, b[:, :0], b[:, :0]), None)
    entry = entries("kid", sets, 7)["kid"]
    value = kernel_distance(a, b)
    expected = interval(lambda i, j: kernel_distance(a[i], b[j]), (30, 41), value, 200, 7)
    assert entry["interval"] == pytest.approx(expected, rel=1e-9)


def test_sets_of_three_have_no_interval() -> None:
    assert interval(lambda i: 0.0, (3,), 0.0, 10, 0) is None
