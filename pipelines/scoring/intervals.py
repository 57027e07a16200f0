"""How much a score would vary with other images of the same kind.

A bootstrap draws with replacement, and its duplicates shift distances of distributions: a Frechet distance of
resampled images is higher than its own, a kernel distance counts an image as its own neighbour, and a nearest
neighbour is at distance zero. So random halves are taken without replacement, on both sides: the delete-d jackknife
(Shao and Wu 1989, "A general theory for jackknife variance estimation") with d = n/2, where a half varies about the
mean of the halves as much as the whole does about its expectation. What a score's bias depends on n for does not
enter, since only the spread is used. Where the sets are alike a kernel distance is of second order in the images, and
the interval is then too wide, never too narrow.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from data.seeds import INTERVAL_HALVES

type Indices = NDArray[np.int64]
type Interval = tuple[float, float]

_NORMAL_95 = 1.96


def halves(sizes: tuple[int, ...], draws: int, seed: int) -> Iterator[tuple[Indices, ...]]:
    """`draws` random halves of sets with these sizes, at least two of each, sorted."""
    rng = np.random.default_rng([seed, INTERVAL_HALVES])
    for _ in range(draws):
        yield tuple(np.sort(rng.permutation(size)[: max(2, size // 2)]) for size in sizes)


def interval(
    statistic: Callable[..., float], sizes: tuple[int, ...], value: float, draws: int, seed: int
) -> Interval | None:
    """95 % of `value`; `statistic` takes the chosen images of each set. None where a set has fewer than four."""
    if min(sizes) < 4:
        return None
    return around(value, np.array([statistic(*chosen) for chosen in halves(sizes, draws, seed)]))


def around(value: float, of_halves: NDArray[np.float64]) -> Interval:
    """The 95 % interval of a value from the values of random halves, which are taken to be normal."""
    reach = _NORMAL_95 * float(of_halves.std(ddof=1))
    return value - reach, value + reach
