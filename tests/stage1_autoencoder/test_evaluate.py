"""Reconstruction errors are those of a loop written out, and PSNR is the paper's table on the range [-1, 1]."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.images import open_images
from stage1_autoencoder.evaluate import format_table, psnr, reconstruction_error, reconstruction_table
from stage1_autoencoder.networks import Autoencoder

pytestmark = pytest.mark.usefixtures("single_thread")


class Darker(Autoencoder):
    """Reconstructs everything but for a known error: red too low by 0.1."""

    def forward(self, images: Tensor, noise: Tensor | None = None, mirrored: Tensor | None = None) -> Tensor:
        return images - torch.tensor([0.1, 0.0, 0.0])[:, None, None]


def test_psnr_of_the_table() -> None:
    for mse, expected in ((2.7e-4, 41.71), (1.3e-3, 34.88), (3.4e-3, 30.71), (1.1e-4, 45.61), (8.8e-4, 36.58)):
        assert round(psnr(mse), 2) == expected
    assert psnr(4.0) == 0
    assert psnr(0.0) == math.inf


def test_table_measures_what_fits_each_size(tmp_path: Path) -> None:
    sides = [(16, 16), (32, 48), (40, 33), (64, 70)]
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate(sides):
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{index}.png")
    images = open_images(tmp_path)
    rows = reconstruction_table(Darker(2, 3, 2), images, [16, 32, 64, 128])
    assert [(row["size"], row["count"]) for row in rows] == [(16, 4), (32, 3), (64, 1)]
    for row in rows:
        np.testing.assert_allclose(row["mse"], 0.1**2 / 3, rtol=1e-5)
        assert row["psnr"] == psnr(row["mse"])
    assert [r["count"] for r in reconstruction_table(Darker(2, 3, 2), images, [32], indices=[0, 1, 2], limit=1)] == [1]
    assert len(format_table(rows).splitlines()) == 4


def test_table_equals_a_naive_loop(tmp_path: Path, tiny_autoencoder: Autoencoder) -> None:
    random = np.random.default_rng(1)
    for index in range(3):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{index}.png")
    images = open_images(tmp_path)
    errors = []
    for index in range(3):
        x = images.image(index) / 127.5 - 1
        y = tiny_autoencoder(torch.from_numpy(x).float()[None])[0].numpy()
        errors.append(np.mean((x - y) ** 2))
    row = reconstruction_table(tiny_autoencoder, images, [16])[0]
    np.testing.assert_allclose(row["mse"], np.mean(errors), rtol=1e-5)
    one = reconstruction_error(tiny_autoencoder, images.image(1)[None])
    np.testing.assert_allclose(one, errors[1], rtol=1e-5)
