"""What went into a store comes out of it, for us and for any zarr reader, or an error names the damaged file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from data.errors import CorruptError, InputError, MismatchError, UsageError
from data.latents import DType, LatentReader, LatentStore, LatentWriter, default_shard_rows

COUNT, SHAPE, ROWS = 11, (3, 4, 4), 3  # 4 shards, the last one not full
LATENTS = np.tanh(np.random.default_rng(0).normal(size=(COUNT, *SHAPE))).astype(np.float32)
KEYS = [f"bild-ü-{index}.png" for index in range(COUNT)]
LABELS = np.arange(COUNT, dtype=np.int64) % 3
METADATA = {"fingerprint": "f" * 32, "image_size": 16, "data": ["photos"]}
DTYPES: tuple[DType, ...] = ("float16", "float32", "int8")


def make_writer(path: Path, dtype: DType = "float16", **changes: Any) -> LatentWriter:
    return LatentWriter(path, COUNT, SHAPE, dtype, {**METADATA, **changes}, shard_rows=ROWS)


def write(writer: LatentWriter, shards: list[int] | None = None) -> None:
    for shard in writer.missing_shards() if shards is None else shards:
        writer.write_shard(shard, LATENTS[writer.rows_of(shard)])


def make_store(path: Path, dtype: DType = "float16") -> Path:
    writer = make_writer(path, dtype)
    write(writer)
    writer.seal(KEYS, LABELS)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("latents") / "store")


@pytest.fixture
def store(tmp_path: Path, sealed: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sealed, tmp_path / "store"))


def stored_error(dtype: DType, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far a number may move: half a step of its format."""
    steps = {"float32": 0.0 * values, "float16": np.spacing(np.abs(values).astype(np.float16)) / 2}
    return np.asarray(steps.get(dtype, np.full_like(values, 0.5 / 127)), np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_come_back_to_half_a_step_of_their_format(tmp_path: Path, dtype: DType) -> None:
    store = LatentStore.open(make_store(tmp_path / "store", dtype))
    read = store.read(range(COUNT))
    assert read.dtype == np.float32
    assert (np.abs(read.astype(np.float64) - LATENTS) <= stored_error(dtype, LATENTS) + 1e-7 * (dtype == "int8")).all()
    assert (len(store), store.code_shape, store.image_size) == (COUNT, SHAPE, 16)
    assert store.fingerprint == METADATA["fingerprint"]
    assert store.keys == KEYS
    assert store.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_are_those_of_all_stored_numbers(tmp_path: Path, dtype: DType) -> None:
    store = LatentStore.open(make_store(tmp_path / "store", dtype))
    values = store.read(range(COUNT)).astype(np.float64)
    np.testing.assert_allclose(store.mean, values.mean((0, 2, 3)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(store.std, values.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_zarr_reader_sees_the_same_numbers(tmp_path: Path, dtype: DType) -> None:
    path = make_store(tmp_path / "store", dtype)
    group = zarr.open_group(path, mode="r")
    assert sorted(name for name, _ in group.members()) == ["keys", "labels", "latents"]  # and no warning
    array = group["latents"]
    assert isinstance(array, zarr.Array)
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(array[:]), LatentStore.open(path).read_stored(range(COUNT)))


def test_rows_are_read_in_any_order_and_repeatedly(sealed: Path) -> None:
    store, reader = LatentStore.open(sealed), LatentReader(LatentStore.open(sealed))
    everything = store.read(range(COUNT))
    for rows in ([10, 0, 5], [4, 4, 4, 1], [7], [], np.random.default_rng(1).integers(0, COUNT, 30)):
        np.testing.assert_array_equal(store.read(rows), everything[np.asarray(rows, np.int64)])
        np.testing.assert_array_equal(reader(np.asarray(rows, np.int64)), everything[np.asarray(rows, np.int64)])
    for rows in ([COUNT], [-1], [0, COUNT]):
        with pytest.raises(IndexError):
            store.read(rows)


def test_the_reader_gives_the_same_without_memory_to_spare(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([9, 2, 2])
    in_memory = LatentReader(LatentStore.open(sealed))(rows)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 0}))
    np.testing.assert_array_equal(LatentReader(LatentStore.open(sealed))(rows), in_memory)


def test_a_default_shard_is_about_32_mb() -> None:
    assert default_shard_rows((16, 64, 64), "float16") == 256
    assert default_shard_rows((16, 64, 64), "int8") == 512
    assert default_shard_rows((64, 1024, 1024), "float32") == 1


def test_absent_unsealed_foreign_and_newer_stores_are_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match="no latent store"):
        LatentStore.open(tmp_path / "nothing")
    write(make_writer(tmp_path / "unsealed"))
    with pytest.raises(CorruptError, match="not sealed"):
        LatentStore.open(tmp_path / "unsealed")
    zarr.create_group(tmp_path / "foreign")
    with pytest.raises(MismatchError, match="not a store of codegan"):
        LatentStore.open(tmp_path / "foreign")
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["codegan"]["format"] += 1
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(MismatchError, match="newer") as refused:
        LatentStore.open(store)
    assert refused.value.exit_code == 4


