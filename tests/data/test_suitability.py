"""What is unlikely to train well is said once, before the work."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import open_images
from data.limits import FEW_IMAGES
from data.suitability import facts_for_encoding, warn_of_unsuitable


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


@pytest.mark.parametrize(("mode", "opacity", "told"), [("RGBA", 254, True), ("LA", 0, True), ("RGBA", 255, False)])
def test_transparent_images_are_told_and_shown_over_white(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, opacity: int, told: bool
) -> None:
    folder = folder_of(tmp_path, FEW_IMAGES, 32, 32)
    picture = Image.new(mode, (32, 32), (*(100,) * (len(mode) - 1), 255))
    picture.paste((*(100,) * (len(mode) - 1), opacity), (0, 0, 8, 8))
    picture.save(folder / "00.png")
    images = open_images(folder)
    warn_of_unsuitable(images, [32])
    assert (f"1 of {FEW_IMAGES} images are transparent" in capsys.readouterr().err) == told
    pixels = images.image(0)
    assert (pixels[:, 8:, 8:] == 100).all()
    assert (pixels[:, :8, :8] == round(255 - opacity / 255 * 155)).all()


def test_grey_images_are_three_equal_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, FEW_IMAGES, 32, 32)
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64).save(folder / "00.png")
    images = open_images(folder)
    warn_of_unsuitable(images, [32])
    assert capsys.readouterr().err == ""
    pixels = images.image(0)
    assert pixels.shape == (3, 32, 32)
    assert (pixels == pixels[:1]).all()
    assert len(np.unique(pixels)) == 256


@pytest.mark.parametrize(
    ("sides", "broken", "facts"),
    [
        ((300, 400), 0, {}),
        ((210, 400), 0, {}),  # a little smaller than the usual size
        ((150, 200), 0, {"size": 128}),
        ((70, 90), 1, {"size": 64, "max_skip": 0.25}),
        ((20, 20), 0, {"size": 64}),
    ],
)
def test_what_the_defaults_do_not_suit_is_advised(
    tmp_path: Path, sides: tuple[int, int], broken: int, facts: dict[str, float]
) -> None:
    folder = folder_of(tmp_path, 3, *sides)
    for number in range(broken):
        (folder / f"broken-{number}.png").touch()
    images = open_images(folder, max_skip=1)
    assert facts_for_encoding(images) == facts
    assert facts_for_encoding(images, smallest=512) == {k: v for k, v in facts.items() if k != "size"}
