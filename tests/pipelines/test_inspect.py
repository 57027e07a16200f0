"""`codegan inspect` counts what was put in, names what it left out, and writes the same to files."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError, UsageError
from data.images import open_images
from pipelines.cli import run
from pipelines.inspect import contact_sheet, summarise

SIZES = [(100, 127), (128, 300), (255, 256), (256, 256), (700, 500), (1024, 2000), (1100, 1030)]  # height, width


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, (height, width) in enumerate(SIZES):
        path = tmp_path / "data" / ("cat" if index < 3 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (30 * index, 0, 0)).save(path)
    (tmp_path / "data/cat/broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "data/dog/empty.png").touch()
    return tmp_path / "data"


def test_inspect_prints_and_writes_what_is_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    run(["inspect", str(folder), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "7 images, 2 skipped" in printed
    assert "cat/broken.jpg: not a picture" in printed
    assert "dog/empty.png: empty file" in printed
    assert printed.endswith(f"next: codegan train-ae --data {folder} --out runs/ae\n")
    for name in ("contact.png", "skipped.jsonl", "summary.json"):
        assert f"wrote {out / name}" in printed
        assert (out / name).is_file()

    summary = json.loads((out / "summary.json").read_text())
    assert (summary["count"], summary["skipped"]) == (7, 2)
    assert summary["labels"] == {"0": 3, "1": 4}
    assert summary["fingerprint"] == open_images(folder, max_skip=1).fingerprint
    assert summary["sides"]["height"] == {"min": 100, "median": 256, "max": 1100}
    assert summary["sides"]["width"] == {"min": 127, "median": 300, "max": 2000}
    expected = {"below 128": 1, "128 to 255": 2, "256 to 511": 2, "512 to 1023": 0, "1024 or more": 2}
    assert summary["shorter_side"] == expected
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [line["key"] for line in skipped] == ["cat/broken.jpg", "dog/empty.png"]


def test_inspect_without_out_writes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    run(["inspect", str(folder)])
    assert sorted(tmp_path.rglob("*")) == before


def test_shorter_sides_are_counted_by_the_sizes_asked_for(folder: Path) -> None:
    images = open_images(folder, max_skip=1)
    shorter = [min(size) for size in SIZES]
    counts = list(summarise(images, [255, 256, 1024])["shorter_side"].values())
    bounds = [0, 255, 256, 1024, 10**9]
    assert counts == [sum(a <= side < b for side in shorter) for a, b in pairwise(bounds)]


def test_contact_sheet_shows_few_images_all_and_many_spread() -> None:
    assert contact_sheet(open_images("scenes:3@16")).shape == (3, 2 * 130 - 2, 2 * 130 - 2)
    images = open_images("scenes:100@16")
    sheet = contact_sheet(images)
    assert sheet.shape == (3, 8 * 130 - 2, 8 * 130 - 2)
    corners = [images.pil(index).resize((128, 128), Image.Resampling.LANCZOS) for index in (0, 99)]
    np.testing.assert_array_equal(sheet[:, :128, :128], np.asarray(corners[0]).transpose(2, 0, 1))
    np.testing.assert_array_equal(sheet[:, -128:, -128:], np.asarray(corners[1]).transpose(2, 0, 1))


def test_inspect_refuses_data_without_pictures_and_sizes_without_sense(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        run(["inspect", str(tmp_path / "empty")])
    for arguments in (["inspect"], ["inspect", str(folder), "--size", "0"]):
        with pytest.raises(UsageError):
            run(arguments)
