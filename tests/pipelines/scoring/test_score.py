"""The verb reports each distance under its true name, with floors and counts, and refuses what it cannot compare."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.errors import CorruptError, DivergedError, InputError, UsageError
from data.images import open_images, save_png, to_uint8
from pipelines.scoring import coverage, sets
from pipelines.scoring import score as score_module
from pipelines.scoring.config import Resize, ScoreConfig
from pipelines.scoring.metrics import frechet_distance, kernel_distance
from pipelines.scoring.networks import FeatureNetwork, load_features
from pipelines.scoring.score import compute_scores, real_features, score_generator
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.configs.choices import FeatureName

type Images = NDArray[np.uint8]

SCENES = ("scenes:24",)
SIZE = 32


class FakeAutoencoder(nn.Module):
    """Loses what rounding to `levels` steps loses."""

    def __init__(self, levels: float = 4.0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.device = self.levels.device
        self.fingerprint = f"rounds to {levels}"

    def encode(self, images: Tensor) -> Tensor:
        return (images * self.levels).round() / self.levels

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class FakeGenerator:
    """Image i is noise drawn from seed i."""

    image_size = SIZE

    def __init__(self, nimg: int = 4000) -> None:
        self.nimg = nimg
        self.autoencoder = FakeAutoencoder()
        self.described: dict[str, Any] = {}
        self.seeds: list[int] = []

    def drawing(self, class_name: str | None, truncation: float) -> "FakeGenerator":
        return self

    def __call__(self, seeds: list[int]) -> Images:
        self.seeds += seeds
        return np.stack([np.random.default_rng(s).integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8) for s in seeds])


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    made, best = FakeGenerator(), FakeGenerator(nimg=3000)
    monkeypatch.setattr(sets, "load_generator", lambda run, of_best, hosts: best if of_best else made)
    return made


def configuration(**changes: Any) -> ScoreConfig:
    defaults: dict[str, Any] = {"data": SCENES, "features": "offline", "batch_size": 10}
    return ScoreConfig(**defaults | changes)


def scores_of(config: ScoreConfig) -> dict[str, Any]:
    scores, _ = compute_scores(config)
    return scores


def folder_of(path: Path, images: Iterable[Images]) -> str:
    path.mkdir()
    for i, image in enumerate(images):
        save_png(path / f"{i:06d}.png", image)
    return str(path)


def test_a_run_is_scored_against_all_real_images_beside_both_floors(
    generator: FakeGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, wrote = compute_scores(configuration(run=tmp_path, num=30))
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
        assert entry["interval"][0] < entry["value"] < entry["interval"][1]
    assert "fid" not in result
    assert "kid" not in result
    assert generator.seeds[:30] == list(range(30))
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(result))
    assert (result["num"], result["features"], result["reference"]) == (30, "offline", SCENES[0])
    near = json.loads((tmp_path / "neighbours.json").read_text())
    assert result["nimg"] == near["nimg"] == 4000
    assert {path.name for path in wrote} == {"scores.json", "neighbours.png", "neighbours.json"}
    assert all(path.is_file() and path.parent == tmp_path for path in wrote)
    assert "kd-offline is the one to trust" in capsys.readouterr().out


def test_mirrored_copies_are_noticed_where_a_generator_was_shown_mirrored_pictures(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores compare with the pictures as they are; twice, so that features also come from the cache."""
    mirrored = np.concatenate(list(open_images(SCENES, size=SIZE).batches(24)))[..., ::-1]
    monkeypatch.setattr(FakeGenerator, "__call__", lambda self, seeds: mirrored[[seed % 24 for seed in seeds]])
    values = set()
    for described, is_shown in (({}, False), ({"mirror": True}, True), ({"flip": True, "mirror": False}, True)):
        generator.described = described
        values.add(scores_of(configuration(run=tmp_path, num=24))["kd-offline"]["value"])
        near = json.loads((tmp_path / "neighbours.json").read_text())
        assert near["mirrored_too"] == is_shown
        assert (near["generated_to_real"]["100"] < 0.01 * near["real_to_real"]["0"]) == is_shown
    assert len(values) == 1


