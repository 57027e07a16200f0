"""What is unlikely to train well is said once, before the work."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import open_images
from data.limits import FEW_IMAGES
from data.suitability import warn_of_unsuitable


def folder_of(root: Path, count: int, width: int, height: int) -> Path:
    for index in range(count):
        Image.fromarray(np.full((height, width, 3), index, np.uint8)).save(root / f"{index:02d}.png")
    return root


def test_few_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = open_images(folder_of(tmp_path, FEW_IMAGES - 1, 32, 32))
    warn_of_unsuitable(images, [32])
    assert f"holds only {FEW_IMAGES - 1} images" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "enlarged"), [(64, 0), (65, FEW_IMAGES), ((32, 300), FEW_IMAGES), ((60, 64), 0)])
def test_images_enlarged_more_than_twice_are_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int | tuple[int, int], enlarged: int
) -> None:
    images = open_images(folder_of(tmp_path, FEW_IMAGES, 40, 32))
    warn_of_unsuitable(images, [16, size])
    told = capsys.readouterr().err
    assert told.count("warning") == bool(enlarged)
    assert f"{enlarged} of {FEW_IMAGES}" in told or not enlarged


def test_scenes_are_drawn_at_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_unsuitable(open_images(f"scenes:{FEW_IMAGES}"), [1024])
    assert capsys.readouterr().err == ""
