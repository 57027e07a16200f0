"""`codegan walk`: films through seeds, in every kind of file, and lists of seeds as they are typed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError, UsageError
from pipelines import walk
from pipelines.cli import run
from pipelines.sample import load_generator
from pipelines.seeds import parse_seeds
from pipelines.walk import film


def test_seeds_are_numbers_and_ranges_in_the_order_given() -> None:
    assert parse_seeds("--seeds", "3,7,12-15") == [3, 7, 12, 13, 14, 15]
    assert parse_seeds("--seeds", " 9 , 0-0,9") == [9, 0, 9]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "-1", "1.5", "0-99999999999", "1;2", "9" * 30])
def test_other_lists_of_seeds_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds("--seeds", text)


def test_a_film_goes_through_its_seeds_at_equal_steps(trained_run: Path) -> None:
    pipe = load_generator(trained_run)
    frames = list(film(pipe, [4, 2, 9], 5))
    ends = [pipe.between([(pipe.noise([seed]), pipe.noise([seed]), 0.0)], seed=4)[0] for seed in (4, 2, 9)]
    for number, expected in ((0, ends[0]), (2, ends[1]), (4, ends[2])):
        assert np.abs(frames[number].astype(int) - expected).max() <= 1  # a batch rounds differently
    np.testing.assert_array_equal(frames[0], pipe([4])[0])
    halfway = pipe.between([(pipe.noise([4]), pipe.noise([2]), 0.5)], seed=4)[0]
    assert np.abs(frames[1].astype(int) - halfway).max() <= 1


def test_a_loop_closes_without_showing_its_first_picture_twice(trained_run: Path) -> None:
    pipe = load_generator(trained_run)
    frames = list(film(pipe, [4, 2], 8, loop=True))
    assert len(frames) == 8
    np.testing.assert_array_equal(frames[0], pipe([4])[0])
    z = pipe.noise([2, 4])
    last = pipe.between([(z[[0]], z[[1]], 0.75)], seed=4)[0]
    assert np.abs(frames[7].astype(int) - last).max() <= 1


@pytest.mark.parametrize(("name", "kind"), [("w.gif", "GIF"), ("w.webp", "WEBP"), ("new/w.png", "PNG")])
def test_one_file_holds_all_frames_and_plays_for_ever(trained_run: Path, tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / name
    words = ["walk", "--run", str(trained_run), "--out", str(out), "--seeds", "0,1", "--frames", "11", "--fps", "10"]
    run(words)
    with Image.open(out) as image:
        assert image.format == kind
        assert image.n_frames == 11  # type: ignore[attr-defined]
        image.load()
        assert image.info["loop"] == 0
        assert image.info["duration"] == pytest.approx(100, abs=1)
        if kind == "PNG":
            image.seek(10)
            last = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            np.testing.assert_array_equal(last, list(film(load_generator(trained_run), [0, 1], 11))[10])
    first = out.read_bytes()
    run(words)
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_folder_gets_the_frames_as_files_and_loses_those_of_a_longer_film(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    for count in (4, 3):
        run(["walk", "--run", str(trained_run), "--out", str(out), "--seeds", "0-2", "--frames", str(count)])
    assert sorted(path.name for path in out.glob("*.png")) == ["000000.png", "000001.png", "000002.png"]
    with Image.open(out / "000001.png") as image:
        frames = list(film(load_generator(trained_run), [0, 1, 2], 3))
        np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), frames[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves pipes open
def test_a_video_has_its_frames(trained_run: Path, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "w.mp4"
    run(["walk", "--run", str(trained_run), "--out", str(out), "--seeds", "0,1", "--frames", "9", "--fps", "12"])
    reader = ffmpeg.read_frames(str(out))
    about = next(reader)
    assert about["fps"] == 12
    shown = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert len(shown) == 9
    expected = next(film(load_generator(trained_run), [0, 1], 9)).transpose(1, 2, 0).ravel()
    assert np.abs(shown[0].astype(int) - expected).mean() < 12  # H.264 halves the colours' resolution


def test_without_the_package_a_video_is_refused_before_anything_is_drawn(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(walk, "open_generator", lambda *_: pytest.fail("drew"))
    with pytest.raises(InputError, match="imageio-ffmpeg"):
        run(["walk", "--run", str(trained_run), "--out", str(tmp_path / "w.mp4")])


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--seeds", "3"], "leads nowhere"),
        (["--seeds", "0,1", "--projected", "p"], "exclude each other"),
        (["--frames", "1"], "--frames"),
        (["--fps", "0"], "--fps"),
        (["--fps", "nan"], "--fps"),
        (["--out", "w.jpg"], "cannot hold a film"),
        (["--out", "w.txt"], "cannot hold a film"),
    ],
)
def test_impossible_films_are_refused(trained_run: Path, tmp_path: Path, flags: list[str], what: str) -> None:
    given: list[Any] = ["walk", "--run", str(trained_run), "--out", str(tmp_path / "w.gif"), *flags]
    with pytest.raises(UsageError, match=what):
        run(given)
    assert not list(tmp_path.iterdir())


def test_samples_of_given_seeds_are_those_of_the_seeds(trained_run: Path, tmp_path: Path) -> None:
    run(["sample", "--run", str(trained_run), "--out", str(tmp_path / "a"), "--num", "6"])
    run(["sample", "--run", str(trained_run), "--out", str(tmp_path / "b"), "--seeds", "5,2-3"])
    assert len(list((tmp_path / "b").glob("0*.png"))) == 3
    for number, seed in enumerate((5, 2, 3)):
        assert (tmp_path / "b" / f"{number:06d}.png").read_bytes() == (tmp_path / "a" / f"{seed:06d}.png").read_bytes()
