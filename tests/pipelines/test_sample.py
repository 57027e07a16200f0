"""`codegan sample` replaces what it drew before, and nothing else."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from data.errors import InputError, LockedError, UsageError
from data.files.atomic import lock
from data.images import open_image, open_images, save_png, to_array
from pipelines.cli import run
from pipelines.launch import launch
from pipelines.sample import load_generator
from stage1_autoencoder import tiles
from tests.tiny_variants import TINY


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_another_draw_takes_the_place_of_the_last_one(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    run(["sample", "--run", str(trained_run), "--out", str(out), "--num", "3"])
    assert names(out) == ["000000.png", "000001.png", "000002.png", "grid.png"]
    first = (out / "000000.png").read_bytes()
    (out / "mine.png").write_bytes(first)
    run(["sample", "--run", str(trained_run), "--out", str(out), "--num", "2", "--seed", "7"])
    assert names(out) == ["000000.png", "000001.png", "grid.png", "mine.png"]
    assert (out / "000000.png").read_bytes() != first
    (out / "000002.png").write_bytes(first)  # the name is free again
    with pytest.raises(UsageError, match=r"000002\.png: is there already"):
        run(["sample", "--run", str(trained_run), "--out", str(out), "--num", "3"])
    assert names(out) == ["000000.png", "000001.png", "000002.png", "grid.png", "mine.png"]


def test_large_pictures_are_decoded_one_by_one_and_fewer_of_them_share_a_grid(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator(trained_run)
    z = generator.noise([0, 1, 2])
    points = [(z[[number]], z[[number]], 0.0) for number in range(3)]
    counts: list[int] = []
    generator.autoencoder.decoder.register_forward_hook(lambda _, given, __: counts.append(len(given[0])))
    together = generator.between(points, 0)
    monkeypatch.setattr(tiles, "WHOLE", 32)
    monkeypatch.setattr(tiles, "TILE", 32)
    assert np.abs(generator.between(points, 0).astype(int) - together).max() <= 1
    assert counts == [3, *[1] * 12]  # four tiles for each
    monkeypatch.setattr("pipelines.sample.GRID_PIXELS", 2 * 64 * 64)
    run(["sample", "--run", str(trained_run), "--out", str(tmp_path), "--num", "3"])
    assert open_image(tmp_path / "grid.png").shape == (3, 64, 2 * 64 + 2)


@pytest.mark.parametrize(("kind", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp")])
def test_other_kinds_of_files_take_the_place_of_the_last_ones(
    trained_run: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    out = tmp_path / "samples"
    sample = ["sample", "--run", str(trained_run), "--out", str(out), "--num", "2"]
    run(sample)
    as_png = np.asarray(Image.open(out / "000001.png")).astype(float)
    run([*sample, "--format", kind])
    assert sorted(path.name for path in out.glob("[!.]*")) == [f"000000{suffix}", f"000001{suffix}", "grid.png"]
    assert np.abs(np.asarray(Image.open(out / f"000001{suffix}")) - as_png).mean() < 12
    run(sample)
    assert names(out) == ["000000.png", "000001.png", "grid.png"] == sorted(path.name for path in out.glob("[!.]*"))


def test_archives_hold_the_same_pictures(trained_run: Path, tmp_path: Path) -> None:
    sample = ["sample", "--run", str(trained_run), "--num", "70"]
    for out in ("folder", "all.tar", "all.zarr"):
        run([*sample, "--out", str(tmp_path / out)])
    array = zarr.open_array(tmp_path / "all.zarr", mode="r")
    in_tar = open_images(str(tmp_path / "all.tar"))
    assert array.shape == (70, 3, *in_tar.sizes[0])
    assert len(in_tar) == 70
    for number in (0, 63, 64, 69):
        drawn = to_array(Image.open(tmp_path / "folder" / f"{number:06d}.png"))
        np.testing.assert_array_equal(array[number], drawn)
        np.testing.assert_array_equal(in_tar.image(number), drawn)


@pytest.mark.parametrize("name", ["all.tar", "all.zarr"])
def test_an_archive_replaces_an_earlier_one_and_nothing_else(trained_run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    for num in ("3", "2"):
        run(["sample", "--run", str(trained_run), "--out", str(out), "--num", num])
    count = len(open_images(str(out))) if name == "all.tar" else zarr.open_array(out, mode="r").shape[0]
    assert count == 2
    foreign = tmp_path / f"mine{out.suffix}"
    foreign.write_bytes(b"something else")
    with pytest.raises(UsageError, match="codegan did not put it there"):
        run(["sample", "--run", str(trained_run), "--out", str(foreign), "--num", "2"])
    assert foreign.read_bytes() == b"something else"


@pytest.mark.parametrize("verb", ["sample", "walk"])
def test_two_at_once_do_not_write_into_one_folder(trained_run: Path, tmp_path: Path, verb: str) -> None:
    with lock(tmp_path / "samples"), pytest.raises(LockedError):
        run([verb, "--run", str(trained_run), "--out", str(tmp_path / "samples")])


@pytest.mark.parametrize("out", ["samples", "samples.tar"])
def test_samples_are_not_taken_for_pictures_without_a_word(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    """Below a folder of pictures they are not read at all."""
    drawn, store = str(tmp_path / out), str(tmp_path / "store")
    run(["sample", "--run", str(trained_run), "--out", drawn, "--num", "2"])
    encode = ["encode", "--autoencoder", "pixels", "--size", "16", "--out", store]
    if out == "samples":
        Image.new("RGB", (16, 16)).save(tmp_path / "mine.png")
        run([*encode, "--data", str(tmp_path)])
        assert "1 latents" in capsys.readouterr().out
        shutil.rmtree(store)
    run([*encode, "--data", drawn])
    assert f"warning: {drawn}: holds samples that codegan drew" in capsys.readouterr().err


def test_processes_share_the_work(trained_run: Path, tmp_path: Path) -> None:
    sample = ["sample", "--run", str(trained_run), "--num", "5"]
    run([*sample, "--out", str(tmp_path / "one")])
    launch([sys.executable, "-m", "pipelines", *sample, "--out", str(tmp_path / "two")], 2)
    assert names(tmp_path / "one") == names(tmp_path / "two")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["000001.png", "grid.png", "holiday.png"])
@pytest.mark.parametrize("verb", [["sample", "--num", "2"], ["walk", "--seeds", "0,1", "--frames", "2"]], ids=" ".join)
def test_pictures_of_somebody_else_are_not_touched(
    trained_run: Path, tmp_path: Path, verb: list[str], name: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UsageError, match="codegan did not put it there"):
        run([*verb, "--run", str(trained_run), "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_file_is_no_folder_for_samples(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        run(["sample", "--run", str(trained_run), "--out", str(tmp_path / "file"), "--num", "2"])


def test_a_picture_tells_a_generator_what_to_draw(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(tmp_path / "mine.png", open_images("scenes:1@24").image(0))
    run(["encode", "--data", "scenes:6", "--autoencoder", "pixels", "--out", "store", "--size", "16"])
    model = [f"--model.{name.replace('_', '-')}={value}" for name, value in TINY["lrm"].items()]
    run([*["train", "lrm", "--store", "store", "--out", "run", "--kimg", "0.004", "--batch-size", "4"], *model])
    run(["sample", "--run", "run", "--out", "plain", "--num", "2"])
    run(["sample", "--run", "run", "--out", "liked", "--num", "2", "--like", "mine.png"])
    pictures = [open_images(str(tmp_path / name)).image(index) for name in ("plain", "liked") for index in (0, 1)]
    assert len({picture.tobytes() for picture in pictures}) == 4
    picture = open_image("mine.png", load_generator("run").image_size)
    np.testing.assert_array_equal(load_generator("run").like(picture)([1])[0], pictures[3])
    with pytest.raises(UsageError, match="not given pictures"):
        run(["sample", "--run", str(trained_run), "--out", "other", "--like", "mine.png"])
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match=r"missing\.png: cannot be read"):
        run(["sample", "--run", "run", "--out", "liked", "--like", "missing.png"])
    with pytest.raises(UsageError, match="no picture to describe"):
        run(["sample", "--run", "run", "--out", "liked", "--vgg-weights", "vgg16.pth"])
