"""Every image goes through once and in order, on one process or two, and a key finds its own cached rows or nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from data.errors import CorruptError
from data.images import open_images
from pipelines.scoring import extraction
from pipelines.scoring.extraction import FeatureCache, FeaturePass, extract
from pipelines.scoring.metrics import Rows
from pipelines.scoring.networks import load_features
from pipelines.scoring.sets import Images, LazyImages
from stage1_autoencoder.training.processes import make_accelerator
from tests.training_runs import run_ranks


class Means:
    """The mean of each image, and how many images came with it."""

    name = "means"

    def prepare(self, images_u8: Images) -> torch.Tensor:
        return torch.from_numpy(images_u8).float()

    def extract(self, prepared: torch.Tensor) -> Rows:
        means = prepared.mean(dim=(1, 2, 3)).numpy()
        return np.stack([means, np.full_like(means, len(prepared))], axis=1)


class Broken(Means):
    def extract(self, prepared: torch.Tensor) -> Rows:
        return np.full((len(prepared), 1), np.nan, np.float32)


def numbered(positions: Sequence[int]) -> Images:
    return np.stack([np.full((3, 4, 4), position, np.uint8) for position in positions])


def test_every_image_goes_once_and_in_order_through_every_extractor() -> None:
    one, two = extract(LazyImages("images", 23, numbered), [Means(), Means()], 5, make_accelerator())
    assert one[:, 0].tolist() == list(range(23))
    assert one[:, 1].tolist() == [5] * 20 + [3] * 3
    np.testing.assert_array_equal(one, two)


def test_drawn_images_are_others_in_random_order_the_same_every_time() -> None:
    def drawn(count: int, seed: int) -> list[float]:
        (rows,) = extract(LazyImages("images", 23, numbered).drawn(count, seed), [Means()], 5, make_accelerator())
        return rows[:, 0].tolist()

    assert sorted(drawn(30, 0)) == list(range(23)) != drawn(30, 0)
    assert drawn(4, 0) == drawn(4, 0) != drawn(4, 1)
    assert len(set(drawn(4, 0))) == 4


def test_images_are_made_while_others_are_extracted_from() -> None:
    made: list[int] = []

    class Late(Means):
        def extract(self, prepared: torch.Tensor) -> Rows:
            ahead.append(len(made) - int(prepared[-1, 0, 0, 0]) - 1)
            return super().extract(prepared)

    def make(positions: Sequence[int]) -> Images:
        made.extend(positions)
        return numbered(positions)

    ahead: list[int] = []
    extract(LazyImages("images", 30, make), [Late()], 3, make_accelerator())
    assert max(ahead) >= 3
    assert max(ahead) <= 4 * 3  # and not many more, for memory's sake


def test_nan_is_an_error_that_names_extractor_and_images() -> None:
    with pytest.raises(CorruptError, match="means features: are not finite on the given images"):
        extract(LazyImages("given images", 4, numbered), [Broken()], 2, make_accelerator())


def features_of_scenes(accelerator: Accelerator) -> Rows:
    images = open_images("scenes:19@32", size=32)
    lazy = LazyImages("scenes", 19, lambda positions: np.stack([images.image(i) for i in positions]))
    (rows,) = extract(lazy, [load_features("offline", None, accelerator.device)], 4, accelerator)
    return rows


TWO_RANKS = """
import sys
import numpy as np
from stage1_autoencoder.training.processes import make_accelerator
from tests.pipelines.scoring.test_extraction import features_of_scenes

accelerator = make_accelerator()
np.save(f"{sys.argv[1]}-{accelerator.process_index}.npy", features_of_scenes(accelerator))
accelerator.end_training()  # else the process group's threads abort the exit of one rank in ten
"""


def test_two_ranks_extract_what_one_process_extracts(tmp_path: Path) -> None:
    script = tmp_path / "extract.py"
    script.write_text(TWO_RANKS)
    run_ranks(script, [str(tmp_path / "two")], 2, tmp_path)
    one = features_of_scenes(make_accelerator())
    assert len(one) == 19
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"two-{rank}.npy"), one)


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
    monkeypatch.setattr(extraction, "CACHE_VERSION", 2)
    assert cache.read(KEY) is None  # another name
    cache.write(KEY, ROWS)
    newest = max(tmp_path.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(content)
    assert cache.read(KEY) is None
    assert "is of another version" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_only_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    FeatureCache(tmp_path / "file").write(KEY, ROWS)
    assert "--cache" in capsys.readouterr().err


def test_only_features_of_images_with_an_identity_are_cached(tmp_path: Path) -> None:
    accelerator = make_accelerator()
    network = load_features("offline", None, accelerator.device)
    anonymous = LazyImages("images", 5, numbered)
    known = LazyImages("images", 5, numbered, {"reference": "abc"})
    first = FeaturePass(network, accelerator)(known)
    cached_pass = FeaturePass(network, accelerator, cache=FeatureCache(tmp_path))
    np.testing.assert_array_equal(cached_pass(anonymous).features, first.features)
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        np.testing.assert_array_equal(cached_pass(known).features, first.features)
        assert only_file(tmp_path).suffix == ".safetensors"
    gone = LazyImages("images", 5, lambda positions: pytest.fail("extracted again"), {"reference": "abc"})
    np.testing.assert_array_equal(cached_pass(gone).features, first.features)
