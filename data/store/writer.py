"""Filling a latent store shard by shard, so that no crash loses a finished shard and processes never share one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.errors import CorruptError, MismatchError, UsageError
from data.files.atomic import remove_partials, write_bytes, write_json
from data.files.checksums import StoreEntry, damaged_files, make_entry, read_checked, size_damage, with_checksum
from data.latents import DType, StoredLatents
from data.sources.locations import Location, remove_tree
from data.store.seal import FORMAT, JOURNAL, SETTINGS, journal_entries, shard_name, write_seal
from data.store.shards import array_files, shard_bytes
from data.strict_json import parse

_INT8_STEPS = 127
_SHARD_BYTES = 1 << 25
_STATISTICS = ("sum", "sum_of_squares", "min", "max")
_DERIVED = ("format", "mean", "std", "value_range", "files", "crc32c")  # what sealing adds to the settings


def default_shard_rows(code_shape: Sequence[int], dtype: DType) -> int:
    """How many samples a shard of at most 32 MB holds: a power of two, so that shards of several sizes end together."""
    rows = max(1, _SHARD_BYTES // (int(np.prod(code_shape)) * np.dtype(dtype).itemsize))
    return 1 << (rows.bit_length() - 1)


def quantise(latents: NDArray[np.float32], dtype: DType) -> StoredLatents:
    """int8 is symmetric, with the scale max |latent| / 127 for each channel of each sample."""
    if dtype != "int8":
        return StoredLatents(latents.astype(dtype), None)
    scales = (np.abs(latents).max((2, 3)) / _INT8_STEPS).astype(np.float32)
    scales[scales == 0] = 1  # zeros stay zeros
    return StoredLatents(np.rint(latents / scales[:, :, None, None]).astype(np.int8), scales)


@dataclass(frozen=True)
class _Finished:
    """The shape of a shard's entry in the journal."""

    begun: int  # checksum of the settings
    files: dict[str, StoreEntry]


