"""SIFID is the Frechet distance over the places of a small network's maps."""

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as their_frechet_distance
from torch import Tensor, nn
from torch.nn import functional

from data.errors import CorruptError, InputError, MismatchError
from pipelines.scoring.feature_pass import Source
from pipelines.scoring.features import Features, load_features
from pipelines.scoring.inception import Inception
from pipelines.scoring.sifid import check_pairs, places, sifid

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (3, 20 + 3 * i, 24)).astype(np.uint8) // (i + 1) for i in range(4)]  # of four sizes


def stand_in(images: Tensor) -> Tensor:
    kernel = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32))
    return functional.relu(functional.conv2d(images / 255, kernel))


def source(images: list[np.ndarray]) -> Source:
    return Source("", len(images), lambda positions: np.stack([images[i] for i in positions]))


FEATURES = Features("offline", 5, 8, lambda x: x, CPU, maps={"sifid-5": stand_in})


@pytest.mark.filterwarnings("ignore:The .disp. argument:DeprecationWarning")
def test_the_distance_is_that_of_gaussians_over_all_places_averaged_over_images() -> None:
    def moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = stand_in(torch.from_numpy(image)[None].float())[0].double()
        rows = np.array([maps[:, y, x].tolist() for y in range(maps.shape[1]) for x in range(maps.shape[2])])
        return rows.mean(axis=0), np.cov(rows, rowvar=False)

    expected = [their_frechet_distance(*moments(image), *moments(IMAGES[0])) for image in IMAGES[1:]]
    entry = sifid(FEATURES, source(IMAGES[1:]), source(IMAGES[:1]), None, 0)["sifid-5"]
    assert entry["value"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert entry["std"] == pytest.approx(np.std(expected), rel=1e-4)
    assert (entry["num_generated"], entry["num_real"]) == (3, 1)


def test_several_images_are_compared_one_by_one_and_equal_ones_are_at_zero() -> None:
    entry = sifid(FEATURES, source(IMAGES), source(IMAGES), source(IMAGES[::-1]), 0)["sifid-5"]
    assert entry["value"] < 1e-9 < entry["autoencoder_floor"]


def test_images_without_partners_are_refused() -> None:
    check_pairs(4, 4)
    check_pairs(4, 1)
    with pytest.raises(InputError, match="there are 2 real images") as raised:
        check_pairs(4, 2)
    assert "or 4 in the same order" in raised.value.fix


def test_places_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(CorruptError, match="not finite"):
        places(lambda images: images * float("nan"), IMAGES[0], CPU)


def test_offline_places_are_those_of_the_second_layer() -> None:
    offline = load_features("offline", None, CPU)
    assert places(offline.maps["sifid-offline"], np.zeros((3, 40, 52), np.uint8), CPU).shape == (18 * 24, 24)


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
