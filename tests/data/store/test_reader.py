"""However a store is read, the same batches come out."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from data.errors import CorruptError
from data.latents import DType, LatentStore, StoredLatents
from data.seeds import coins
from data.store.order import SampleOrder
from data.store.reader import LatentReader, ReadMode
from data.store.writer import LatentWriter

COUNT, SHAPE, ROWS = 131, (2, 3, 3), 2  # 66 shards, so several windows
LATENTS = np.tanh(np.random.default_rng(0).normal(size=(COUNT, *SHAPE))).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 9, COUNT)
MODES: tuple[ReadMode, ...] = ("device", "memory", "stream")


@pytest.fixture(scope="module", params=get_args(DType))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LatentStore:
    path = tmp_path_factory.mktemp("reader") / "store"
    writer = LatentWriter(path, COUNT, SHAPE, request.param, {"fingerprint": "f", "image_size": 3}, ROWS)
    for shard in writer.missing_shards():
        writer.write_shard(shard, LATENTS[writer.rows_of(shard)])
    writer.seal([str(index) for index in range(COUNT)], LABELS)
    return LatentStore.open(path)


def batches(reader: LatentReader, start: int, stop: int, size: int = 16) -> Iterator[torch.Tensor]:
    return (reader.batch(position, size) for position in range(start, stop, size))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_what_the_store_holds_at_the_rows_of_the_order(store: LatentStore, mode: ReadMode) -> None:
    reader, order = LatentReader(store, seed=3, mode=mode), SampleOrder(COUNT, 3, ROWS)
    for start in range(0, 3 * COUNT, 16):
        rows, batch = reader.rows(start, 16), reader.batch(start, 16)
        assert rows.tolist() == order.rows(start, 16).tolist()
        assert (batch.dtype, batch.shape) == (torch.float32, (16, *SHAPE))
        np.testing.assert_array_equal(batch.numpy(), store.read(rows))
        assert store.labels[rows].tolist() == LABELS[rows].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_balanced_reading_shows_each_class_equally_often(store: LatentStore, mode: ReadMode) -> None:
    classes = np.minimum(np.arange(COUNT) // 10, 2)  # 10, 10 and all others
    reader = LatentReader(store, seed=3, mode=mode, balanced=classes)
    rows = reader.rows(0, 3000)
    np.testing.assert_array_equal(reader.rows(700, 50), rows[700:750])
    np.testing.assert_array_equal(reader.batch(700, 50).numpy(), store.read(rows[700:750]))
    shares = np.bincount(classes[rows]) / len(rows)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.04)
    assert set(rows.tolist()) == set(range(COUNT))


@pytest.mark.parametrize("mode", MODES)
def test_reading_may_begin_anywhere_and_go_back(store: LatentStore, mode: ReadMode) -> None:
    whole = torch.cat(list(batches(LatentReader(store, 0, mode=mode), 0, 480)))
    reader = LatentReader(store, 0, mode=mode)
    for start, count in ((150, 30), (400, 64), (0, 5), (7, 0), (10, 300)):
        assert torch.equal(reader.batch(start, count), whole[start : start + count])


@pytest.mark.parametrize("mode", MODES)
def test_with_a_mirror_each_latent_goes_through_it_where_its_coin_says_so(store: LatentStore, mode: ReadMode) -> None:
    def mirror(latents: torch.Tensor) -> torch.Tensor:
        return -latents.flip(-1)

    reader = LatentReader(store, 3, mode=mode, mirror=mirror)
    plain, tossed = reader.rows(0, 480), coins(3, 0, 480)
    expected = [
        mirror(row) if head else row for row, head in zip(torch.from_numpy(store.read(plain)), tossed, strict=True)
    ]
    for size in (16, 7):  # 480 = 68 * 7 + 4
        whole = torch.cat(list(batches(reader, 0, 480, size)))[:480]
        assert torch.equal(whole, torch.stack(expected))
    assert torch.equal(reader.batch(333, 5), torch.stack(expected[333:338]))


def test_streaming_keeps_two_windows_and_has_the_next_one_before_it_is_needed(store: LatentStore) -> None:
    reader, order = LatentReader(store, 0, mode="stream"), SampleOrder(COUNT, 0, ROWS)
    for start in range(0, 2 * COUNT, 8):
        reader.batch(start, 8)
        window = order.window(start + 7)
        following = order.window(window.stop)
        kept = set(reader._shards)
        assert kept >= set(window.shards.tolist())
        assert kept <= {*order.window(start).shards.tolist(), *window.shards.tolist(), *following.shards.tolist()}
        if start + 8 - window.start > len(window.rows) / 2:
            assert kept >= set(following.shards.tolist())


def test_shards_in_memory_are_loaded_once(store: LatentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, load, loads = LatentReader(store, 0, mode="memory"), store.load_shard, list[int]()

    def counted(shard: int) -> StoredLatents:
        loads.append(shard)
        return load(shard)

    monkeypatch.setattr(store, "load_shard", counted)
    list(batches(reader, 0, 3 * COUNT))
    assert sorted(loads) == list(range(66))


@pytest.mark.parametrize("mode", MODES)
def test_a_damaged_shard_is_named_when_its_rows_are_due(tmp_path: Path, mode: ReadMode) -> None:
    writer = LatentWriter(tmp_path, 6, SHAPE, "float16", {"fingerprint": "f", "image_size": 3}, ROWS)
    for shard in range(3):
        writer.write_shard(shard, LATENTS[writer.rows_of(shard)])
    writer.seal(list("abcdef"))
    path = tmp_path / "latents/c/1/0/0/0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=str(path)):
        list(batches(LatentReader(LatentStore.open(tmp_path), 0, mode=mode), 0, 16))


def test_the_mode_follows_the_memory_there_is(store: LatentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(entry["bytes"] for entry in store.seal["files"].values())
    for available, mode in ((2 * needed, "memory"), (2 * needed - 1, "stream")):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=available: type("Memory", (), {"available": free}))
        assert LatentReader(store, 0).mode == mode


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_receives_the_same_in_every_mode(store: LatentStore) -> None:
    assert LatentReader(store, 0, "cuda").mode == "device"
    expected = torch.cat(list(batches(LatentReader(store, 0), 0, 480)))
    for mode in MODES:
        batch = torch.cat(list(batches(LatentReader(store, 0, "cuda", mode), 0, 480)))
        assert batch.device.type == "cuda"
        assert torch.equal(batch.cpu(), expected)
