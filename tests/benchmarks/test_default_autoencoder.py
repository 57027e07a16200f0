"""The data of the default autoencoder are cut the same everywhere, and its similarity measure is the usual one."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import default_autoencoder as script
from benchmarks import default_measures
from benchmarks.default_measures import ssim
from data.images import open_images
from stage1_autoencoder import default
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.train import train


def jpegs(count: int, seed: int) -> list[tuple[str, bytes]]:
    random, files = np.random.default_rng(seed), []
    for index in range(count):
        content = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(content, "JPEG")
        files.append((f"{index:06d}.jpg", content.getvalue()))
    return files


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources and one of packages, both small."""
    monkeypatch.setattr(script, "SCENES", 10)
    monkeypatch.setattr(script, "SCENES_SIZE", 16)
    (tmp_path / "data").mkdir()
    script.write_tar(tmp_path / "data" / "flowers256.tar", jpegs(20, 0))
    script.write_tar(tmp_path / "data" / "photos1024.tar", jpegs(10, 1))
    for folder, names in (("skimage/data", script.PACKAGED[:-2]), ("sklearn/datasets/images", script.PACKAGED[-2:])):
        (tmp_path / "site" / folder).mkdir(parents=True)
        for index, name in enumerate(names):
            Image.new("RGB", (16, 16), (17 * index, len(folder), 0)).save(tmp_path / "site" / folder / name)
    return tmp_path


def test_shards_are_the_same_twice_and_keep_held_out_pictures_apart(inputs: Path) -> None:
    for out in ("one", "two"):
        script.prepare(inputs / "data", inputs / "site", inputs / out)
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (inputs / "one", inputs / "two"))
    assert one == two
    assert sum(path.suffix == ".tar" for path in one) == 8
    for source, repeats in script.REPEATS.items():
        pixels = [
            [images.image(index).tobytes() for index in range(len(images))]
            for images in (open_images(inputs / "one" / part / f"{source}.tar") for part in ("train", "held-out"))
        ]
        assert not set(pixels[0]) & set(pixels[1])
        assert len(pixels[0]) == repeats * len(set(pixels[0]))
        assert len(pixels[1]) == max(1, round(0.1 * (len(set(pixels[0])) + len(pixels[1]))))


def test_a_run_becomes_the_default(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(default, "WEIGHTS", tmp_path / "weights")
    script.prepare(inputs / "data", inputs / "site", tmp_path / "out")
    photo = io.BytesIO()
    Image.new("RGB", (256, 256), (90, 120, 150)).save(photo, "PNG")
    script.write_tar(tmp_path / "out/held-out/photos.tar", [("a.png", photo.getvalue())])
    run = tmp_path / "run"
    train(TrainAEConfig(data=("scenes:12@32",), out=run, size=32, width=4, kimg=0.016, snapshot_kimg=1.0, threads=1))
    script.export(tmp_path / "out", run)
    assert f"{2 * sum(p.numel() for p in Autoencoder(width=4).parameters()) / 1e6:.2f} MB" in capsys.readouterr().out
    trained, packaged = Autoencoder.load(run).state_dict(), Autoencoder.load("default").state_dict()
    for name, tensor in trained.items():
        torch.testing.assert_close(packaged[name], tensor, rtol=1e-3, atol=1e-6)
    about = json.loads((tmp_path / "weights/factor4/config.json").read_text())
    assert (about["nimg"], about["recipe"]["seed"]) == (16, 0)
    assert str(tmp_path) not in json.dumps(about)


def test_similarity_is_the_formula_at_every_place() -> None:
    random = np.random.default_rng(0)
    image = np.cumsum(random.normal(size=(3, 13, 14)), axis=-1).clip(-4, 4) / 4
    other = (image + random.normal(scale=0.2, size=image.shape)).clip(-1, 1)
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for channel, top, left in np.ndindex(3, 3, 4):
        x, y = (whole[channel, top : top + 11, left : left + 11] for whole in (image, other))
        x_mean, y_mean = (weights * x).sum(), (weights * y).sum()
        x_variance, y_variance = (weights * (x - x_mean) ** 2).sum(), (weights * (y - y_mean) ** 2).sum()
        covariance = (weights * (x - x_mean) * (y - y_mean)).sum()
        c1, c2 = 0.02**2, 0.06**2  # (0.01 L)^2 and (0.03 L)^2 of the paper, for a range L of 2
        contrast = (2 * covariance + c2) / (x_variance + y_variance + c2)
        found.append((2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1) * contrast)
    measured = ssim(torch.from_numpy(image)[None], torch.from_numpy(other)[None])
    np.testing.assert_allclose(measured, [np.mean(found)], rtol=1e-9)


def test_every_table_is_printed(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(default_measures, "SAMPLE", 2)
    monkeypatch.setattr(default_measures, "encode_cost", lambda autoencoder: None)
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        Image.effect_noise((256, 260), 40 + index).convert("RGB").save(tmp_path / "pictures" / f"{index}.png")
    sets = dict.fromkeys(script.REPEATS, open_images(tmp_path / "pictures"))
    monkeypatch.setattr(script, "held_out_sets", lambda out: sets)
    run = tmp_path / "run"
    train(TrainAEConfig(data=("scenes:12@32",), out=run, size=32, width=4, kimg=0.016, snapshot_kimg=1.0, threads=1))
    script.measure(tmp_path, run, compared=[run])
    printed = capsys.readouterr().out
    for words in (
        "flowers: error",
        "| run |",
        "dead channels:",
        "| and each channel with its sign |",
        "16-bit grey",
    ):
        assert words in printed
    assert "nan" not in printed
