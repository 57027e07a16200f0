"""A set reads back the pixels that were put in, in order, and pixels survive the way to networks and to files."""

import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from data import images as images_module
from data.errors import InputError, UsageError
from data.images import (
    ImageSet,
    Share,
    fit,
    image_grid,
    open_images,
    save_png,
    to_float,
    to_uint8,
    write_skipped,
)
from data.scenes.factors import Scenes
from data.sources.decoding import ImageInfo, probe
from data.sources.listing import Skip

RNG = np.random.default_rng(0)
PIXELS = {f"{index}.png": RNG.integers(0, 256, (20 + index, 30, 3), np.uint8) for index in range(6)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, pixels in PIXELS.items():
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def test_fingerprint_moves_with_bytes_and_keys_but_not_with_the_place(tmp_path: Path, folder: Path) -> None:
    before = open_images(folder).fingerprint
    renamed = folder.rename(tmp_path / "elsewhere")
    assert open_images(renamed).fingerprint == before
    content = (renamed / "0.png").read_bytes()
    seen = {before}
    for trailer in (b"\0", b"\1"):  # after the end of the picture: the pixels stay
        (renamed / "0.png").write_bytes(content + trailer)
        seen.add(open_images(renamed).fingerprint)
    (renamed / "0.png").write_bytes(content)
    (renamed / "0.png").rename(renamed / "9.png")
    seen.add(open_images(renamed).fingerprint)
    assert len(seen) == 4


def test_a_picture_whose_bytes_changed_since_the_set_was_opened_is_refused(folder: Path) -> None:
    images = open_images(folder, size=16)
    content = (folder / "2.png").read_bytes()
    for other in (content + b"\0", (folder / "3.png").read_bytes()):  # whether or not its pixels are the same
        (folder / "2.png").write_bytes(other)
        for read in (lambda: images.image(2), lambda: images.fitted(2, [8]), lambda: list(images.batches(4))):
            with pytest.raises(InputError, match=r"^error: 2\.png: has changed") as refused:
                read()
            assert "another --out" in refused.value.fix
    (folder / "2.png").write_bytes(content)
    assert np.array_equal(images.image(2), open_images(folder, size=16).image(2))


def test_skip_limit_is_a_share_of_all_pictures(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:100])
    (folder / "empty.png").touch()
    with pytest.raises(InputError) as caught:
        open_images(folder, max_skip=0.24)
    assert caught.value.exit_code == 3
    assert "2 of 8" in caught.value.what
    assert "empty.png: empty file" in caught.value.what
    assert "--max-skip" in caught.value.fix
    images = open_images(folder, max_skip=0.25)
    assert len(images) == 6
    assert [skip.key for skip in images.skipped] == ["broken.png", "empty.png"]


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -3}, {"max_skip": -0.1}, {"max_skip": 2}])
def test_bad_options_are_usage_errors(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_images(folder, **options)


# --- reading ---


def test_batches_are_the_images_one_by_one(folder: Path) -> None:
    images = open_images(folder, size=16)
    one_by_one = np.stack([images.image(i) for i in range(6)])
    batches = list(images.batches(4))
    assert [batch.shape for batch in batches] == [(4, 3, 16, 16), (2, 3, 16, 16)]
    np.testing.assert_array_equal(np.concatenate(batches), one_by_one)
    chosen = np.array([5, 0, 5, -1])
    np.testing.assert_array_equal(np.concatenate(list(images.batches(3, chosen))), one_by_one[chosen])


def test_batches_without_a_size_are_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError):
        open_images(folder).batches(4)


def test_batches_of_an_endless_order_can_be_left(folder: Path) -> None:
    for number, batch in enumerate(open_images(folder, size=16).batches(2, itertools.cycle(range(6)))):
        assert batch.shape[0] == 2
        if number == 20:
            break


def test_several_processes_read_every_file_once_and_open_the_same_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    ranks = 3
    whole = open_images(folder, max_skip=1)
    parts: list[list[Any]] = [[] for _ in range(ranks)]
    met = threading.Barrier(ranks, timeout=60)
    seen: list[bytes] = []

    def probe_and_count(content: bytes) -> ImageInfo:
        seen.append(content)
        return probe(content)

    monkeypatch.setattr(images_module, "probe", probe_and_count)

    def process(rank: int) -> ImageSet:
        def gather(part: list[Any]) -> list[Any]:
            parts[rank] = part
            met.wait()
            return list(itertools.chain(*parts))

        return open_images(folder, max_skip=1, share=Share(rank, ranks, gather))

    with ThreadPoolExecutor(ranks) as pool:
        opened = list(pool.map(process, range(ranks)))
    assert len(seen) == len(set(seen)) == 7
    for images in opened:
        assert (images.fingerprint, images.keys, images.skipped) == (whole.fingerprint, whole.keys, whole.skipped)
        np.testing.assert_array_equal(images.sizes, whole.sizes)


