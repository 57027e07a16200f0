"""LPIPS diversity is over separate pairs of generated images; none is in two of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.errors import InputError, UsageError
from pipelines.scoring import diversity
from pipelines.scoring.diversity import LpipsPairs
from pipelines.scoring.feature_pass import Source, look_at
from pipelines.scoring.measures import diversity as diversity_of
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.frozen.context import Frozen

CPU = torch.device("cpu")


def test_each_image_is_compared_with_one_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(weights: Path) -> Frozen:
        return Frozen(nn.L1Loss(), "")

    monkeypatch.setattr(diversity, "load_lpips", load)
    (tmp_path / "vgg.pth").write_bytes(b"")
    view = LpipsPairs(tmp_path / "vgg.pth", CPU)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8)).astype(np.uint8)
    source = Source("images", 7, lambda positions: images[list(positions)])
    (rows,) = look_at(source, [view], 4, make_accelerator())
    expected = [np.abs(images[i].astype(float) - images[i + 1]).mean() / 127.5 for i in (0, 2, 4)]
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-5)


def test_of_too_few_real_images_there_are_no_floors() -> None:
    rows, none = np.array([[0.5], [0.75]], np.float32), np.zeros((0, 1), np.float32)
    entry = diversity_of(rows, none, none, 0)
    assert (entry["value"], entry["real_floor"], entry["autoencoder_floor"]) == (0.625, None, None)
    assert (entry["num_generated"], entry["num_real"]) == (4, 0)
    assert diversity_of(rows, rows, rows, 0)["real_floor"] == 0.625


def test_without_weights_it_is_said_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs VGG-16") as raised:
        LpipsPairs(None, CPU)
    assert "--vgg-weights" in raised.value.fix
    with pytest.raises(InputError, match="is not a file"):
        LpipsPairs(tmp_path / "vgg.pth", CPU)


def test_a_distance_takes_one_pair_at_a_time() -> None:
    """The published calibration gives the mean of a batch, which would hide the pairs."""
    view = LpipsPairs.__new__(LpipsPairs)
    sizes: list[int] = []

    class Distance(nn.Module):
        def forward(self, images: Tensor, others: Tensor) -> Tensor:
            sizes.append(len(images))
            return torch.zeros(())

    view._distance, view._device = Distance(), CPU
    assert view.look(torch.zeros(5, 3, 4, 4)).shape == (2, 1)
    assert sizes == [1, 1]
