"""Random batches from a latent store against the usual ways to read as many numbers.

    uv run python -m benchmarks.reads --out FOLDER [--gb 2] [--batch 64] [--batches 32] [--rounds 3]

FOLDER receives the same latents (16 x 64 x 64, float16) three times: as a store, as one memory-mapped array and as
webdataset shards of `.npy` files. Every way gives float32 batches; all but webdataset in random order. The files fit
in memory and have been read once, so this times the software and not the disk.
"""

import argparse
import io
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from webdataset import WebDataset

from benchmarks.machine import describe, interleaved
from data.latents import LatentStore
from data.store.reader import LatentReader
from data.store.writer import LatentWriter

SHAPE = (16, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    count = round(options.gb * 1e9 / (2 * np.prod(SHAPE)))
    store, array, tars = make(options.out, count)
    ways: dict[str, Callable[[], Tensor]] = {
        "np.memmap": of_memmap(array, options.batch),
        "store, memory": of_reader(LatentReader(store, seed=0, mode="memory"), options.batch),
        "store, stream": of_reader(LatentReader(store, seed=0, mode="stream"), options.batch),
        "webdataset of .npy": of_webdataset(tars, options.batch),
        "zarr, item by item": of_zarr(options.out / "store", options.batch),
    }
    actions = {name: repeat(way, options.batches) for name, way in ways.items()}
    times = interleaved(actions, options.rounds)
    print(f"{describe()}; {count} latents of 16 x 64 x 64 in float16, {options.gb:g} GB, ", end="")
    print(f"median of {options.rounds} rounds of {options.batches} batches of {options.batch}\n")
    print("| | ms a batch | latents/s | time against np.memmap |\n|---|---|---|---|")
    for name, seconds in times.items():
        batch = seconds / options.batches
        ratio = seconds / times["np.memmap"]
        print(f"| {name} | {1000 * batch:.2f} | {options.batch / batch:.0f} | {ratio:.2f} |")


def repeat(way: Callable[[], Tensor], times: int) -> Callable[[], None]:
    def action() -> None:
        for _ in range(times):
            way()

    return action


def make(out: Path, count: int) -> tuple[LatentStore, Path, list[Path]]:
    """The three copies; what is there from an earlier run is used again."""
    path, array = out / "store", out / "latents.npy"
    if not (path / "zarr.json").exists():
        writer = LatentWriter(path, count, SHAPE, "float16", {"fingerprint": "random", "image_size": 256})
        for shard in writer.missing_shards():
            random = np.random.default_rng(shard)
            writer.write_shard(shard, random.uniform(-1, 1, (len(writer.rows_of(shard)), *SHAPE)).astype(np.float32))
        writer.seal([f"{index}" for index in range(count)])
    store = LatentStore.open(path)
    tars = [out / f"{index:03d}.tar" for index in range(-(-count // 1024))]
    if not array.exists():
        copy = np.lib.format.open_memmap(array, "w+", np.float16, (count, *SHAPE))
        for tar, rows in zip(tars, itertools.batched(range(count), 1024), strict=True):
            copy[rows[0] : rows[-1] + 1] = store.read_stored(rows).values
            write_tar(tar, copy, rows)
    return store, array, tars


def write_tar(path: Path, latents: NDArray[np.float16], rows: tuple[int, ...]) -> None:
    with tarfile.open(path, "w") as tar:
        for row in rows:
            content = io.BytesIO()
            np.save(content, latents[row])
            member = tarfile.TarInfo(f"{row:08d}.npy")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)


def random_rows(count: int, batch: int) -> Iterator[NDArray[np.int64]]:
    random = np.random.default_rng(0)
    while True:
        yield random.integers(count, size=batch)


def of_memmap(path: Path, batch: int) -> Callable[[], Tensor]:
    latents = np.lib.format.open_memmap(path, "r")
    latents.sum(dtype=np.float64)  # every page once
    rows = random_rows(len(latents), batch)
    return lambda: torch.from_numpy(latents[next(rows)]).float()


def of_reader(reader: LatentReader, batch: int) -> Callable[[], Tensor]:
    starts = itertools.count(step=batch)
    return lambda: reader.batch(next(starts), batch)


def of_zarr(path: Path, batch: int) -> Callable[[], Tensor]:
    latents = zarr.open_array(path / "latents", mode="r")
    rows = random_rows(latents.shape[0], batch)
    return lambda: torch.from_numpy(np.stack([np.asarray(latents[int(row)]) for row in next(rows)])).float()


def of_webdataset(tars: list[Path], batch: int) -> Callable[[], Tensor]:
    def load(sample: dict[str, bytes]) -> NDArray[np.float16]:
        latent: NDArray[np.float16] = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
        return latent

    shards = WebDataset([str(tar) for tar in tars], shardshuffle=len(tars), seed=0).shuffle(1000).map(load).repeat()
    latents = iter(shards)
    return lambda: torch.from_numpy(np.stack([next(latents) for _ in range(batch)])).float()


if __name__ == "__main__":
    main()
