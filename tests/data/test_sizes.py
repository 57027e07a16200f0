"""Sizes as they are typed and stored, and pictures fitted to them."""

import numpy as np
import pytest
from PIL import Image

from data.errors import UsageError
from data.images import fit, open_images
from data.sizes import Size, as_size, height_width, parse_size, size_text, to_json_size


@pytest.mark.parametrize(
    ("text", "size", "stored"), [("256", 256, 256), ("512x384", (384, 512), [384, 512]), ("64x64", 64, 64)]
)
def test_a_size_is_a_side_or_width_by_height(text: str, size: Size, stored: int | list[int]) -> None:
    assert parse_size(text) == size
    assert to_json_size(size) == stored
    assert as_size(stored) == size
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize("text", ["", "0", "12x0", "-4", "1.5", "3x4x5", "x8", "256px"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("size", [10, (10, 20), (20, 10), (30, 40)])
def test_the_middle_of_a_picture_is_fitted_without_distortion(size: Size) -> None:
    """On a ramp in both directions, whose slopes tell how far it was scaled in each."""
    rows, columns = np.mgrid[:60, :80]
    ramp = np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8)
    fitted = np.asarray(fit(Image.fromarray(ramp), size)).astype(float)
    height, width = height_width(size)
    assert fitted.shape == (height, width, 3)
    scale = max(height / 60, width / 80)
    inner = slice(3, -3)
    np.testing.assert_allclose(np.diff(fitted[inner, width // 2, 0]).mean(), 2 / scale, rtol=0.1)
    np.testing.assert_allclose(np.diff(fitted[height // 2, inner, 1]).mean(), 2 / scale, rtol=0.1)
    assert fitted[..., 0].mean() == pytest.approx(59, abs=1.5)  # the middle stays the middle
    assert fitted[..., 1].mean() == pytest.approx(79, abs=1.5)


def test_scenes_of_another_shape_are_cut_from_square_ones() -> None:
    scenes, squares = open_images("scenes:2", size=(24, 32)), open_images("scenes:2", size=32)
    np.testing.assert_array_equal(scenes.image(1), squares.image(1)[:, 4:28])
