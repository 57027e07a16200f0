"""Metrics agree with closed forms, loops, clean-fid and prdc; intervals are as wide as the spread of fresh samples."""

from collections.abc import Callable

import numpy as np
import pytest
from cleanfid import fid as cleanfid
from numpy.typing import NDArray
from scipy.linalg import hadamard

from pipelines.scoring.entries import make_entries
from pipelines.scoring.extraction import Extracted
from pipelines.scoring.metrics import (
    ball_counts,
    frechet_distance,
    halves,
    inception_score,
    interval,
    kernel_distance,
    kernel_distances,
    nearest,
)
from pipelines.scoring.sets import Sets

type Rows = NDArray[np.float64]


def exact_gaussian(mean: Rows, deviation: Rows, n: int) -> Rows:
    """Rows whose mean and unbiased diagonal covariance are exactly the ones asked for."""
    columns = hadamard(n)[:, 1 : 1 + len(mean)]
    return columns * deviation * np.sqrt((n - 1) / n) + mean


def correlated(rng: np.random.Generator, n: int, dim: int, scale: float = 1.0, shift: float = 0.0) -> Rows:
    mixing = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return scale * rng.normal(size=(n, dim)) @ mixing + shift


def test_frechet_distance_has_its_closed_form_for_diagonal_covariances() -> None:
    mean_a, mean_b = np.array([0.0, 1.0, -2.0]), np.array([0.5, 1.0, 3.0])
    dev_a, dev_b = np.array([1.0, 2.0, 0.1]), np.array([3.0, 2.0, 0.4])
    expected = np.square(mean_a - mean_b).sum() + np.square(dev_a - dev_b).sum()
    # Unequal counts: the covariances are unbiased, so the counts must not enter.
    a, b = exact_gaussian(mean_a, dev_a, 64), exact_gaussian(mean_b, dev_b, 32)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:The .disp. argument:DeprecationWarning")  # clean-fid's own call of SciPy
@pytest.mark.parametrize(("n", "dim"), [(400, 32), (33, 32), (20, 64)])
def test_frechet_distance_equals_clean_fids(n: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    a, b = correlated(rng, n, dim), correlated(rng, n + 7, dim, scale=1.2, shift=0.1)
    # clean-fid adds 1e-6 or loses digits where there are fewer rows than features
    tolerance = 1e-9 if n > dim else 1e-5
    assert frechet_distance(a, b) == pytest.approx(cleanfid.fid_from_feats(a, b), rel=tolerance)


@pytest.mark.parametrize(("n", "dim"), [(5, 24), (20, 64), (64, 64)])
def test_frechet_distance_of_singular_covariances_is_that_of_their_eigenvalues(n: int, dim: int) -> None:
    rng = np.random.default_rng(10)
    a, b = correlated(rng, n, dim), correlated(rng, n + 3, dim, scale=1.2, shift=0.1)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [5, 300])
def test_frechet_distance_is_symmetric_and_zero_only_for_equal_moments(n: int) -> None:
    rng = np.random.default_rng(1)
    a, b = correlated(rng, n, 24).astype(np.float32), correlated(rng, n, 24, scale=1.1).astype(np.float32)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-10 < frechet_distance(a, b)


def naive_mmd(a: Rows, b: Rows) -> float:
    def k(x: Rows, y: Rows) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows: Rows) -> float:
        return float(np.mean([k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]))

    return within(a) + within(b) - 2 * float(np.mean([k(x, y) for x in a for y in b]))


@pytest.mark.parametrize("rows", [7, 1024])
def test_kernel_distance_equals_a_double_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.scoring.metrics._ROWS", rows)  # several blocks with a remainder, and one block
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(24, 6)), rng.normal(0.3, 1.1, size=(17, 6))
    assert kernel_distance(a, b) == pytest.approx(naive_mmd(a, b), rel=1e-11)


def test_kernel_distance_is_what_clean_fids_random_subsets_estimate() -> None:
    rng = np.random.default_rng(3)
    a, b = correlated(rng, 300, 16), correlated(rng, 300, 16, scale=1.3, shift=0.2)
    state = np.random.get_state()
    np.random.seed(0)
    estimate = cleanfid.kernel_distance(a, b, num_subsets=400, max_subset_size=100)
    np.random.set_state(state)
    assert kernel_distance(a, b) == pytest.approx(estimate, rel=0.02)
    # one subset of everything is no longer random
    assert kernel_distance(a, b) == pytest.approx(cleanfid.kernel_distance(a, b, num_subsets=1), rel=1e-9)


def test_kernel_distance_is_unbiased_at_small_counts_and_frechet_distance_is_not() -> None:
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=(20, 8)), rng.normal(size=(20, 8))) for _ in range(200)]
    kernel = np.array([kernel_distance(a, b) for a, b in pairs])
    frechet = np.array([frechet_distance(a, b) for a, b in pairs])
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(len(kernel))
    assert frechet.min() > 0.3


