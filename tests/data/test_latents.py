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

from data.advice import Action, Advice
from data.errors import CorruptError, InputError, MismatchError, UsageError
from data.files.checksums import with_checksum
from data.latents import DType, LatentStore
from data.store.seal import find_damage, find_stores
from data.store.writer import LatentWriter, default_shard_rows

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


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("latents") / "store")


@pytest.fixture
def store(tmp_path: Path, sealed: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sealed, tmp_path / "store"))


def stored_error(dtype: DType, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far a number may move: half a step of its format."""
    if dtype == "int8":
        return np.broadcast_to(np.abs(values).max((2, 3), keepdims=True) / 254, values.shape).astype(np.float64)
    return np.zeros(values.shape) if dtype == "float32" else np.spacing(np.abs(values).astype(np.float16)) / 2.0


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
    assert store.seal["value_range"] == [values.min(), values.max()]
    shard = store.seal["files"]["latents/c/3/0/0/0"]
    np.testing.assert_allclose(shard["sum"], values[9:].sum((0, 2, 3)))
    assert shard["max"] == values[9:].max((0, 2, 3)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_zarr_reader_sees_the_same_numbers(tmp_path: Path, dtype: DType) -> None:
    path = make_store(tmp_path / "store", dtype)
    group = zarr.open_group(path, mode="r")
    arrays = {name: np.asarray(array[:]) for name, array in group.members() if isinstance(array, zarr.Array)}
    assert arrays.keys() == {"keys", "labels", "latents", *(["scales"] if dtype == "int8" else [])}  # and no warning
    assert arrays["latents"].dtype == np.dtype(dtype)
    scales = arrays.get("scales", np.ones((COUNT, SHAPE[0]), np.float32))
    latents = arrays["latents"].astype(np.float32) * scales[:, :, None, None]
    np.testing.assert_array_equal(latents, LatentStore.open(path).read(range(COUNT)))
    assert arrays["labels"].tolist() == LABELS.tolist()
    assert arrays["keys"].tobytes().decode().split("\n") == KEYS


def test_int8_has_a_scale_for_each_channel_of_each_latent_and_keeps_zeros(tmp_path: Path) -> None:
    latents = LATENTS.copy()
    latents[1, 2] = 0
    latents[2, 0] *= 1e-4
    writer = make_writer(tmp_path / "store", "int8")
    for shard in writer.missing_shards():
        writer.write_shard(shard, latents[writer.rows_of(shard).start : writer.rows_of(shard).stop])
    writer.seal(KEYS)
    store = LatentStore.open(tmp_path / "store")
    values, scales = store.read_stored(range(COUNT))
    assert (values.dtype, scales is not None and scales[1, 2]) == (np.int8, 1)
    assert np.abs(values).max((2, 3)).tolist() == [
        [0 if (i, c) == (1, 2) else 127 for c in range(3)] for i in range(11)
    ]
    assert not store.read([1])[0, 2].any()
    np.testing.assert_allclose(store.read([2])[0, 0], latents[2, 0], atol=np.abs(latents[2, 0]).max() / 254 * 1.001)


def test_rows_are_read_in_any_order_and_repeatedly(sealed: Path) -> None:
    store = LatentStore.open(sealed)
    everything = store.read(range(COUNT))
    for rows in ([10, 0, 5], [4, 4, 4, 1], [7], [], np.random.default_rng(1).integers(0, COUNT, 30)):
        np.testing.assert_array_equal(store.read(rows), everything[np.asarray(rows, np.int64)])
    for rows in ([COUNT], [-1], [0, COUNT]):
        with pytest.raises(IndexError):
            store.read(rows)


def test_a_default_shard_is_at_most_32_mb_and_a_power_of_two_of_rows() -> None:
    assert default_shard_rows((16, 64, 64), "float32") == 128
    assert default_shard_rows((5, 64, 64), "float16") == 512
    assert default_shard_rows((16, 64, 64), "float16") == 256
    assert default_shard_rows((16, 64, 64), "int8") == 512
    assert default_shard_rows((64, 1024, 1024), "float32") == 1


def test_absent_unsealed_foreign_and_other_stores_are_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match="no latent store"):
        LatentStore.open(tmp_path / "nothing")
    write(make_writer(tmp_path / "unsealed"))
    with pytest.raises(CorruptError, match="not sealed"):
        LatentStore.open(tmp_path / "unsealed")
    zarr.create_group(tmp_path / "foreign")
    with pytest.raises(MismatchError, match="not a store of codegan"):
        LatentStore.open(tmp_path / "foreign")
    seal = json.loads((store / "zarr.json").read_text())["attributes"]["codegan"]
    del seal["crc32c"]
    for version in (1, 3):
        other = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"codegan": with_checksum(seal | {"format": version})},
        }
        (store / "zarr.json").write_text(json.dumps(other))
        with pytest.raises(MismatchError, match=f"has format {version}.* reads 2") as refused:
            LatentStore.open(store)
        assert (refused.value.exit_code, refused.value.fix[:12]) == (4, "encode again")


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
def test_damage_to_any_file_is_found_and_the_file_named(tmp_path: Path, damage: str) -> None:
    store = make_store(tmp_path / "a store", "int8")
    files = contents(store)
    assert len(files) == 4 + 4 + 4 + 2 + 2  # shards, their scales, arrays' metadata, vectors, seals
    for name, content in files.items():
        path = store / name
        changed = DAMAGES[damage](content)
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        with pytest.raises(CorruptError) as found:
            read_all(store)
        assert found.value.what.startswith(f"{path}: ")
        assert found.value.advice == Advice(Action.REPAIR_STORE, {"store": store})
        assert find_damage(store)[1].keys() == {name}
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
    for offset in range(0, len(content), 7):
        flip_bit(path, offset)
        try:
            changed = json.loads(path.read_bytes())
        except ValueError:
            changed = None
        if changed != json.loads(content):  # the last digit of a float can move without moving the float
            with pytest.raises(CorruptError, match=str(path)):
                LatentStore.open(store)
        assert find_damage(store)[1].keys() == {"zarr.json"}
        path.write_bytes(content)


def test_two_shards_that_changed_places_are_found(store: Path) -> None:
    first = store / "latents/c/0/0/0/0"
    swap(first, store / "latents/c/1/0/0/0")
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


def test_a_journal_entry_cut_by_a_crash_is_done_again(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "store"
    write(make_writer(path), [0, 1, 2])
    entry = path / "journal" / "000001.json"
    whole = entry.read_bytes()
    for damaged in (whole[:-20], b"", b"[]", whole.replace(b"0", b"1", 1), b"\xff", None):
        if damaged is None:
            entry.unlink()
        else:
            entry.write_bytes(damaged)
        assert make_writer(path).missing_shards() == [1, 3]
    resumed = make_writer(path)
    write(resumed)
    resumed.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_journal_entries_of_another_shard_or_of_none_are_ignored(tmp_path: Path, dtype: DType) -> None:
    path = tmp_path / "store"
    write(make_writer(path, dtype), [1])
    for name in ("000000", "000003", "000004", "1", "1 copy", "1e0"):
        shutil.copy(path / "journal" / "000001.json", path / "journal" / f"{name}.json")
    resumed = make_writer(path, dtype)
    assert resumed.missing_shards() == [0, 2, 3]
    write(resumed)
    resumed.seal(KEYS, LABELS)
    assert contents(path) == contents(make_store(tmp_path / "straight", dtype))


@pytest.mark.parametrize("damage", DAMAGES)
def test_how_a_store_was_begun_is_known_from_any_finished_shard(tmp_path: Path, sealed: Path, damage: str) -> None:
    path = tmp_path / "store"
    write(make_writer(path), [0, 2])
    begun = path / "journal" / "begun.json"
    whole = begun.read_bytes()
    changed = DAMAGES[damage](whole)
    begun.unlink() if changed is None else begun.write_bytes(changed)
    assert find_stores(tmp_path) == [path]
    with pytest.raises(CorruptError, match="not sealed") as unsealed:
        LatentStore.open(path)
    assert unsealed.value.fix == "run the same encode again"
    with pytest.raises(MismatchError, match="another autoencoder"):
        make_writer(path, fingerprint="0" * 32)
    with pytest.raises(MismatchError, match="other settings"):
        make_writer(path, "int8")
    resumed = make_writer(path)
    assert begun.read_bytes() == whole
    assert resumed.missing_shards() == [1, 3]
    write(resumed)
    resumed.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_where_nothing_finished_tells_how_a_store_was_begun_nothing_is_lost_by_the_advice(
    tmp_path: Path, flip_bit: Callable[[Path, int], None]
) -> None:
    path = tmp_path / "store"
    make_writer(path)
    for offset in range(0, len((path / "journal" / "begun.json").read_bytes()), 7):
        whole = (path / "journal" / "begun.json").read_bytes()
        flip_bit(path / "journal" / "begun.json", offset)
        with pytest.raises(CorruptError, match="no finished shard") as refused:
            make_writer(path)
        assert f"remove {path}," in refused.value.fix
        (path / "journal" / "begun.json").write_bytes(whole)
    shutil.rmtree(path)
    make_writer(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_shard_damaged_before_the_seal_is_done_again(tmp_path: Path, sealed: Path, damage: str) -> None:
    path = tmp_path / "store"
    writer = make_writer(path)
    write(writer)
    file = path / "latents/c/2/0/0/0"
    changed = DAMAGES[damage](file.read_bytes())
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    writer.drop_damaged(range(4))
    assert writer.missing_shards() == [2]
    write(writer)
    writer.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_swapped_shards_are_done_again_before_the_seal(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "store"
    writer = make_writer(path)
    write(writer)
    swap(path / "latents/c/0/0/0/0", path / "latents/c/1/0/0/0")
    writer.drop_damaged([0, 1, 2, 3])
    assert writer.missing_shards() == [0, 1]
    write(writer)
    writer.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_what_killed_writers_leave_is_cleared_away(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "store"
    (path / "journal").mkdir(parents=True)
    (path / "journal" / ".partial-1-begun.json").write_text("{")
    writer = make_writer(path)  # so early a crash leaves no store to go on with
    (path / "latents/c/0/0/0").mkdir(parents=True)
    (path / "latents/c/0/0/0/.partial-1-0").write_bytes(b"half")
    write(writer)
    writer.seal(KEYS, LABELS)
    assert contents(path) == contents(sealed)


def test_a_reopened_store_lacks_what_is_damaged_and_is_sealed_as_it_was(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", "int8")
    before = contents(path)
    (path / "scales/c/1/0").unlink()
    swap(path / "latents/c/0/0/0/0", path / "latents/c/2/0/0/0")
    seal, damaged = find_damage(path)
    assert set(damaged) == {"scales/c/1/0", "latents/c/0/0/0/0", "latents/c/2/0/0/0"}
    writer = LatentWriter.reopen(path, seal, damaged)
    assert writer.missing_shards() == [0, 1, 2]
    assert LatentWriter.reopen(path, seal, damaged).missing_shards() == [0, 1, 2]  # as after a crash
    write(writer, [1])
    assert LatentWriter.reopen(path, seal, damaged).missing_shards() == [0, 2]
    write(writer)
    assert writer.seal(KEYS, LABELS) == seal
    assert contents(path) == before


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