class LatentWriter:
    """Fills a store shard by shard; `seal` makes it readable. The journal alone says which shards are finished."""

    def __init__(
        self,
        path: Location,
        count: int,
        code_shape: tuple[int, int, int],
        dtype: DType,
        settings: Mapping[str, Any],
        shard_rows: int | None = None,
    ) -> None:
        """Start a store of `count` latents, or go on with an unsealed one.

        `settings` say what the latents are made of and how. They become part of the seal and must hold `fingerprint`.
        Raises `MismatchError` when the folder was started with others, `CorruptError` when nothing undamaged records
        with which, and `UsageError` when it holds anything else.
        """
        self.path, self.count, self.code_shape, self.dtype = path, count, code_shape, dtype
        self.shard_rows = shard_rows or default_shard_rows(code_shape, dtype)
        settings = {**settings, "count": count, "code_shape": code_shape, "dtype": dtype, "rows": self.shard_rows}
        self._settings = parse(json.dumps(settings).encode())  # lists for tuples, as it will be read
        self._checksum = with_checksum(self._settings)["crc32c"]
        self._start()

    def _start(self) -> None:
        """Write the settings, or check that those of the unfinished store are the same.

        Journal entries hold the settings' checksum, so that any of them can stand in for a damaged file of settings.
        """
        path, recorded = self.path, read_checked(self.path / SETTINGS)
        checksums = [recorded["crc32c"]] if recorded else [entry.get("begun") for entry in self._entries().values()]
        if any(checksum != self._checksum for checksum in checksums):
            raise MismatchError(
                f"{path}: was started with other images, another autoencoder or other settings",
                "repeat the first command, remove the folder, or choose another --out",
            )
        if recorded:
            return
        if not checksums:
            self._refuse_occupied()
        write_json(path / SETTINGS, with_checksum(self._settings))

    def _refuse_occupied(self) -> None:
        path = self.path
        if (path / SETTINGS).is_file():
            raise CorruptError(
                f"{path / SETTINGS}: is damaged, and no finished shard records how the store was started",
                f"remove {path}, since nothing in it can be used, or choose another --out",
            )
        if path.is_file() or any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*")):
            raise UsageError(f"{path}: exists and is not an unfinished store", "choose another --out")

    @classmethod
    def reopen(cls, path: Location, seal: Mapping[str, Any], damaged: Mapping[str, str]) -> Self:
        """A writer for the damaged shards of a sealed store: its journal is rebuilt from the seal without them."""
        settings = {name: value for name, value in seal.items() if name not in _DERIVED}
        if read_checked(path / SETTINGS) != with_checksum(settings):  # as after an encode that was killed once sealed
            remove_journal(path)
            write_json(path / SETTINGS, with_checksum(settings))
        writer = cls(path, seal["count"], tuple(seal["code_shape"]), seal["dtype"], settings, seal["rows"])
        finished = writer._finished()
        for shard in range(writer.num_shards):
            names = writer._names(shard)
            if shard not in finished and not damaged.keys() & set(names):
                writer._journal(shard, {name: seal["files"][name] for name in names})
        return writer

    @property
    def num_shards(self) -> int:
        return -(-self.count // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.count))

    def missing_shards(self) -> list[int]:
        """Shards without an undamaged journal entry of their own, or whose files have another size than it says."""
        finished = self._finished()
        return [shard for shard in range(self.num_shards) if shard not in finished]

    def _finished(self) -> dict[int, dict[str, Any]]:
        """The files of each finished shard by name, as the seal will list them."""
        entries, finished = self._entries(), {}
        for shard in range(self.num_shards):
            entry = entries.get(self._entry(shard).name, {})
            if entry.get("begun") != self._checksum or entry["files"].keys() != set(self._names(shard)):
                continue
            if not any(size_damage(self.path / name, file) for name, file in entry["files"].items()):
                finished[shard] = entry["files"]
        return finished

    def _entries(self) -> dict[str, dict[str, Any]]:
        """The undamaged entries of the journal by file name, whichever store or shard they were written for."""
        return {path.name: entry for path in journal_entries(self.path) if (entry := read_checked(path, _Finished))}

    def write_shard(self, shard: int, latents: NDArray[np.float32]) -> None:
        """Commit the latents of one shard, (len(rows_of(shard)), C, H, W)."""
        rows = self.rows_of(shard)
        if latents.shape != (len(rows), *self.code_shape):
            raise ValueError(f"shard {shard} takes {(len(rows), *self.code_shape)}, not {latents.shape}")
        if not np.isfinite(latents).all():
            raise CorruptError(f"{self.path}: the encoder produced NaN or infinity", "train the autoencoder again")
        stored = quantise(latents, self.dtype)
        parts = [part for part in stored if part is not None]
        files: dict[str, dict[str, Any]] = {}
        for name, part in zip(self._names(shard), parts, strict=True):
            body = shard_bytes(part, self.shard_rows)
            write_bytes(self.path / name, body)
            files[name] = make_entry([body], "crc32")
        files[self._names(shard)[0]] |= _statistics(stored.latents())
        self._journal(shard, files)

    def _names(self, shard: int) -> list[str]:
        """The files of a shard: the latents and, in an int8 store, their scales."""
        latents, scales = shard_name("latents", shard, 4), shard_name("scales", shard, 2)
        return [latents, scales] if self.dtype == "int8" else [latents]

    def _journal(self, shard: int, files: Mapping[str, Any]) -> None:
        write_json(self._entry(shard), with_checksum({"begun": self._checksum, "files": files}))

    def _entry(self, shard: int) -> Location:
        return self.path / JOURNAL / f"{shard:06d}.json"

    def drop_damaged(self, shards: Sequence[int]) -> None:
        """Read back those of `shards` that are finished; one that does not match its checksum counts as missing."""
        finished = self._finished()
        for shard in set(shards) & finished.keys():
            if any(damaged_files(self.path, finished[shard])):
                self._entry(shard).unlink()

    def seal(
        self, keys: Sequence[str], labels: NDArray[np.int64] | None = None, **remarks: str | int | list[str]
    ) -> dict[str, Any]:
        """Write the labels, the keys and, last, the seal, and return it.

        `remarks` join the settings but, unlike them, may differ between the runs that filled the store.
        """
        finished = self._finished()
        if missing := self.num_shards - len(finished):
            raise ValueError(f"{missing} shards are missing")
        files = {name: file for shard in sorted(finished) for name, file in finished[shard].items()}
        for name, body in self._plain_files(keys, labels):
            write_bytes(self.path / name, body)
            files[name] = make_entry([body], "crc32")
        statistics = [finished[shard][self._names(shard)[0]] for shard in range(self.num_shards)]
        total = {name: np.array([entry[name] for entry in statistics]) for name in _STATISTICS}  # (shards, C) each
        pixels = self.count * self.code_shape[1] * self.code_shape[2]
        mean, square = total["sum"].sum(0) / pixels, total["sum_of_squares"].sum(0) / pixels
        seal = with_checksum(
            {
                **self._settings,
                **remarks,
                "format": FORMAT,
                "mean": mean.tolist(),
                "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
                "value_range": [float(total["min"].min()), float(total["max"].max())],
                "files": files,
            }
        )
        remove_partials(self.path)
        write_seal(self.path, seal)
        remove_journal(self.path)
        return seal

    def _plain_files(self, keys: Sequence[str], labels: NDArray[np.int64] | None) -> Iterator[tuple[str, bytes]]:
        """All files but the shards: each array's `zarr.json`, the labels and the keys."""
        channels, rows = self.code_shape[0], self.shard_rows
        arrays = {"latents": array_files((self.count, *self.code_shape), self.dtype, rows)}
        if self.dtype == "int8":
            arrays["scales"] = array_files((self.count, channels), np.float32, rows)
        names = np.frombuffer("\n".join(keys).encode(), np.uint8)
        classes = np.full(self.count, -1, np.int64) if labels is None else labels
        for name, vector in (("labels", classes), ("keys", names)):
            arrays[name] = array_files(vector.shape, vector.dtype, len(vector), len(vector), vector)
        return ((f"{array}/{name}", body) for array, files in arrays.items() for name, body in files.items())


def _statistics(latents: NDArray[np.float32]) -> dict[str, list[float]]:
    """What the seal needs to know of a shard that another process may have written, by channel."""
    values, axes = latents.astype(np.float64), (0, 2, 3)
    numbers = (values.sum(axes), np.square(values).sum(axes), values.min(axes), values.max(axes))
    return {name: number.tolist() for name, number in zip(_STATISTICS, numbers, strict=True)}


def remove_journal(path: Location) -> None:
    """Delete the journal of a sealed store, which no longer needs it."""
    remove_tree(path / JOURNAL)