def read_all(path: Path) -> None:
    store = LatentStore.open(path)
    store.read(range(COUNT))
    store.verify()


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "first bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "middle bit": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 4]) + content[len(content) // 2 + 1 :]
    ),
    "truncated": lambda content: content[:-3],
    "empty": lambda content: b"",
    "removed": lambda content: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_and_the_file_named(store: Path, damage: str) -> None:
    files = contents(store)
    assert len(files) == 4 + 3 + 2 + 1  # shards, arrays' metadata, vectors, seal
    for name, content in files.items():
        path = store / name
        changed = DAMAGES[damage](content)
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        # without its seal a folder is no store at all
        expected = InputError if name == "zarr.json" and changed is None else CorruptError
        with pytest.raises(expected) as found:
            read_all(store)
        assert (str(store) if expected is InputError else str(path)) in found.value.what
        path.write_bytes(content)
    read_all(store)


def test_reading_alone_finds_a_flip_anywhere_in_a_shard(store: Path, flip_bit: Callable[[Path, int], None]) -> None:
    path = store / "latents/c/1/0/0/0"
    content = path.read_bytes()
    for offset in range(0, len(content), 7):
        flip_bit(path, offset)
        opened = LatentStore.open(store)
        np.testing.assert_array_equal(opened.read([0, 10]), LATENTS[[0, 10]].astype(np.float16).astype(np.float32))
        with pytest.raises(CorruptError, match=str(path)):
            opened.read([4])
        path.write_bytes(content)


def test_a_flip_anywhere_in_the_seal_is_refused_or_changes_no_value(
    store: Path, flip_bit: Callable[[Path, int], None]
) -> None:
    path = store / "zarr.json"
    content = path.read_bytes()
    for offset in range(0, len(content), 3):
        flip_bit(path, offset)
        try:
            changed = json.loads(path.read_bytes())
        except ValueError:
            changed = None
        if changed != json.loads(content):  # the last digit of a float can move without moving the float
            with pytest.raises((CorruptError, MismatchError)):
                LatentStore.open(store)
        path.write_bytes(content)


def test_two_shards_that_changed_places_are_found(store: Path) -> None:
    first, second = store / "latents/c/0/0/0/0", store / "latents/c/1/0/0/0"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(CorruptError, match=str(first)):
        LatentStore.open(store).read([0])
    with pytest.raises(CorruptError, match=str(first)):
        LatentStore.open(store).verify()


def test_an_interrupted_store_ends_byte_for_byte_like_an_uninterrupted_one(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "store"
    write(make_writer(path), [0, 2])
    resumed = make_writer(path)
    assert resumed.missing_shards() == [1, 3]
    with pytest.raises(ValueError, match="2 shards are missing"):
        resumed.seal(KEYS, LABELS)
    write(resumed)
    resumed.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_a_journal_line_cut_by_a_crash_is_done_again(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "store"
    write(make_writer(path), [0, 1, 2])
    journal = path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    resumed = make_writer(path)
    assert resumed.missing_shards() == [2, 3]
    write(resumed)
    resumed.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_other_settings_and_occupied_folders_are_refused(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "unsealed"
    write(make_writer(path), [0])
    with pytest.raises(MismatchError, match="another autoencoder"):
        make_writer(path, fingerprint="0" * 32)
    with pytest.raises(MismatchError):
        make_writer(path, dtype="int8")
    with pytest.raises(UsageError):
        make_writer(store)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(UsageError):
        make_writer(tmp_path / "photos")


def test_numbers_no_encoder_gives_are_refused(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "store")
    with pytest.raises(CorruptError, match="NaN"):
        writer.write_shard(0, np.full((ROWS, *SHAPE), np.nan, np.float32))
    with pytest.raises(ValueError, match="takes"):
        writer.write_shard(3, LATENTS[:ROWS])


def test_without_labels_every_label_is_minus_one(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "store")
    write(writer)
    writer.seal(KEYS)
    assert LatentStore.open(tmp_path / "store").labels.tolist() == [-1] * COUNT
