"""`codegan sample` replaces what it drew before, and nothing else."""

from pathlib import Path

import pytest
from PIL import Image

from data.errors import UsageError
from pipelines.cli import run


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


@pytest.mark.parametrize("name", ["000001.png", "grid.png"])
def test_pictures_of_somebody_else_are_not_touched(trained_run: Path, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UsageError, match="codegan did not put it there"):
        run(["sample", "--run", str(trained_run), "--out", str(tmp_path), "--num", "2"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_file_is_no_folder_for_samples(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        run(["sample", "--run", str(trained_run), "--out", str(tmp_path / "file"), "--num", "2"])
