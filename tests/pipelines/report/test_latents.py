"""The latents section draws true projections, true shares and a true way between seeds."""

import numpy as np
import pytest

from pipelines.report.latents import project, shares_of_bins


def test_the_plane_has_the_variances_of_the_covariance_and_keeps_what_lies_in_it() -> None:
    random = np.random.default_rng(0)
    stored = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)) + 3
    plane = project(stored, stored[:7] + 1)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(stored.T, bias=True)))[::-1]
    np.testing.assert_allclose(plane.stored.var(axis=0), eigenvalues[:2])
    np.testing.assert_allclose(plane.explained, eigenvalues[:2] / eigenvalues.sum())
    np.testing.assert_allclose(plane.stored.mean(axis=0), 0, atol=1e-12)
    moved = plane.generated - plane.stored[:7]  # the same shift, seen in the same plane
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], (7, 2)))


def test_a_single_latent_and_equal_latents_have_a_plane_too() -> None:
    for stored in (np.ones((1, 4)), np.ones((3, 1)), np.ones((5, 4))):
        plane = project(stored, stored)
        assert plane.stored.shape == (len(stored), 2)
        assert np.isfinite(plane.stored).all()
        assert plane.explained == (0, 0)


def test_equal_values_share_all_of_their_histograms_and_distant_ones_nothing() -> None:
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)

    def share(other: np.ndarray) -> float:
        return float(np.minimum(*shares_of_bins(values, other)).sum())

    assert share(values.copy()) == pytest.approx(1)
    assert share(values + 100) <= 0.01
    half = np.where(np.arange(4000) % 2 == 0, values, 100).astype(np.float32)
    assert share(half) == pytest.approx(0.5, abs=0.03)