def test_progress_counts_every_file(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_images(folder, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 6) for i in range(6)]


def test_scenes_are_those_of_their_spec() -> None:
    images = open_images("scenes:3@32", size=16, seed=5)
    scenes = Scenes(3, 32, seed=5)
    assert (len(images), images.keys[2], images.labels) == (3, "scene-000002", None)
    np.testing.assert_array_equal(np.asarray(images.pil(1)).transpose(2, 0, 1), scenes.image(1))
    assert next(images.batches(3)).shape == (3, 3, 16, 16)
    specs = [("scenes:3@32", 5), ("scenes:3@32", 6), ("scenes:4@32", 5), ("scenes:3@64", 5)]
    assert len({open_images(spec, seed=seed).fingerprint for spec, seed in specs}) == 4
    assert images.fingerprint == open_images("scenes:3@32", seed=5).fingerprint


def test_scenes_without_a_size_are_rendered_at_the_one_asked_for() -> None:
    assert open_images("scenes:2").sizes.tolist() == [[128, 128]] * 2
    np.testing.assert_array_equal(open_images("scenes:2", size=32).image(1), Scenes(2, 32).image(1))


def test_real_photographs_with_labels() -> None:
    data = Path(os.environ.get("CODEGAN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "flowers256.tar"
    if not data.exists():
        pytest.skip(f"needs {data.name} in $CODEGAN_DATA")
    images = open_images(data, size=128)
    assert (len(images), images.skipped, images.notes) == (2442, [], {})
    assert images.labels is not None
    assert set(images.labels.tolist()) == set(range(5))
    assert (images.sizes == 256).all()
    assert 60 < images.image(0).mean() < 200


# --- pixels ---


def test_uint8_survives_the_way_through_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1, 1)
    assert torch.equal(to_uint8(floats), every)


@given(st.floats(-3, 3, width=32))
def test_to_uint8_rounds_and_clamps(value: float) -> None:
    exact = (value + 1) * 127.5
    got = int(to_uint8(torch.tensor(value)))
    assert abs(got - min(max(exact, 0), 255)) <= 0.5 + 1e-4


def lanczos(signal: NDArray[Any], size: int) -> NDArray[Any]:
    """Lanczos-3 along the first axis, widened by the factor of reduction, by its definition."""
    count, scale = len(signal), max(len(signal) / size, 1)
    centres = (np.arange(size) + 0.5) * count / size
    distance = (np.arange(count) + 0.5 - centres[:, None]) / scale
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    return np.tensordot(weights / weights.sum(1, keepdims=True), signal, 1)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(40, 61, 16), (61, 40, 16), (20, 20, 33), (17, 90, 17), (9, 9, 9)]
)
def test_fit_is_a_centre_crop_and_lanczos(height: int, width: int, size: int) -> None:
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side].astype(float)
    across = np.clip(lanczos(square.transpose(1, 0, 2), size).transpose(1, 0, 2), 0, 255)  # Pillow rounds between
    expected = np.clip(lanczos(np.rint(across), size), 0, 255)
    assert np.abs(np.asarray(fit(Image.fromarray(pixels), size)) - expected).max() <= 1


def test_saved_png_and_skipped_file_read_back(tmp_path: Path) -> None:
    pixels = PIXELS["1.png"].transpose(2, 0, 1)
    save_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(open_images(tmp_path).image(0), pixels)
    skipped = [Skip("a\u00e4.png", "empty file"), Skip("b", 'say "no"')]
    write_skipped(tmp_path / "skipped.jsonl", skipped)
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [skip._asdict() for skip in skipped]


@given(st.integers(1, 12), st.one_of(st.none(), st.integers(1, 12)), st.integers(0, 3))
def test_grid_holds_every_image_in_its_place(count: int, columns: int | None, padding: int) -> None:
    images = np.random.default_rng(count).integers(0, 255, (count, 3, 4, 5), np.uint8)
    grid = image_grid(images, columns, padding)
    across = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // across)
    assert grid.shape == (3, rows * (4 + padding) - padding, across * (5 + padding) - padding)
    for index in range(count):
        y, x = index // across * (4 + padding), index % across * (5 + padding)
        np.testing.assert_array_equal(grid[:, y : y + 4, x : x + 5], images[index])
    assert (grid == 255).sum() == grid.size - images.size  # random values stop at 254


def test_importing_images_leaves_torch_alone() -> None:
    code = "import sys, data.images; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
