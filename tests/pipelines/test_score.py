"""The verb reports each distance under its true name, with floors and counts, and refuses what it cannot compare."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.errors import CorruptError, DivergedError, InputError, UsageError
from data.images import open_images, save_png, to_uint8
from pipelines import score as score_module
from pipelines.features import FeatureName, Features, load_features
from pipelines.metrics import frechet_distance, kernel_distance
from pipelines.score import ScoreConfig, score

type Images = NDArray[np.uint8]

SCENES = ("scenes:24",)
SIZE = 32


class FakeAutoencoder(nn.Module):
    """Loses what rounding to `levels` steps loses."""

    def __init__(self, levels: float = 4.0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.device = self.levels.device

    def encode(self, images: Tensor) -> Tensor:
        return (images * self.levels).round() / self.levels

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class FakeGenerator:
    """Image i is noise drawn from seed i."""

    image_size = SIZE

    def __init__(self) -> None:
        self.autoencoder = FakeAutoencoder()
        self.seeds: list[int] = []

    def __call__(self, seeds: list[int]) -> Images:
        self.seeds += seeds
        return np.stack([np.random.default_rng(s).integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8) for s in seeds])


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    made = FakeGenerator()
    monkeypatch.setattr(score_module, "load_generator", lambda run: made)
    return made


def configuration(**changes: Any) -> ScoreConfig:
    defaults: dict[str, Any] = {"data": SCENES, "features": "offline", "batch_size": 10}
    return ScoreConfig(**defaults | changes)


def folder_of(path: Path, images: Iterable[Images]) -> str:
    path.mkdir()
    for i, image in enumerate(images):
        save_png(path / f"{i:06d}.png", image)
    return str(path)


def test_a_run_is_scored_against_all_real_images_beside_both_floors(
    generator: FakeGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = score(configuration(run=tmp_path, num=30))
    offline = load_features("offline", None, torch.device("cpu"))
    real_u8 = np.concatenate(list(open_images(SCENES, size=SIZE).batches(24)))
    real, fake = offline(real_u8), offline(FakeGenerator()(list(range(30))))
    quantised = to_uint8((torch.from_numpy(real_u8).float() / 127.5 - 1).mul(4).round() / 4).numpy()
    for name, distance in (("fd-offline", frechet_distance), ("kd-offline", kernel_distance)):
        entry = result[name]
        assert entry["value"] == pytest.approx(distance(fake, real), rel=1e-4)
        assert entry["autoencoder_floor"] == pytest.approx(distance(offline(quantised), real), rel=1e-3, abs=1e-5)
        assert entry["real_floor"] < entry["value"]
        assert (entry["num_generated"], entry["num_real"], entry["num_half"]) == (30, 24, 12)
    assert "fid" not in result
    assert "kid" not in result
    assert generator.seeds == list(range(30))
    assert json.loads((tmp_path / "scores.json").read_text()) == result
    assert (result["num"], result["features"], result["reference"]) == (30, "offline", SCENES[0])
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'scores.json'}\nnext: codegan report --run {tmp_path}" in printed
    assert "kd-offline is the one to trust" in printed


def test_scores_depend_on_the_inputs_and_the_seed_alone(generator: FakeGenerator, tmp_path: Path) -> None:
    np.random.seed(1)
    first = score(configuration(run=tmp_path, num=16))
    np.random.seed(2)
    other_batches = score(configuration(run=tmp_path, num=16, batch_size=5))
    for name in ("fd-offline", "kd-offline"):
        assert first[name] == pytest.approx(other_batches[name], rel=1e-3, abs=1e-5)
    assert first["kd-offline"]["value"] != score(configuration(run=tmp_path, num=16, seed=100))["kd-offline"]["value"]


def test_num_limits_both_sides_and_defaults_to_at_least_2048_generated(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_module, "_MIN_DEFAULT", 40)
    assert score(configuration(run=tmp_path, num=8))["kd-offline"]["num_real"] == 8
    entry = score(configuration(run=tmp_path))["kd-offline"]
    assert (entry["num_generated"], entry["num_real"]) == (40, 24)


def test_two_sets_of_images_need_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = open_images(("scenes:12",), size=SIZE)
    given = folder_of(tmp_path / "given", [scenes.image(i) for i in range(12)])
    save_png(tmp_path / "given/grid.png", np.zeros((3, 4 * SIZE, 4 * SIZE), np.uint8))  # what `sample` adds
    result = score(configuration(data=("scenes:12",), images=given, metrics=("fid",)))
    entry = result["fd-offline"]
    assert (entry["num_generated"], entry["num_real"], entry["autoencoder_floor"]) == (12, 12, None)
    assert entry["value"] < 1e-6  # the same pictures, and the grid is no picture
    assert result["size"] == SIZE
    assert "kd-offline" not in result
    assert "wrote" not in capsys.readouterr().out
    score(configuration(data=("scenes:12",), images=given, size=16, out=tmp_path / "new/scores.json"))
    assert json.loads((tmp_path / "new/scores.json").read_text())["size"] == 16


def test_only_inception_scores_are_called_fid(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inception(name: FeatureName, weights: Path | None, device: torch.device) -> Features:
        return Features("inception", 3, 32, lambda images: images.mean(dim=(2, 3)), device)

    monkeypatch.setattr(score_module, "load_features", inception)
    result = score(configuration(run=tmp_path, num=16, features="inception"))
    assert {"fid", "kid"} < result.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run": "run", "images": "images"},
        {"run": "run", "size": 64},
        {"images": "images", "num": 3},
        {"images": "images", "batch_size": 0},
        {"images": "images", "seed": -1},
    ],
)
def test_flags_that_do_not_go_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        score(configuration(**changes))


def test_sets_too_small_to_compare_are_refused(tmp_path: Path) -> None:
    given = folder_of(tmp_path / "given", np.zeros((3, 3, SIZE, SIZE), np.uint8))
    with pytest.raises(InputError, match="has 3 images"):
        score(configuration(images=given))


def test_values_that_are_not_finite_are_errors_not_scores(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: FeatureName, weights: Path | None, device: torch.device) -> Features:
        return Features(name, 3, 32, lambda images: images.mean(dim=(2, 3)) * float("nan"), device)

    generator.autoencoder = FakeAutoencoder(levels=float("nan"))
    with pytest.raises(DivergedError, match="autoencoder"):
        score(configuration(run=tmp_path, num=8))
    monkeypatch.setattr(score_module, "load_features", broken)
    with pytest.raises(CorruptError, match="not finite"):
        score(configuration(run=tmp_path, num=8))
    assert not (tmp_path / "scores.json").exists()