def test_scores_depend_on_the_inputs_and_the_seed_alone(generator: FakeGenerator, tmp_path: Path) -> None:
    np.random.seed(1)
    first = scores_of(configuration(run=tmp_path, num=16))
    np.random.seed(2)
    other_batches = scores_of(configuration(run=tmp_path, num=16, batch_size=5))
    for name in ("fd-offline", "kd-offline"):
        for number in ("value", "autoencoder_floor", "real_floor"):
            assert first[name][number] == pytest.approx(other_batches[name][number], rel=1e-3, abs=1e-5)
    other_seeds = scores_of(configuration(run=tmp_path, num=16, seed=100))
    assert first["kd-offline"]["value"] != other_seeds["kd-offline"]["value"]


def test_num_limits_both_sides_and_defaults_to_at_least_2048_generated(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_MIN_DEFAULT", 40)
    assert scores_of(configuration(run=tmp_path, num=8))["kd-offline"]["num_real"] == 8
    entry = scores_of(configuration(run=tmp_path))["kd-offline"]
    assert (entry["num_generated"], entry["num_real"]) == (40, 24)


def test_two_sets_of_images_need_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = open_images(("scenes:12",), size=SIZE)
    given = folder_of(tmp_path / "given", [scenes.image(i) for i in range(12)])
    save_png(tmp_path / "given/grid.png", np.zeros((3, 4 * SIZE, 4 * SIZE), np.uint8))  # what `sample` adds
    result = scores_of(configuration(data=("scenes:12",), images=given, metrics=("fid",)))
    entry = result["fd-offline"]
    assert (entry["num_generated"], entry["num_real"], entry["autoencoder_floor"]) == (12, 12, None)
    assert entry["value"] < 1e-6  # the same pictures, and the grid is no picture
    assert result["size"] == SIZE
    assert "kd-offline" not in result
    assert "wrote" not in capsys.readouterr().out
    scores_of(configuration(data=("scenes:12",), images=given, size=16, out=tmp_path / "new/scores.json"))
    assert json.loads((tmp_path / "new/scores.json").read_text())["size"] == 16


def colour_features(name: FeatureName, weights: Path | None, device: torch.device, resize: Resize) -> FeatureNetwork:
    """A network that sees mean colours and two classes, under any name."""

    def network(images: Tensor) -> Tensor:
        colours = images.mean(dim=(2, 3))
        return torch.cat([colours, (colours[:, :2] / 10).softmax(dim=1)], dim=1)

    return FeatureNetwork(name, 3, 32, network, device, None, resize, {"sifid-192": lambda images: images})


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "load_features", colour_features)


@pytest.mark.usefixtures("colours", "generator")
def test_only_inception_scores_are_called_fid_and_below_2048_images_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = configuration(run=tmp_path, num=16, features="inception")
    result = scores_of(few)
    assert "kid" in result
    assert "fid" not in result
    assert "fid: needs 2,048 images of each kind, there are 16 and 16; it is left out" in capsys.readouterr().out
    with pytest.raises(UsageError, match="needs 2,048") as raised:
        scores_of(replace(few, metrics=("fid", "kid")))
    assert "--force-fid" in raised.value.fix
    forced = scores_of(replace(few, metrics=("fid", "kid"), force_fid=True))
    assert list(forced)[:2] == ["kid", "fid"]


