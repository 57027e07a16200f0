"""What scripts that repeat figures and tables of papers do besides running verbs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import autoencoders, single_images
from benchmarks.drawing import drawing
from benchmarks.nearest import augmented, images_at, pixels, to_nearest
from data.images import open_images, to_float
from stage2_codegen.variants import build_networks
from tests.tiny_variants import TINY

CPU = torch.device("cpu")


def test_held_out_pictures_are_not_trained_on(tmp_path: Path) -> None:
    for _ in range(2):  # the second time it is done
        autoencoders.write_pictures(["scenes:12@24"], tmp_path, size=16, held_out=4)
    held_out, train = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("held-out", "train"))
    assert (len(held_out), len(train)) == (4, 8)
    assert sorted([*held_out, *train]) == [f"{index:06d}.png" for index in range(12)]
    assert open_images(tmp_path / "held-out").sizes[0].tolist() == [16, 16]
    assert open_images(tmp_path / "train").sizes[0].tolist() == [24, 24]


def test_each_picture_is_a_data_set_of_its_own(tmp_path: Path) -> None:
    scenes = open_images("scenes:3@24")
    names = single_images.write_pictures(["scenes:3@24"], tmp_path, 2)
    assert len(names) == 2
    for index, name in enumerate(names):
        found = open_images(tmp_path / "pictures" / name)
        assert len(found) == 1
        np.testing.assert_array_equal(found.image(0), scenes.image(index))


def test_the_nearest_picture_is_found_and_a_copy_differs_by_its_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.nearest.AT_ONCE", 2)
    images = open_images("scenes:5", size=20)
    assert to_nearest(images_at(images, [4], CPU), images, pixels) == 0
    between = (images_at(images, [1], CPU) + 0.02).clamp(-1, 1)
    assert 0 < to_nearest(between, images, pixels) <= 0.01
    copies = [
        augmented(to_float(torch.from_numpy(images.image(0)[None])), torch.Generator().manual_seed(s)) for s in (0, 1)
    ]
    assert copies[0].shape == (1, 3, 20, 20)
    assert not torch.equal(*copies)
    ramp = torch.linspace(-1, 1, 20).expand(1, 3, 20, 20)
    seen = augmented(ramp, torch.Generator().manual_seed(0))[0, 0, 0]
    assert (seen.max() - seen.min()).item() == pytest.approx(2 * 0.8**0.5, abs=0.15)


def test_as_many_pictures_are_drawn_as_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, _ = build_networks("accel", (3, 16, 16), **TINY["accel"])
    counts: list[int] = []
    generator.register_forward_hook(lambda _module, inputs, _output: counts.append(len(inputs[0])))
    drawing(generator, 5, 2, "cpu")()
    assert counts == [2, 2, 1]
