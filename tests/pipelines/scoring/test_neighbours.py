"""Nearest images are the nearest, and copies of training images are noticed."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.scoring import neighbours
from pipelines.scoring.neighbours import find_neighbours, summary, write_neighbours
from pipelines.scoring.sets import LazyImages

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 8)).astype(np.float32)


def grey(level: int) -> LazyImages:
    return LazyImages("", 1000, lambda positions: np.full((len(positions), 3, 32, 32), level, np.uint8))


def test_distances_and_positions_equal_a_double_loop() -> None:
    fake = RNG.normal(size=(20, 8)).astype(np.float32)
    found = find_neighbours(fake, REAL, None, 0)
    for i, row in enumerate(fake):
        apart = [float(np.linalg.norm(row.astype(float) - other)) for other in REAL]
        order = np.argsort(apart)[:3]
        assert found.which[i].tolist() == order.tolist()
        np.testing.assert_allclose(found.distances[i], np.array(apart)[order], rtol=1e-6)
    others = [
        min(np.linalg.norm(x.astype(float) - y) for j, y in enumerate(REAL) if j != i) for i, x in enumerate(REAL)
    ]
    np.testing.assert_allclose(found.among_real, others, rtol=1e-6)


def test_of_a_picture_and_its_mirror_image_the_nearer_counts_and_neither_is_its_own_neighbour() -> None:
    rng = np.random.default_rng(1)
    fake, mirrored = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=REAL.shape).astype(np.float32)
    found = find_neighbours(fake, REAL, REAL + 1, 0, mirrored)
    assert 0 < found.mirrored.sum() < found.mirrored.size

    def apart(point: NDArray[np.float32]) -> NDArray[np.float64]:
        """(pictures, 2)"""
        return np.array(
            [[np.linalg.norm(point.astype(float) - row) for row in pair] for pair in zip(REAL, mirrored, strict=True)]
        )

    for i, row in enumerate(fake):
        distances = apart(row)
        order = np.argsort(distances.min(axis=1))[:3]
        assert found.which[i].tolist() == order.tolist()
        assert found.mirrored[i].tolist() == (distances[:, 1] < distances[:, 0])[order].tolist()
        np.testing.assert_allclose(found.distances[i], distances.min(axis=1)[order], rtol=1e-6)
    others = [np.delete(apart(row), i, axis=0).min() for i, row in enumerate(REAL)]
    np.testing.assert_allclose(found.among_real, others, rtol=1e-6)
    assert found.reconstructed is not None
    np.testing.assert_allclose(found.reconstructed, [apart(row).min() for row in REAL + 1], rtol=1e-6)


def test_fewer_pictures_than_neighbours_are_each_named_once() -> None:
    found = find_neighbours(REAL[:9], REAL[:2], None, 0, REAL[:2] + np.float32(0.5))
    assert np.sort(found.which, axis=1).tolist() == [[0, 1]] * 9


def test_fresh_samples_are_as_far_as_real_ones_are_apart_and_copies_are_near() -> None:
    fresh, copies = RNG.normal(size=(200, 8)), REAL[RNG.integers(60, size=50)] + RNG.normal(0, 0.01, (50, 8))
    found = find_neighbours(fresh.astype(np.float32), REAL, None, 0)
    assert not summary(found)["nearer_than_real"]
    pairs = [a < b for a in found.distances[:, 0] for b in found.among_real]
    assert summary(found)["probability_nearer"] == sum(pairs) / len(pairs)
    memory = summary(find_neighbours(copies.astype(np.float32), REAL, REAL + np.float32(0.01), 0))
    assert memory["nearer_than_real"]
    assert memory["closer_than_5_percent_of_real"] == 1
    assert memory["reconstructed_to_real"]["50"] < memory["real_to_real"]["0"]


def test_a_perfect_generator_is_no_memory_where_files_are_sorted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the first cluster are far from each other, those of the second near."""
    monkeypatch.setattr(neighbours, "_QUERIES", 200)

    def clusters() -> NDArray[np.float32]:
        return np.concatenate([RNG.normal(0, 5, (200, 8)), RNG.normal(40, 0.1, (200, 8))]).astype(np.float32)

    fake, real = clusters(), clusters()
    found = find_neighbours(fake, real, real, 0)
    assert not summary(find_neighbours(RNG.permutation(fake), real, None, 0))["nearer_than_real"]
    assert not summary(found)["nearer_than_real"]
    assert len(set(found.generated)) == 200
    for query, position in enumerate(found.generated):
        expected = np.sort(np.linalg.norm(real.astype(float) - fake[position], axis=1))[:3]
        np.testing.assert_allclose(found.distances[query], expected, rtol=1e-4, atol=1e-4)
    assert found.reconstructed is not None
    assert found.reconstructed.max() < 1e-3  # decoded images are those of the real ones
    assert found.among_real.min() > 0
    write_neighbours(tmp_path / "near", found, grey(10), grey(200), {})
    nearest = found.generated[found.distances[:, 0].argmin()]
    assert json.loads((tmp_path / "near.json").read_text())["sheet"][0]["generated"] == nearest


def test_the_sheet_shows_the_nearest_first_each_beside_three_training_images(tmp_path: Path) -> None:
    fake: NDArray[np.float32] = np.concatenate([REAL[:2] + 3, REAL[5:6], REAL[:12] + 1]).astype(np.float32)
    found = find_neighbours(fake, REAL, None, 0)
    sheet, numbers = write_neighbours(tmp_path / "near", found, grey(10), grey(200), {"nimg": 7})
    assert (sheet, numbers) == (tmp_path / "near.png", tmp_path / "near.json")
    assert json.loads(numbers.read_text())["nimg"] == 7
    rows = json.loads(numbers.read_text())["sheet"]
    assert len(rows) == 10
    assert rows[0]["generated"] == 2  # the copy
    assert rows[0]["real"][0] == 5
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    assert pixels.shape[:2] == (10 * (32 + 14 + 2) - 2, 4 * 34 - 2)
    assert pixels[5, 5, 0] == 10  # generated on the left
    assert pixels[5, 34 + 5, 0] == pixels[5, 3 * 34 + 5, 0] == 200


def test_the_sheet_shows_a_training_image_as_it_is_so_near(tmp_path: Path) -> None:
    """Dark on the left; of the three nearest the copy is the mirrored one."""

    def half_dark(positions: Sequence[int]) -> NDArray[np.uint8]:
        picture = np.broadcast_to(np.arange(32, dtype=np.uint8) * 8, (3, 32, 32))
        return np.stack([picture] * len(positions))

    found = find_neighbours(REAL[5:6] + 9, REAL, None, 0, np.where(np.arange(60)[:, None] == 5, REAL + 9, REAL + 99))
    sheet, numbers = write_neighbours(tmp_path / "near", found, grey(10), LazyImages("", 60, half_dark), {})
    (row,) = json.loads(numbers.read_text())["sheet"]
    assert (row["real"][0], row["mirrored"]) == (5, [True, False, False])
    with Image.open(sheet) as image:
        pixels = np.asarray(image)[:32, :, 0].astype(int)
    assert np.ptp(pixels[:, 34:66] - 8 * np.arange(31, -1, -1)) == 0
    assert np.ptp(pixels[:, 68:100] - 8 * np.arange(32)) == 0