@pytest.mark.usefixtures("colours", "generator")
def test_every_metric_of_features_has_its_value_its_interval_and_its_floors(tmp_path: Path) -> None:
    metrics = ("is", "precision-recall", "density-coverage")
    result = scores_of(configuration(run=tmp_path, num=24, features="squeezenet", metrics=metrics))
    names = [f"{name}-squeezenet" for name in ("is", "precision", "recall", "density", "coverage")]
    assert list(result)[:5] == names
    for name in names:
        entry = result[name]
        low, high = entry["interval"]
        assert low <= entry["value"] <= high
        assert {"autoencoder_floor", "real_floor", "num_generated", "num_real"} < entry.keys()
    assert 0 <= result["precision-squeezenet"]["value"] <= result["precision-squeezenet"]["autoencoder_floor"] <= 1
    assert result["is-squeezenet"]["splits"] == 10


def test_features_that_the_critic_learned_through_are_said_to_flatter(
    generator: FakeGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_weights(*args: Any) -> FeatureNetwork:
        return replace(colour_features(*args), weights_sha256="a" * 64)

    def said(config: ScoreConfig) -> list[str]:
        scores_of(config)
        return [line for line in capsys.readouterr().err.splitlines() if "flatter" in line or "another network" in line]

    monkeypatch.setattr(score_module, "load_features", with_weights)
    config = configuration(run=tmp_path, num=10, features="squeezenet", metrics=("kid",))
    assert said(config) == []  # of an earlier version, which did not write down what was frozen
    generator.described = {"frozen": {"backbone": "b" * 64}}
    assert said(config) == []
    generator.described = {"frozen": {"other": "b" * 64, "backbone": "a" * 64}}
    what, fix = said(config)  # once
    assert what.startswith("warning: --features squeezenet: the critic learned through this network")
    assert fix == "  try: --features of another network, such as offline"
    monkeypatch.setattr(score_module, "load_features", colour_features)
    assert said(config) == []  # a network without weights is nobody's backbone
    given = folder_of(tmp_path / "given", next(iter(open_images(SCENES, size=SIZE).batches(24))))
    assert said(replace(config, run=None, images=given)) == []


@pytest.mark.usefixtures("generator")
def test_a_scaled_down_protocol_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(score_module, "load_features", colour_features)
    result = scores_of(configuration(run=tmp_path, num=12, features="inception", protocol="giu"))
    assert {"is", "kid"} < result.keys()
    assert result["is"]["num_real"] == 24  # all of them, whatever --num
    assert result["protocol_departures"] == [
        "at 12 instead of 50,000",
        "without fid",
        "resized as clean-fid does",
        "the newest snapshot instead of the best of ten",
    ]
    assert "protocol giu, but at 12 instead of 50,000, without fid, resized" in capsys.readouterr().out
    single = scores_of(configuration(run=tmp_path, data=("scenes:1",), features="inception", protocol="single-image"))
    assert single["protocol_departures"] == []
    assert single["sifid-192"]["num_generated"] == 10


def test_mode_coverage_is_reported_by_factor_with_the_accuracy_behind_it(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "_TRAINING", 64)
    monkeypatch.setattr(coverage, "_HELD_OUT", 16)
    result = scores_of(configuration(run=tmp_path, num=24, metrics=("modes",)))
    assert 0 <= result["modes"]["value"] <= 1
    sky = result["modes"]["factors"]["sky"]
    assert f"held-out scenes: sky {sky['accuracy']:.0%}, ground" in capsys.readouterr().out
    assert {"total_variation", "real_floor", "autoencoder_floor", "accuracy", "values", "values_covered"} == sky.keys()
    assert not (tmp_path / "neighbours.png").exists()  # no features were needed
    with pytest.raises(UsageError, match="no known factors"):
        scores_of(configuration(data=("photos/",), run=tmp_path, metrics=("modes",)))


def stored(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_second_measurement_adds_its_scores_to_those_of_the_same_settings(
    generator: FakeGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = configuration(run=tmp_path, num=16, metrics=("kid",))
    kid = scores_of(one)["kd-offline"]
    result = scores_of(replace(one, metrics=("precision-recall",)))
    assert json.loads(json.dumps(result)) == stored(tmp_path / "scores.json")
    assert result["kd-offline"] == json.loads(json.dumps(kid))
    assert result["metrics"] == ["precision-recall", "kid"]
    printed = capsys.readouterr().out
    assert "kd-offline: scored before, with the same settings" in printed
    assert "replaces" not in printed


@pytest.mark.parametrize(
    "changes",
    [{"num": 12}, {"seed": 1}, {"resize": "legacy_pytorch"}, {"data": ("scenes:25",)}, {"nimg": 8000}],
)
def test_scores_of_other_settings_are_replaced_and_it_is_said(
    changes: dict[str, Any], generator: FakeGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = configuration(run=tmp_path, num=16, metrics=("kid",))
    scores_of(one)
    generator.nimg = changes.get("nimg", generator.nimg)
    flags = {name: value for name, value in changes.items() if name != "nimg"}
    assert "kd-offline" not in scores_of(replace(one, metrics=("fid",), **flags))
    changed = "reference_fingerprint" if "data" in changes else next(iter(changes))
    assert (
        f"scores.json: replaces kd-offline, scored with another {changed}; --out keeps both" in capsys.readouterr().out
    )
    assert "kd-offline" not in stored(tmp_path / "scores.json")


@pytest.mark.usefixtures("colours", "generator")
def test_a_protocol_s_scores_and_those_of_the_best_weights_are_kept_apart(tmp_path: Path) -> None:
    plain = configuration(run=tmp_path, num=16, features="inception")
    scores_of(plain)
    best = scores_of(replace(plain, best=True))
    protocol = scores_of(replace(plain, protocol="giu"))
    added = scores_of(replace(plain, protocol="giu", metrics=("fid",), force_fid=True))
    assert {"fid", "is"} < added.keys()
    assert "without fid" in protocol["protocol_departures"]
    assert not any("without" in departure for departure in added["protocol_departures"])
    of_best = scores_of(replace(plain, protocol="giu", best=True))
    assert "the best by kid snapshot instead of the best of ten" in of_best["protocol_departures"]
    written = {path.name: stored(path) for path in tmp_path.glob("scores*.json")}
    assert written.keys() == {"scores.json", "scores-best.json", "scores-giu.json", "scores-giu-best.json"}
    assert {name: (found["nimg"], found["best"]) for name, found in written.items()} == {
        "scores.json": (4000, False),
        "scores-best.json": (3000, True),
        "scores-giu.json": (4000, False),
        "scores-giu-best.json": (3000, True),
    }
    assert written["scores-best.json"]["kid"]["value"] == best["kid"]["value"]
    assert stored(tmp_path / "neighbours.json")["nimg"] == 4000
    assert stored(tmp_path / "neighbours-best.json")["nimg"] == 3000


def test_where_nothing_can_be_written_nothing_is_measured(generator: FakeGenerator, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for out, problem in ((tmp_path, "is a folder"), (tmp_path / "file/scores.json", "cannot be written")):
        with pytest.raises(UsageError, match=problem):
            scores_of(configuration(run=tmp_path, num=8, out=out))
    for content in ("[1]", "{"):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(CorruptError, match=r"scores\.json") as raised:
            scores_of(configuration(run=tmp_path, num=8))
        assert "delete this file" in raised.value.fix
        assert (tmp_path / "scores.json").read_text() == content
    assert generator.seeds == []


class Brightness:
    """Stands for LPIPS: how much lighter one image of a pair is."""

    name = "brightness"

    def __init__(self, vgg_weights: Path | None, device: torch.device) -> None:
        pass

    def prepare(self, images_u8: Images) -> Tensor:
        return torch.from_numpy(images_u8).float()

    def extract(self, prepared: Tensor) -> NDArray[np.float32]:
        means = prepared.mean(dim=(1, 2, 3))
        return (means[0 : len(means) // 2 * 2 : 2] - means[1::2]).abs()[:, None].numpy()


def test_pairs_are_of_random_images_and_one_image_is_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "LpipsPairs", Brightness)
    flat = [np.full((3, 16, 16), level, np.uint8) for level in [0] * 20 + [100] * 20]  # sorted, as files often are
    given = folder_of(tmp_path / "given", flat)
    alone = folder_of(tmp_path / "alone", flat[:1])
    entry = scores_of(configuration(images=given, data=(given,), metrics=("lpips-diversity",)))["lpips-diversity"]
    for name in ("value", "real_floor"):
        assert 20 < entry[name] < 80
    out = tmp_path / "scores.json"
    one_real = configuration(images=given, data=(alone,), metrics=("lpips-diversity",), out=out)
    assert scores_of(one_real)["lpips-diversity"]["real_floor"] is None
    assert stored(out)["lpips-diversity"]["num_real"] == 0
    with pytest.raises(InputError, match="too few for a pair"):
        scores_of(replace(one_real, images=alone, data=(given,)))


@pytest.mark.usefixtures("generator")
def test_sifid_compares_image_by_image_in_the_order_of_the_files(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (3, 40, 44 + i)).astype(np.uint8) for i in range(9)]
    given, real = (folder_of(tmp_path / name, images) for name in ("given", "real"))
    save_png(tmp_path / "given/grid.png", images[0])
    config = configuration(images=given, data=(real,), metrics=("sifid",), num=3)
    for size in (None, 40):
        entry = scores_of(replace(config, size=size))["sifid-offline"]
        assert entry["value"] < 1e-9
        assert (entry["num_generated"], entry["num_real"]) == (3, 3)
    (tmp_path / "real/000008.png").unlink()
    with pytest.raises(InputError, match="there are 8 real images"):
        scores_of(config)
    with pytest.raises(InputError, match="there are 8 real images") as raised:
        scores_of(configuration(run=tmp_path, data=(real,), metrics=("sifid",), num=8))
    assert "the one real image of the training" in raised.value.fix


def test_scoring_a_run_writes_nothing_but_its_files_and_the_cache(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No generated image ever touches the disk but on the sheet of neighbours."""
    run, home, temporary, cache = (tmp_path / name for name in ("run", "home", "temporary", "cache"))
    shutil.copytree(trained_run / "weights", run / "weights")
    home.mkdir()
    temporary.mkdir()
    for name, folder in (("HOME", home), ("XDG_CACHE_HOME", home), ("TMPDIR", temporary), ("CODEGAN_CACHE", cache)):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    installed = Path(torch.__file__).parents[1]
    watched = files_of(tmp_path), files_of(installed)
    opened: list[str] = []
    with opened_for_writing(opened):
        scores_of(configuration(run=run, num=8, data=("scenes:8",)))
    new = {path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path) - watched[0]}
    results = {"run/scores.json", "run/neighbours.png", "run/neighbours.json"}
    assert {name for name in new if not name.startswith("cache/features/")} == results
    assert {Path(name).suffix for name in new - results} == {".safetensors"}
    assert files_of(installed) == watched[1]
    partials = {Path(path).name for path in opened if not Path(path).is_dir() and "__pycache__" not in path}
    assert {name.split("-", 2)[-1] for name in partials} == {Path(name).name for name in new}


def files_of(folder: Path) -> set[Path]:
    found = os.walk(folder)
    return {Path(parent, name) for parent, _, names in found for name in names if "__pycache__" not in parent}


@contextmanager
def opened_for_writing(paths: list[str]) -> Iterator[None]:
    """Collects what Python opens to write or makes anew; the hook itself cannot be taken away again."""
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | os.PathLike):
            flags = arguments[2] or 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                paths.append(os.fspath(arguments[0]))

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watching = False


def test_features_of_real_images_are_computed_once_and_again_for_other_data(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted: list[int] = []
    original = FeatureNetwork.extract

    def extract(self: FeatureNetwork, prepared: Tensor) -> Any:
        extracted.append(len(prepared))
        return original(self, prepared)

    monkeypatch.setattr(FeatureNetwork, "extract", extract)
    images = open_images(("scenes:8",), size=SIZE)
    folder = Path(folder_of(tmp_path / "data", [images.image(i) for i in range(8)]))
    one = configuration(data=(str(folder),), run=tmp_path / "run", num=8, cache=tmp_path / "cache", metrics=("kid",))
    first = scores_of(one)
    assert sum(extracted) == 24  # real, decoded and generated
    assert scores_of(one)["kd-offline"] == first["kd-offline"]
    assert sum(extracted) == 24 + 8
    scores_of(replace(one, resize="legacy_pytorch"))
    assert sum(extracted) == 32 + 24
    save_png(folder / "000003.png", np.zeros((3, SIZE, SIZE), np.uint8))
    changed = scores_of(one)
    assert sum(extracted) == 56 + 24
    assert changed["kd-offline"]["value"] != first["kd-offline"]["value"]
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    assert scores_of(one)["kd-offline"] == changed["kd-offline"]
    assert sum(extracted) == 80 + 24
    assert scores_of(replace(one, cache=None, no_cache=True))["kd-offline"] == changed["kd-offline"]
    assert sum(extracted) == 104 + 24


def test_a_trainer_gets_the_numbers_of_the_verb(generator: FakeGenerator, tmp_path: Path) -> None:
    accelerator = make_accelerator()
    offline = load_features("offline", None, accelerator.device)
    real = real_features(open_images(SCENES, size=SIZE), 16, offline, accelerator)
    live: Any = generator
    values = score_generator(live, offline, real, 16, accelerator)
    result = scores_of(configuration(run=tmp_path, num=16, batch_size=16))
    assert values == {name: pytest.approx(result[name]["value"], rel=1e-6) for name in ("kd-offline", "fd-offline")}


def test_given_images_of_mixed_sizes_are_fitted_to_their_median_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = folder_of(tmp_path / "given", [np.full((3, side, side + 8), side, np.uint8) for side in (16, 24, 24, 40)])
    assert scores_of(configuration(images=given, data=("scenes:4",), metrics=("kid",)))["size"] == 24
    assert "16 to 40 pixels on the shorter side; all are cropped and fitted to 24 x 24" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run": "run", "images": "images"},
        {"run": "run", "size": 64},
        {"images": "images", "num": 3},
        {"images": "images", "batch_size": 0},
        {"images": "images", "seed": -1},
        {"images": "images", "metrics": ("is",)},
        {"images": "images", "metrics": ("sifid",), "features": "squeezenet"},
        {"images": "images", "cache": "cache", "no_cache": True},
        {"images": "images", "best": True},
        {"images": "images", "metrics": ("lpips-diversity",), "num": 1},
    ],
)
def test_flags_that_do_not_go_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        scores_of(configuration(**changes))


def test_sets_too_small_to_compare_are_refused(tmp_path: Path) -> None:
    given = folder_of(tmp_path / "given", np.zeros((3, 3, SIZE, SIZE), np.uint8))
    with pytest.raises(InputError, match="has 3 images"):
        scores_of(configuration(images=given))


def test_values_that_are_not_finite_are_errors_not_scores(
    generator: FakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: FeatureName, weights: Path | None, device: torch.device, resize: Resize) -> FeatureNetwork:
        return FeatureNetwork(name, 3, 32, lambda images: images.mean(dim=(2, 3)) * float("nan"), device)

    generator.autoencoder = FakeAutoencoder(levels=float("nan"))
    with pytest.raises(DivergedError, match="autoencoder"):
        scores_of(configuration(run=tmp_path, num=8, no_cache=True))
    monkeypatch.setattr(score_module, "load_features", broken)
    with pytest.raises(CorruptError, match="not finite"):
        scores_of(configuration(run=tmp_path, num=8, no_cache=True))
    assert not (tmp_path / "scores.json").exists()
