"""Metrics are formulas on the features of two sets of images, each (n, dim), one row an image; and their intervals.

All are deterministic functions of the sets. They agree with clean-fid and prdc where those are well posed (tests). They
are written out because clean-fid's Frechet distance takes the square root of a product of covariances, which is
singular where there are fewer images than features and then off or negative; because its kernel distance draws from the
global random state; and because prdc holds all n^2 distances in memory.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.seeds import INCEPTION_SPLITS, INTERVAL_HALVES

type Rows = NDArray[np.floating]
type Exact = NDArray[np.float64]
type Indices = NDArray[np.int64]
type Interval = tuple[float, float]

_ROWS = 1024  # of a block of a matrix of all pairs
_NORMAL_95 = 1.96


def frechet_distance(a: Rows, b: Rows) -> float:
    """|mean difference|^2 + Tr(Sa + Sb - 2 (Sa Sb)^(1/2)) (Heusel et al. 2017, eq. 6); FID on Inception features.

    With centred rows A, Sa = A'A, the last trace is the sum of the singular values of A B', so no square root of a
    matrix is taken. Biased upward by about dim/n: compare only values of equal n. Needs two rows of each.
    """
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * overlap
    return max(0.0, float(distance))  # equal sets come out at rounding error, of either sign


def _moments(features: Rows) -> tuple[Exact, Exact]:
    """Mean (dim,) and R (min(n, dim), dim) with R'R the unbiased covariance."""
    mean = features.mean(axis=0, dtype=np.float64)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    return mean, np.linalg.qr(centred, mode="r")


def kernel_distance(a: Rows, b: Rows) -> float:
    """Unbiased squared MMD with the kernel (x'y/dim + 1)^3 (Binkowski et al. 2018); KID on Inception features.

    This is the mean over all pairs, which the usual average over random subsets of 1,000 estimates. It is not biased by
    n, so it can be slightly negative for equal distributions. Takes n^2 kernel values. Needs two rows of each.
    """
    return float(kernel_distances(a, b, np.ones((1, len(a))), np.ones((1, len(b))))[0])


def kernel_distances(a: Rows, b: Rows, in_a: Exact, in_b: Exact) -> Exact:
    """`kernel_distance` of several subsets, (s,), that share the kernel values; in_a (s, na) is 1 for a member."""
    na, nb = in_a.sum(axis=1), in_b.sum(axis=1)
    within_a = _kernel_sums(a, a, in_a, in_a) - in_a @ _kernel_of_itself(a)
    within_b = _kernel_sums(b, b, in_b, in_b) - in_b @ _kernel_of_itself(b)
    return within_a / (na * (na - 1)) + within_b / (nb * (nb - 1)) - 2 * _kernel_sums(a, b, in_a, in_b) / (na * nb)


def _kernel(products: Exact, dim: int) -> Exact:
    base = products / dim + 1
    return base * base * base  # a power by pow() takes many times longer


def _kernel_of_itself(a: Rows) -> Exact:
    return _kernel(np.einsum("nd,nd->n", a, a, dtype=np.float64), a.shape[1])


def _kernel_sums(a: Rows, b: Rows, in_a: Exact, in_b: Exact) -> Exact:
    """Sum of the kernel over all pairs of members, (s,), in blocks, so that memory does not grow with n^2."""
    columns = b.astype(np.float64).T
    sums = np.zeros(len(in_a))
    for rows in _blocks(len(a)):
        kernel = _kernel(a[rows].astype(np.float64) @ columns, a.shape[1])
        sums += np.einsum("sn,sn->s", in_a[:, rows] @ kernel, in_b)
    return sums


