"""Distances agree with closed forms, naive loops and clean-fid."""

import numpy as np
import pytest
from cleanfid import fid as cleanfid
from numpy.typing import NDArray
from scipy.linalg import hadamard

from pipelines.metrics import frechet_distance, kernel_distance

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
    monkeypatch.setattr("pipelines.metrics._ROWS", rows)  # several blocks with a remainder, and one block
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
