"""The latent store: a zarr v3 group that any zarr reader opens, with guarantees zarr itself does not give.

    STORE/zarr.json        group metadata, written last; its attribute `codegan` seals the store
    STORE/latents/         array (N, C, H, W): one chunk a sample, crc32c each, many samples a shard file
    STORE/labels/          array (N,) int64, -1 where the data has none
    STORE/keys/            array of uint8: the images' names as UTF-8, one a line
    STORE/journal.jsonl    finished shards, only while the store is unsealed

zarr's defaults return zeros or wrong numbers for missing, swapped or flipped bytes. The seal therefore holds the size
and CRC-32 of every file; a shard is checked against it when it is first read, and `verify` checks them all.
One shard has one writer: a shard is made in memory, written under a temporary name, synced, renamed, then journalled.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import psutil
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from data.errors import CorruptError, InputError, MismatchError, UsageError
from data.storage import crc32, crc32c_bytes, disk_errors, read_json, verify_file, write_bytes, write_json

FORMAT = 1
DType = Literal["float16", "float32", "int8"]
_INT8_STEPS = 127  # int8 stores round(127 * latent): the encoder ends in tanh, so |latent| <= 1
_SHARD_BYTES = 1 << 25
_JOURNAL = "journal.jsonl"


def default_shard_rows(code_shape: Sequence[int], dtype: DType) -> int:
    """Samples a shard file of about 32 MB holds."""
    return max(1, _SHARD_BYTES // (int(np.prod(code_shape)) * np.dtype(dtype).itemsize))


def _array_options(dtype: np.dtype[Any], shard: Sequence[int], chunk: Sequence[int]) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "chunks": tuple(chunk),
        "shards": tuple(shard),
        "compressors": [Crc32cCodec()],
        "fill_value": np.nan if dtype.kind == "f" else 0,
        "config": {"write_empty_chunks": True},  # a chunk of zeros is data, not absence
    }


def _to_stored(latents: NDArray[np.float32], dtype: DType) -> NDArray[Any]:
    return np.rint(latents * _INT8_STEPS).astype(np.int8) if dtype == "int8" else latents.astype(dtype)


def _from_stored(stored: NDArray[Any]) -> NDArray[np.float32]:
    values = stored.astype(np.float32)
    return values / np.float32(_INT8_STEPS) if stored.dtype == np.int8 else values


class LatentWriter:
    """Fills a store shard by shard; `seal` makes it readable. Shards already journalled are not written again."""

    def __init__(
        self,
        path: Path,
        count: int,
        code_shape: tuple[int, int, int],
        dtype: DType,
        metadata: Mapping[str, Any],
        shard_rows: int | None = None,
    ) -> None:
        """Start a store of `count` latents, or go on with an unsealed one.

        `metadata` is kept in the seal; it must hold `fingerprint`. Raises `MismatchError` when the folder was
        started for other latents, `UsageError` when it holds anything else.
        """
        self.path, self.count, self.code_shape, self.dtype = path, count, code_shape, dtype
        self.shard_rows = shard_rows or default_shard_rows(code_shape, dtype)
        self._header = json.loads(
            json.dumps({**metadata, "count": count, "code_shape": code_shape, "dtype": dtype, "rows": self.shard_rows})
        )
        self._finished = self._resume()

    def _resume(self) -> dict[int, dict[str, Any]]:
        journal = self.path / _JOURNAL
        if not journal.is_file():
            occupied = self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir())
            if occupied or self.path.is_file():
                raise UsageError(f"{self.path}: exists and is not an unfinished store", "choose another --out")
            with disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            write_bytes(journal, (json.dumps(self._header) + "\n").encode())
            return {}
        header, *lines, cut = journal.read_text().split("\n")  # what follows the last newline was cut by a crash
        if json.loads(header) != self._header:
            raise MismatchError(
                f"{self.path}: was begun with other images, another autoencoder or other settings",
                "repeat the first command, remove the folder, or choose another --out",
            )
        if cut:
            write_bytes(journal, "".join(f"{line}\n" for line in [header, *lines]).encode())
        entries = [json.loads(line) for line in lines]
        return {entry["shard"]: entry for entry in entries}

    @property
    def num_shards(self) -> int:
        return -(-self.count // self.shard_rows)

    def missing_shards(self) -> list[int]:
        return [shard for shard in range(self.num_shards) if shard not in self._finished]

    def rows_of(self, shard: int) -> range:
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.count))

    def write_shard(self, shard: int, latents: NDArray[np.float32]) -> None:
        """Commit the latents of one shard, (len(rows_of(shard)), C, H, W)."""
        rows = self.rows_of(shard)
        if latents.shape != (len(rows), *self.code_shape):
            raise ValueError(f"shard {shard} takes {(len(rows), *self.code_shape)}, not {latents.shape}")
        if not np.isfinite(latents).all():
            raise CorruptError(f"{self.path}: the encoder produced NaN or infinity", "train the autoencoder again")
        stored = _to_stored(latents, self.dtype)
        body = self._shard_bytes(stored)
        target = self.path / "latents" / "c" / str(shard) / "0" / "0" / "0"
        with disk_errors(self.path):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, body)
        values = _from_stored(stored).astype(np.float64)
        entry = {
            "shard": shard,
            "bytes": len(body),
            "crc32": zlib.crc32(body),
            "sum": values.sum((0, 2, 3)).tolist(),
            "sum_of_squares": np.square(values).sum((0, 2, 3)).tolist(),
        }
        with disk_errors(self.path), (self.path / _JOURNAL).open("a") as journal:
            journal.write(json.dumps(entry) + "\n")
        self._finished[shard] = entry

    def _shard_bytes(self, stored: NDArray[Any]) -> bytes:
        """The bytes of a shard file, from zarr's own codecs run in memory, so that committing them is ours."""
        shard, chunk = (self.shard_rows, *self.code_shape), (1, *self.code_shape)
        memory: dict[str, Any] = {}
        array = zarr.create_array(MemoryStore(memory), shape=stored.shape, **_array_options(stored.dtype, shard, chunk))
        array[:] = stored
        return bytes(memory["c/0/0/0/0"].to_bytes())

    def seal(self, keys: Sequence[str], labels: NDArray[np.int64] | None = None, **remarks: str) -> None:
        """Write labels, keys and, last, the group metadata with the checksums of every file.

        `remarks` join the metadata but, unlike it, may differ between the runs that filled the store.
        """
        self._finished = self._resume()  # other processes wrote shards too
        if missing := self.missing_shards():
            raise ValueError(f"{len(missing)} shards are missing")
        shape = (self.count, *self.code_shape)
        shard, chunk = (self.shard_rows, *self.code_shape), (1, *self.code_shape)
        options = _array_options(np.dtype(self.dtype), shard, chunk)
        zarr.create_array(self.path / "latents", shape=shape, overwrite=False, **options)
        self._write_vector("labels", np.full(self.count, -1, np.int64) if labels is None else labels)
        self._write_vector("keys", np.frombuffer("\n".join(keys).encode(), np.uint8))
        entries = [self._finished[index] for index in range(self.num_shards)]
        pixels = self.count * self.code_shape[1] * self.code_shape[2]
        mean = np.sum([entry["sum"] for entry in entries], axis=0) / pixels
        square = np.sum([entry["sum_of_squares"] for entry in entries], axis=0) / pixels
        files = {f"latents/c/{e['shard']}/0/0/0": {"bytes": e["bytes"], "crc32": e["crc32"]} for e in entries}
        for path in sorted(p for name in ("latents", "labels", "keys") for p in (self.path / name).rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and name not in files:
                files[name] = {"bytes": path.stat().st_size, "crc32": crc32(path)}
        seal = {
            **self._header,
            **remarks,
            "format": FORMAT,
            "mean": mean.tolist(),
            "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
            "files": files,
        }
        seal["crc32c"] = _seal_checksum(seal)
        write_json(self.path / "zarr.json", _group_metadata(seal))
        (self.path / _JOURNAL).unlink()

    def _write_vector(self, name: str, values: NDArray[Any]) -> None:
        shape = (max(1, len(values)),)
        array = zarr.create_array(
            self.path / name, shape=values.shape, overwrite=True, **_array_options(values.dtype, shape, shape)
        )
        array[:] = values


def _group_metadata(seal: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {"codegan": seal}}


def _seal_checksum(seal: Mapping[str, Any]) -> int:
    content = {key: value for key, value in seal.items() if key != "crc32c"}
    return crc32c_bytes(json.dumps(content, sort_keys=True).encode())


class LatentStore:
    """A sealed store, read with every byte checked against the seal before its first use."""

    def __init__(self, path: Path, seal: Mapping[str, Any]) -> None:
        self.path, self.metadata = path, seal
        self.fingerprint: str = seal["fingerprint"]
        self.code_shape: tuple[int, int, int] = tuple(seal["code_shape"])
        self.mean: NDArray[np.float32] = np.asarray(seal["mean"], np.float32)
        self.std: NDArray[np.float32] = np.asarray(seal["std"], np.float32)
        self._checked: set[str] = set()
        self._latents = zarr.open_array(path / "latents", mode="r", config={"read_missing_chunks": False})

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Raises `InputError` without a store, `CorruptError` when unsealed or damaged, `MismatchError` when newer."""
        path = Path(path)
        if (path / _JOURNAL).is_file() and not (path / "zarr.json").is_file():
            raise CorruptError(f"{path}: is not sealed; its encoding was interrupted", "run the same encode again")
        if not (path / "zarr.json").is_file():
            raise InputError(f"{path}: there is no latent store here", "make one with `codegan encode`")
        metadata = read_json(path / "zarr.json")
        seal = metadata.get("attributes", {}).get("codegan") if isinstance(metadata, dict) else None
        if not isinstance(seal, dict):
            raise MismatchError(f"{path}: is not a store of codegan", "make one with `codegan encode`")
        if seal.get("format", 0) > FORMAT:
            raise MismatchError(f"{path}: has format {seal['format']}, newer than {FORMAT}", "update codegan")
        if metadata != _group_metadata(seal) or seal.get("crc32c") != _seal_checksum(seal):
            raise CorruptError(f"{path / 'zarr.json'}: does not match its checksum", _repair(path))
        for name, entry in seal["files"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                problem = "has the wrong size" if file.is_file() else "is missing"
                raise CorruptError(f"{file}: {problem}", _repair(path))
        for name in seal["files"]:
            if name.endswith("zarr.json"):
                _check(path, seal, name)
        return cls(path, seal)

    def __len__(self) -> int:
        return int(self.metadata["count"])

    @property
    def image_size(self) -> int:
        """Side of the images that were encoded, pixels."""
        return int(self.metadata["image_size"])

    @property
    def keys(self) -> list[str]:
        return bytes(self._vector("keys")).decode().split("\n")

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), -1 where the data has no label."""
        return self._vector("labels")

    def _vector(self, name: str) -> NDArray[Any]:
        self._ensure(f"{name}/c/0")
        return np.asarray(zarr.open_array(self.path / name, mode="r")[:])

    def _ensure(self, name: str) -> None:
        if name not in self._checked:
            _check(self.path, self.metadata, name)
            self._checked.add(name)

    def read_stored(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[Any]:
        """Like `read`, in the store's own number format."""
        rows = np.asarray(indices, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index outside 0 ... {len(self) - 1}")
        for shard in np.unique(rows // self.metadata["rows"]):
            self._ensure(f"latents/c/{shard}/0/0/0")
        try:
            return np.asarray(self._latents.oindex[rows])
        except (ValueError, OSError, zarr.errors.BaseZarrError) as error:
            raise CorruptError(f"{self.path}: cannot be read ({error})", _repair(self.path)) from error

    def read(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """Raw latents in the order of `indices`, (n, C, H, W); raises `CorruptError` naming a damaged shard."""
        return _from_stored(self.read_stored(indices))

    def verify(self) -> None:
        """Check every byte; raises `CorruptError` naming the first damaged file."""
        for name in self.metadata["files"]:
            _check(self.path, self.metadata, name)


def _check(path: Path, seal: Mapping[str, Any], name: str) -> None:
    entry = seal["files"][name]
    verify_file(path / name, entry["bytes"], entry["crc32"], _repair(path), crc32)


def _repair(path: Path) -> str:
    return f"restore the file from a copy, or remove {path} and run `codegan encode` again"


class LatentReader:
    """Batches for training: the whole store in memory when it takes at most half of what is free, else from disk."""

    def __init__(self, store: LatentStore) -> None:
        self._store, self.count = store, len(store)
        needed = sum(entry["bytes"] for entry in store.metadata["files"].values())
        self._memory: NDArray[Any] | None = None
        if 2 * needed <= psutil.virtual_memory().available:
            self._memory = store.read_stored(np.arange(len(store)))

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Raw latents in that order, (n, C, H, W)."""
        return self._store.read(indices) if self._memory is None else _from_stored(self._memory[indices])