def inception_score(probabilities: Rows, splits: int = 10) -> tuple[float, float]:
    """Mean and deviation over `splits` of exp(mean KL(p(y|x) || p(y))) (Salimans et al. 2016, section 4).

    `probabilities` (n, classes) are of the generated images alone. The score is biased: it grows with the images in a
    split. The splits are random, and the same every time: images sorted by class would have one class in each.
    """
    shuffled = np.random.default_rng(INCEPTION_SPLITS).permutation(probabilities)
    splits = min(splits, len(shuffled))
    bounds = [len(shuffled) * split // splits for split in range(splits + 1)]
    scores = [np.exp(_information(shuffled[start:stop])) for start, stop in pairwise(bounds)]
    return float(np.mean(scores)), float(np.std(scores))


def _information(probabilities: Rows) -> float:
    """Mutual information of image and class in nats: the entropy of the mean minus the mean entropy."""
    rows = probabilities.astype(np.float64)
    return float(_negentropy(rows).mean() - _negentropy(rows.mean(axis=0)))


def _negentropy(probabilities: Exact) -> Exact:
    terms = probabilities * np.log(np.where(probabilities > 0, probabilities, 1))
    return np.asarray(terms.sum(axis=-1))


def ball_counts(points: Rows, centres: Rows, k: int) -> tuple[Indices, NDArray[np.bool_]]:
    """In how many balls each point lies, (n,), and which balls hold a point, (m,).

    A ball reaches from its centre to the k-th nearest of the other centres; all balls together estimate a manifold.
    With generated points and real centres, precision is the share of points in any ball (Kynkaanniemi et al. 2019, eq.
    2), density the mean count over k and coverage the share of balls that hold a point (Naeem et al. 2020, eqs. 3 and
    4); recall is precision with the roles exchanged. Needs k + 1 centres.
    """
    radii = nearest(centres, centres, k, itself=np.arange(len(centres)))[0][:, -1]
    counts, holds = np.zeros(len(points), np.int64), np.zeros(len(centres), bool)
    for rows, distances in _distances(points, centres):
        inside = distances <= radii
        counts[rows] = inside.sum(axis=1)
        holds |= inside.any(axis=0)
    return counts, holds


def nearest(points: Rows, others: Rows, k: int, itself: Indices | None = None) -> tuple[Exact, Indices]:
    """Distances to the k nearest of `others`, (n, k) in ascending order, and which they are.

    With `itself` (n,), point i is others[itself[i]] and no neighbour of itself.
    """
    k = min(k, len(others) - (itself is not None))
    found, which = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
    for rows, distances in _distances(points, others):
        if itself is not None:
            np.put_along_axis(distances, itself[rows, None], np.inf, axis=1)
        candidates = np.argpartition(distances, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(distances, candidates, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        found[rows] = np.take_along_axis(values, order, axis=1)
        which[rows] = np.take_along_axis(candidates, order, axis=1)
    return found, which


def _distances(points: Rows, others: Rows) -> Iterator[tuple[slice, Exact]]:
    """Rows of the matrix of Euclidean distances, a block at a time."""
    columns = others.astype(np.float64).T
    norms = np.square(columns).sum(axis=0)
    for rows in _blocks(len(points)):
        block = points[rows].astype(np.float64)
        squares = np.square(block).sum(axis=1)[:, None] + norms - 2 * block @ columns
        yield rows, np.sqrt(np.maximum(squares, 0))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))


def interval(
    statistic: Callable[..., float], sizes: tuple[int, ...], value: float, draws: int, seed: int | None
) -> Interval | None:
    """The 95 % interval of `value`: how much it would vary with other images of the same kind.

    `statistic` takes the chosen rows of each set. None without a seed, or where a set has fewer than four rows.

    A bootstrap draws with replacement, and its duplicates shift distances of distributions: a Frechet distance of
    resampled images is higher than its own, a kernel distance counts an image as its own neighbour, and a nearest
    neighbour is at distance zero. So random halves are taken without replacement, on both sides: the delete-d jackknife
    (Shao and Wu 1989, "A general theory for jackknife variance estimation") with d = n/2, where a half varies about the
    mean of the halves as much as the whole does about its expectation. A bias that depends on n does not enter, since
    only the spread is used. Where the sets are alike a kernel distance is of second order in the images, and the
    interval is then too wide, never too narrow.
    """
    if seed is None or min(sizes) < 4:
        return None
    return normal_interval(value, np.array([statistic(*chosen) for chosen in halves(sizes, draws, seed)]))


def halves(sizes: tuple[int, ...], draws: int, seed: int) -> Iterator[tuple[Indices, ...]]:
    """`draws` random halves of sets with these sizes, at least two rows of each, sorted."""
    rng = np.random.default_rng([seed, INTERVAL_HALVES])
    for _ in range(draws):
        yield tuple(np.sort(rng.permutation(size)[: max(2, size // 2)]) for size in sizes)


def normal_interval(value: float, of_halves: Exact) -> Interval:
    """The 95 % interval of a value from the values of random halves, which are taken to be normal."""
    reach = _NORMAL_95 * float(of_halves.std(ddof=1))
    return value - reach, value + reach
