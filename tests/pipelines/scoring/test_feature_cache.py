"""A kept array comes back bit for bit under its key, and nothing else ever does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.scoring import feature_cache
from pipelines.scoring.feature_cache import FeatureCache

KEY = {"reference": "abc", "size": 32, "features": "offline", "weights_sha256": None}
ROWS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    made = FeatureCache(tmp_path)
    made.write(KEY, ROWS)
    return made


def only_file(folder: Path) -> Path:
    (path,) = (file for file in folder.rglob("*") if file.is_file())
    return path


def test_an_array_comes_back_bit_for_bit(cache: FeatureCache) -> None:
    back = cache.read(KEY)
    assert back is not None
    np.testing.assert_array_equal(back, ROWS)
    assert back.dtype == np.float32


@pytest.mark.parametrize("changed", [{"size": 64}, {"reference": "abd"}, {"weights_sha256": "0"}, {"more": 1}])
def test_another_key_finds_nothing(cache: FeatureCache, changed: dict[str, object]) -> None:
    assert cache.read(KEY | changed) is None


def test_a_flipped_bit_anywhere_is_noticed(
    cache: FeatureCache, tmp_path: Path, flip_bit: Callable[[Path, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for offset in range(0, len(whole), 3):
        path.write_bytes(whole)
        flip_bit(path, offset)
        found = cache.read(KEY)
        assert found is None or np.array_equal(found, ROWS)  # a bit of white space in the header is no harm
        assert found is not None or f"{path}: " in capsys.readouterr().out
    assert cache.read(KEY) is None


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64])
def test_a_file_that_is_none_of_ours_is_left_aside_and_replaced(
    cache: FeatureCache, tmp_path: Path, content: bytes
) -> None:
    only_file(tmp_path).write_bytes(content)
    assert cache.read(KEY) is None
    cache.write(KEY, ROWS)
    assert cache.read(KEY) is not None


def test_a_file_of_another_version_or_key_under_this_name_is_not_used(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = only_file(tmp_path).read_bytes()
    monkeypatch.setattr(feature_cache, "VERSION", 2)
    assert cache.read(KEY) is None  # another name
    cache.write(KEY, ROWS)
    newest = max(tmp_path.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(content)
    assert cache.read(KEY) is None
    assert "is of another version" in capsys.readouterr().out


def test_without_a_folder_nothing_is_kept_and_a_folder_that_cannot_be_written_is_only_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = FeatureCache(None)
    nowhere.write(KEY, ROWS)
    assert nowhere.read(KEY) is None
    (tmp_path / "file").write_bytes(b"")
    FeatureCache(tmp_path / "file").write(KEY, ROWS)
    assert "--cache" in capsys.readouterr().err