def test_distances_do_not_touch_the_global_random_state() -> None:
    before = np.random.get_state()[1].copy()
    a = np.random.default_rng(5).normal(size=(50, 4))
    assert kernel_distance(a, a[:30]) == kernel_distance(a, a[:30])
    frechet_distance(a, a[:30])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_kernel_distances_of_subsets_are_those_of_their_rows() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(19, 4)), rng.normal(size=(23, 4))
    in_a, in_b = rng.integers(0, 2, (5, 19)), rng.integers(0, 2, (5, 23))
    in_a[:, :2] = in_b[:, :2] = 1
    found = kernel_distances(a, b, in_a.astype(float), in_b.astype(float))
    expected = [naive_mmd(a[i == 1], b[j == 1]) for i, j in zip(in_a, in_b, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def balls_by_loops(points: Rows, centres: Rows, k: int) -> tuple[list[int], list[bool]]:
    def apart(x: Rows, y: Rows) -> float:
        return float(np.sqrt(sum((u - v) ** 2 for u, v in zip(x, y, strict=True))))

    radii = [sorted(apart(x, y) for j, y in enumerate(centres) if j != i)[k - 1] for i, x in enumerate(centres)]
    inside = [
        [apart(point, centre) <= radius for centre, radius in zip(centres, radii, strict=True)] for point in points
    ]
    return [sum(row) for row in inside], [any(column) for column in zip(*inside, strict=True)]


@pytest.mark.parametrize("rows", [5, 1024])
@pytest.mark.parametrize("k", [1, 3])
def test_ball_counts_equal_loops(rows: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.scoring.metrics._ROWS", rows)
    rng = np.random.default_rng(7)
    points, centres = rng.normal(0.7, 1, size=(23, 3)), rng.normal(size=(18, 3))
    counts, holds = ball_counts(points, centres, k)
    expected = balls_by_loops(points, centres, k)
    assert counts.tolist() == expected[0]
    assert holds.tolist() == expected[1]


def test_precision_recall_density_and_coverage_are_those_of_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(8)
    real, fake = rng.normal(size=(90, 6)), rng.normal(0.4, 0.8, size=(70, 6))
    theirs = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    counts, covered = ball_counts(fake, real, 5)
    assert (counts > 0).mean() == pytest.approx(theirs["precision"])
    assert (ball_counts(real, fake, 5)[0] > 0).mean() == pytest.approx(theirs["recall"])
    assert counts.mean() / 5 == pytest.approx(theirs["density"])
    assert covered.mean() == pytest.approx(theirs["coverage"])


def test_nearest_leaves_an_image_out_of_its_own_neighbours() -> None:
    rows = np.array([[0.0], [1.0], [1.0], [5.0]])
    distances, which = nearest(rows, rows, 2, itself=np.arange(4))
    assert distances.tolist() == [[1, 1], [0, 1], [0, 1], [4, 4]]
    assert which[1, 0] == 2
    assert nearest(rows[[3, 1]], rows, 1, itself=np.array([3, 1]))[0].tolist() == [[4], [0]]
    assert nearest(rows, rows[:1], 3)[0].shape == (4, 1)  # there is only one


def softmax(logits: Rows) -> Rows:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_inception_score_equals_loops_and_its_bounds() -> None:
    probabilities = softmax(np.random.default_rng(9).normal(0, 2, size=(43, 7)))
    shuffled = [probabilities[i] for i in np.random.default_rng(0).permutation(43)]
    scores = []
    for split in range(4):
        part = shuffled[43 * split // 4 : 43 * (split + 1) // 4]
        mean = [sum(row[c] for row in part) / len(part) for c in range(7)]
        divergences = [sum(p * np.log(p / m) for p, m in zip(row, mean, strict=True)) for row in part]
        scores.append(np.exp(sum(divergences) / len(part)))
    assert inception_score(probabilities, 4) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-12)
    assert inception_score(np.full((20, 5), 0.2)) == pytest.approx((1, 0))  # says nothing
    assert inception_score(np.tile(np.eye(5), (10, 1)), 1) == pytest.approx((5, 0))  # sure of it, and all five


def test_inception_score_does_not_depend_on_whether_images_are_sorted_by_class() -> None:
    in_order = np.repeat(np.eye(10), 100, axis=0)
    mixed = np.random.default_rng(11).permutation(in_order)
    assert inception_score(in_order)[0] == pytest.approx(inception_score(mixed)[0], rel=0.02)
    assert inception_score(in_order)[0] > 9
    assert inception_score(in_order) == inception_score(in_order)


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
    sets = Sets(Extracted(a, a[:, :0], a[:, :0]), Extracted(b, b[:, :0], b[:, :0]))
    entry = make_entries("kid", sets, 7)["kid"]
    value = kernel_distance(a, b)
    expected = interval(lambda i, j: kernel_distance(a[i], b[j]), (30, 41), value, 200, 7)
    assert entry["interval"] == pytest.approx(expected, rel=1e-9)


def test_without_a_seed_and_for_sets_of_three_there_is_no_interval() -> None:
    assert interval(lambda i: 0.0, (3,), 0.0, 10, 0) is None
    assert interval(lambda i: 0.0, (4,), 0.0, 10, None) is None
    assert interval(lambda i: 0.0, (4,), 0.0, 10, 0) == (0, 0)
