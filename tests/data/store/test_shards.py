"""Our view of a shard file shows what zarr reads from it, and refuses any other layout."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from data.advice import Action, Advice
from data.errors import CorruptError
from data.files.checksums import crc32c, make_entry
from data.store.shards import Loaded, array_files, load, shard_bytes, shard_name, vector, view

DTYPES = ("float16", "float32", "int8", "int64")
REMEDY = ("repair it", Advice(Action.CHECK, {"path": "x"}))


def numbers(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)


def loaded(content: bytes) -> Loaded:
    return Loaded(np.frombuffer(content, np.uint8), Path("shard"), REMEDY)


def read_by_zarr(path: Path) -> NDArray[Any]:
    array = zarr.open_array(path, mode="r")
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


@given(
    st.sampled_from(DTYPES), st.integers(1, 6), st.integers(0, 3), st.lists(st.integers(1, 4), min_size=1, max_size=3)
)
@settings(max_examples=40, deadline=None)
def test_zarr_and_our_view_read_the_same_from_the_same_bytes(
    dtype: str, count: int, room: int, shape: list[int]
) -> None:
    values, rows = numbers((count, *shape), dtype), count + room
    body = shard_bytes(values, rows)
    np.testing.assert_array_equal(view(loaded(body), values.shape, dtype), values)
    files = array_files(values.shape, dtype, rows)
    assert files.keys() == {"zarr.json"}
    key = shard_name("x", 0, values.ndim).removeprefix("x/")
    buffers: dict[str, Buffer] = {name: cpu.Buffer.from_bytes(body) for name, body in {**files, key: body}.items()}
    array = zarr.open_array(MemoryStore(buffers), mode="r")
    np.testing.assert_array_equal(np.asarray(array[...]), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_committed_one_by_one_are_one_array(tmp_path: Path, dtype: str) -> None:
    values = numbers((7, 2, 3), dtype)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_bytes(array_files(values.shape, dtype, 3)["zarr.json"])
    for shard in range(3):
        path = tmp_path / shard_name("a", shard, 3)
        path.parent.mkdir(parents=True)
        path.write_bytes(shard_bytes(values[3 * shard : 3 * shard + 3], 3))
    np.testing.assert_array_equal(read_by_zarr(tmp_path / "a"), values)


def test_a_view_copies_nothing() -> None:
    content = np.frombuffer(shard_bytes(numbers((4, 2, 3), "float16"), 4), np.uint8)
    assert np.shares_memory(view(Loaded(content, Path("shard"), REMEDY), (4, 2, 3), "float16"), content)


def test_a_vector_is_read_whole_without_being_told_its_length() -> None:
    values = numbers((9,), "int64")
    body = array_files(values.shape, values.dtype, 9, 9, values)["c/0"]
    np.testing.assert_array_equal(vector(loaded(body), "int64"), values)


def test_another_layout_is_refused() -> None:
    values = numbers((3, 2, 2), "float16")
    body = shard_bytes(values, 4)
    index_start = 3 * (8 + 4)
    swapped = bytearray(body)
    swapped[index_start : index_start + 32] = body[index_start + 16 : index_start + 32] + body[index_start:][:16]
    swapped[-4:] = crc32c(bytes(swapped[index_start:-4])).to_bytes(4, "little")
    flipped = bytearray(body)
    flipped[-1] ^= 1
    others = [bytes(swapped), bytes(flipped), body[:-1], body[1:], b"", body[: index_start + 4]]
    for content in others:
        with pytest.raises(CorruptError, match="shard: its rows"):
            view(loaded(content), values.shape, "float16")
    for shape, dtype in (((4, 2, 2), "float16"), ((3, 2, 2), "float32"), ((2, 2, 2), "float16")):
        with pytest.raises(CorruptError):
            view(loaded(body), shape, dtype)


@pytest.mark.parametrize("cut", [None, 0, 5])
def test_only_a_whole_file_with_the_right_checksum_is_loaded(tmp_path: Path, cut: int | None) -> None:
    content, path = bytes(range(100)), tmp_path / "file"
    entry = {"bytes": 100, "crc32": zlib.crc32(content)}
    path.write_bytes(content)
    np.testing.assert_array_equal(load(path, entry, REMEDY).content, np.arange(100))
    with pytest.raises(CorruptError, match=f"{path}: checksum mismatch") as found:
        load(path, {**entry, "crc32": entry["crc32"] ^ 1}, REMEDY)
    assert (found.value.fix, found.value.advice) == REMEDY
    if cut is None:
        path.unlink()
    else:
        path.write_bytes(content[:cut])
    with pytest.raises(CorruptError, match=r"is missing|has \d bytes instead of 100"):
        load(path, entry, REMEDY)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_loaded_files_stay_readable_and_keep_no_file_open(tmp_path: Path) -> None:
    bodies = [bytes([n] * 50) for n in range(20)]
    for n, body in enumerate(bodies):
        (tmp_path / str(n)).write_bytes(body)
    before = len(list(Path("/proc/self/fd").iterdir()))
    files = [load(tmp_path / str(n), make_entry([body]), REMEDY) for n, body in enumerate(bodies)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert [file.content.tobytes() for file in files] == bodies
