"""A crop is a pure function of (seed, position) and shows the part of the picture it says."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.images import ImageSet, open_images
from data.store.order import SampleOrder
from stage1_autoencoder.crops import CodeNoise, RandomCrops

HEIGHT, WIDTH, SIZE = 96, 160, 32


@pytest.fixture
def ramps(tmp_path: Path) -> ImageSet:
    """Pictures whose red is the column and whose green is the row; blue tells them apart."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    for index in range(5):
        picture = np.stack([columns, rows, np.full_like(rows, 10 * index)], axis=-1)
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    return open_images(tmp_path)


def crops(images: ImageSet, seed: int = 0) -> RandomCrops:
    return RandomCrops(images, np.arange(len(images)), SIZE, seed)


def spans(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Source pixels a step across (negative when mirrored) and down, (n, 2), away from the borders."""
    inner = batch.astype(np.float64)[:, :, 4:-4, 4:-4]
    steps = inner.shape[-1] - 1
    across = (inner[:, 0, :, -1] - inner[:, 0, :, 0]).mean(1) / steps
    down = (inner[:, 1, -1] - inner[:, 1, 0]).mean(1) / steps
    return np.stack([across, down], axis=1)


def test_a_batch_depends_on_seed_and_position_alone(ramps: ImageSet) -> None:
    whole = crops(ramps).batch(0, 12)
    assert whole.shape == (12, 3, SIZE, SIZE)
    assert whole.dtype == np.uint8
    again = crops(ramps)
    parts = [again.batch(7, 5), again.batch(0, 7)]
    np.testing.assert_array_equal(np.concatenate(parts[::-1]), whole)
    assert (crops(ramps, seed=1).batch(0, 12) != whole).any()


def test_pictures_come_in_the_shuffled_order_of_the_chosen_ones(ramps: ImageSet) -> None:
    chosen = np.array([4, 1, 3])
    batch = RandomCrops(ramps, chosen, SIZE, 0).batch(0, 9)
    expected = chosen[SampleOrder(3, seed=0, shard_rows=3).rows(0, 9)]
    np.testing.assert_array_equal(batch[:, 2, 16, 16], 10 * expected)


def test_crops_are_square_parts_between_native_detail_and_the_whole(ramps: ImageSet) -> None:
    batch = crops(ramps).batch(0, 120)
    scale = spans(batch)
    np.testing.assert_allclose(np.abs(scale[:, 0]), scale[:, 1], atol=0.08)  # as wide as high; 8-bit steps
    sides = SIZE * scale[:, 1]
    assert sides.min() > SIZE - 2
    assert sides.max() < HEIGHT + 2
    logs = np.log(sides / SIZE) / np.log(HEIGHT / SIZE)  # uniform in [0, 1]
    assert abs(logs.mean() - 0.5) < 0.1
    assert abs(logs.std() - 12**-0.5) < 0.06
    mirrored = (scale[:, 0] < 0).mean()
    assert 0.35 < mirrored < 0.65
    middle = batch[:, :2, SIZE // 2, SIZE // 2].astype(np.float64)
    assert (middle > (SIZE / 2 - 2)).all()
    assert (middle < [WIDTH - SIZE / 2 + 2, HEIGHT - SIZE / 2 + 2]).all()
    assert middle[:, 0].std() > 20  # places differ


def test_a_picture_of_exactly_the_size_is_shown_whole(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = picture.transpose(2, 0, 1)
    batch = crops(open_images(tmp_path)).batch(0, 16)
    plain = [np.array_equal(crop, expected) for crop in batch]
    mirrored = [np.array_equal(crop, expected[:, :, ::-1]) for crop in batch]
    assert all(a != b for a, b in zip(plain, mirrored, strict=True))
    assert 0 < sum(plain) < 16


def test_smaller_and_narrower_pictures_are_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (17, 25), (1, 2, 3)).save(tmp_path / "a.png")
    batch = crops(open_images(tmp_path)).batch(0, 8)
    assert batch.shape == (8, 3, SIZE, SIZE)
    assert (batch == np.array([1, 2, 3], np.uint8)[None, :, None, None]).all()


def test_jitter_changes_the_colours_of_the_same_crops_and_no_more_than_it_says(ramps: ImageSet) -> None:
    plain = crops(ramps).batch(0, 40)[:, :2].astype(np.float64)  # blue is flat: it would not show the stretch
    jittered = RandomCrops(ramps, np.arange(len(ramps)), SIZE, 0, jitter=0.2).batch(0, 40)[:, :2].astype(np.float64)
    changes = []
    for before, after in zip(plain.reshape(-1, SIZE**2), jittered.reshape(-1, SIZE**2), strict=True):
        inside = (after > 0) & (after < 255)
        stretch, shift = np.polyfit(before[inside] - 127.5, after[inside] - 127.5, 1)
        np.testing.assert_allclose(
            after, ((before - 127.5) * stretch + 127.5 + shift).clip(0, 255), atol=1
        )  # both round
        changes.append((stretch - 1, shift / 127.5))
    assert np.abs(changes).max() < 0.21
    assert (np.std(changes, axis=0) > 0.08).all()  # 0.2 / sqrt(3) when uniform


def test_noise_is_gaussian_of_a_deviation_uniform_up_to_the_largest_and_decided_by_the_position() -> None:
    noises = CodeNoise((4, 16, 16), 0.3, seed=1)
    batch = noises.batch(0, 300)
    assert (batch.shape, batch.dtype) == ((300, 4, 16, 16), np.float32)
    np.testing.assert_array_equal(np.concatenate([noises.batch(0, 7), noises.batch(7, 5)]), batch[:12])
    assert (CodeNoise((4, 16, 16), 0.3, seed=2).batch(0, 1) != batch[0]).any()
    deviations = batch.std(axis=(1, 2, 3))
    assert deviations.max() < 0.32
    np.testing.assert_allclose(np.quantile(deviations, [0.25, 0.5, 0.75]), [0.075, 0.15, 0.225], atol=0.03)
    standard = (batch / deviations[:, None, None, None]).ravel()
    assert abs(standard.mean()) < 0.01
    np.testing.assert_allclose((np.abs(standard) < 1).mean(), 0.683, atol=0.005)
