"""SIFID is the Frechet distance over the places of a small network's maps; LPIPS diversity is over separate pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as their_frechet_distance
from torch import Tensor, nn
from torch.nn import functional

from data.errors import CorruptError, InputError, MismatchError, UsageError
from pipelines.scoring import pairwise
from pipelines.scoring.extraction import extract
from pipelines.scoring.networks import FeatureNetwork, Inception, load_features
from pipelines.scoring.pairwise import LpipsPairs, diversity, local_features, sifid
from pipelines.scoring.sets import LazyImages, Sets, check_pairs
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.frozen.context import Frozen

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (3, 20 + 3 * i, 24)).astype(np.uint8) // (i + 1) for i in range(4)]  # of four sizes


def stand_in(images: Tensor) -> Tensor:
    kernel = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32))
    return functional.relu(functional.conv2d(images / 255, kernel))


def lazy(images: list[np.ndarray]) -> LazyImages:
    return LazyImages("", len(images), lambda positions: np.stack([images[i] for i in positions]))


NETWORK = FeatureNetwork("offline", 5, 8, lambda x: x, CPU, maps={"sifid-5": stand_in})


@pytest.mark.filterwarnings("ignore:The .disp. argument:DeprecationWarning")
def test_the_distance_is_that_of_gaussians_over_all_places_averaged_over_images() -> None:
    def moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = stand_in(torch.from_numpy(image)[None].float())[0].double()
        rows = np.array([maps[:, y, x].tolist() for y in range(maps.shape[1]) for x in range(maps.shape[2])])
        return rows.mean(axis=0), np.cov(rows, rowvar=False)

    expected = [their_frechet_distance(*moments(image), *moments(IMAGES[0])) for image in IMAGES[1:]]
    entry = sifid(NETWORK, lazy(IMAGES[1:]), lazy(IMAGES[:1]), None, 0)["sifid-5"]
    assert entry["value"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert entry["std"] == pytest.approx(np.std(expected), rel=1e-4)
    assert (entry["num_generated"], entry["num_real"]) == (3, 1)


def test_several_images_are_compared_one_by_one_and_equal_ones_are_at_zero() -> None:
    entry = sifid(NETWORK, lazy(IMAGES), lazy(IMAGES), lazy(IMAGES[::-1]), 0)["sifid-5"]
    assert entry["value"] < 1e-9 < entry["autoencoder_floor"]


def test_images_without_partners_are_refused() -> None:
    check_pairs(4, 4)
    check_pairs(4, 1)
    with pytest.raises(InputError, match="there are 2 real images") as raised:
        check_pairs(4, 2)
    assert "or 4 in the same order" in raised.value.fix


def test_places_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(CorruptError, match="not finite"):
        local_features(lambda images: images * float("nan"), IMAGES[0], CPU)


def test_offline_places_are_those_of_the_second_layer() -> None:
    offline = load_features("offline", None, CPU)
    assert local_features(offline.maps["sifid-offline"], np.zeros((3, 40, 52), np.uint8), CPU).shape == (18 * 24, 24)


def test_inception_s_maps_end_before_its_first_and_second_pooling() -> None:
    first, second = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 192, 1)
    inception = Inception.__new__(Inception)
    inception.layers = nn.Sequential(first, nn.MaxPool2d(3, 2), second, nn.MaxPool2d(3, 2), nn.Conv2d(192, 8, 1))
    images = torch.randn(1, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(inception.before_pooling(images, 64), first(images))
        assert torch.equal(inception.before_pooling(images, 192), second(functional.max_pool2d(first(images), 3, 2)))


def test_a_layer_without_weights_that_is_no_pooling_is_an_error() -> None:
    inception = Inception.__new__(Inception)
    inception.layers = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.MaxPool2d(3, 2))
    with pytest.raises(MismatchError, match="32 channels where 64"):
        inception.before_pooling(torch.zeros(1, 3, 20, 20), 64)
    with pytest.raises(MismatchError, match="64 channels where 192"):
        inception.before_pooling(torch.zeros(1, 3, 20, 20), 192)


def test_each_image_is_compared_with_one_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(weights: Path) -> Frozen:
        return Frozen(nn.L1Loss(), "")

    monkeypatch.setattr(pairwise, "load_lpips", load)
    (tmp_path / "vgg.pth").write_bytes(b"")
    lpips = LpipsPairs(tmp_path / "vgg.pth", CPU)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8)).astype(np.uint8)
    pictures = LazyImages("images", 7, lambda positions: images[list(positions)])
    (rows,) = extract(pictures, [lpips], 4, make_accelerator())
    expected = [np.abs(images[i].astype(float) - images[i + 1]).mean() / 127.5 for i in (0, 2, 4)]
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-5)


def test_of_too_few_real_images_there_are_no_floors() -> None:
    rows, none = np.array([[0.5], [0.75]], np.float32), np.zeros((0, 1), np.float32)
    entry = diversity(Sets(rows, none, none), 0)
    assert (entry["value"], entry["real_floor"], entry["autoencoder_floor"]) == (0.625, None, None)
    assert (entry["num_generated"], entry["num_real"]) == (4, 0)
    assert diversity(Sets(rows, rows, rows), 0)["real_floor"] == 0.625


def test_without_weights_it_is_said_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs VGG-16") as raised:
        LpipsPairs(None, CPU)
    assert "--vgg-weights" in raised.value.fix
    with pytest.raises(InputError, match="is not a file"):
        LpipsPairs(tmp_path / "vgg.pth", CPU)


def test_a_distance_takes_one_pair_at_a_time() -> None:
    """The published calibration gives the mean of a batch, which would hide the pairs."""
    lpips = LpipsPairs.__new__(LpipsPairs)
    sizes: list[int] = []

    class Distance(nn.Module):
        def forward(self, images: Tensor, others: Tensor) -> Tensor:
            sizes.append(len(images))
            return torch.zeros(())

    lpips._distance, lpips._device = Distance(), CPU
    assert lpips.extract(torch.zeros(5, 3, 4, 4)).shape == (2, 1)
    assert sizes == [1, 1]
