"""The latent store: a zarr v3 group that any zarr reader opens, with guarantees that zarr itself does not give.

    STORE/zarr.json          group metadata, written last; its attribute `codegan` seals the store
    STORE/latents/           array (N, C, H, W): a chunk with its crc32c for each sample, many in a shard file
    STORE/latents/seal.json  a copy of zarr.json, in case either is damaged
    STORE/scales/            array (N, C) float32, in int8 stores: a latent is its integer times its channel's scale
    STORE/labels/            array (N,) int64, -1 where the data has none
    STORE/keys/              array of uint8: the images' names in UTF-8, one on each line
    STORE/journal/           how the store was started, and a file for each finished shard, only while it is unsealed

Each shard has one writer: it is made in memory, written under a temporary name, synced, renamed, then journalled. No
process touches a file of another, and after a crash every shard is either finished or missing.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data.errors import CorruptError, MismatchError
from data.files.checksums import wrong_size
from data.sizes import Size, as_size
from data.sources.locations import Location, file_sizes, parse_location
from data.spacing import spaced_rows
from data.store.seal import damage_error, find_damage, read_seal, repair, shard_name
from data.store.shards import Loaded, load, vector, view

DType = Literal["float16", "float32", "int8"]
_SHARDS_IN_USE = 32  # mapped at a time by `LatentStore.read`


class StoredLatents(NamedTuple):
    """Latents in the number format of a store."""

    values: NDArray[Any]  # (n, C, H, W)
    scales: NDArray[np.float32] | None  # (n, C), with int8 only

    def latents(self) -> NDArray[np.float32]:
        """(n, C, H, W)."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self.scales[:, :, None, None]


class LatentStore:
    """A sealed store, read with every byte checked against the seal before its first use."""

    def __init__(self, path: Location, seal: Mapping[str, Any]) -> None:
        self.path, self.seal = path, seal
        self.fingerprint: str = seal["fingerprint"]
        self.code_shape: tuple[int, int, int] = tuple(seal["code_shape"])
        self.shard_rows: int = seal["rows"]
        self.mean: NDArray[np.float32] = np.asarray(seal["mean"], np.float32)
        self.std: NDArray[np.float32] = np.asarray(seal["std"], np.float32)
        self._shard = lru_cache(_SHARDS_IN_USE)(self.load_shard)

    @classmethod
    def open(cls, path: str | Location) -> Self:
        """Open a store and check the size of every file.

        Raises `InputError` without a store, `CorruptError` when it is unsealed or a file is missing or cut, and
        `MismatchError` when it has another format.
        """
        path = parse_location(path)
        seal = read_seal(path)
        sizes = file_sizes(path)
        for name, entry in seal["files"].items():
            if problem := wrong_size(sizes.get(name), entry):
                raise CorruptError(f"{path / name}: {problem}", *repair(path))
        return cls(path, seal)

    def need(self, *names: str) -> None:
        """Raise `MismatchError` unless the seal has these fields, which say what the latents were made of and how."""
        if missing := [name for name in names if self.seal.get(name) is None]:
            raise MismatchError(f"{self.path}: its seal has no {missing[0]}", "encode again into another folder")

    def __len__(self) -> int:
        return int(self.seal["count"])

    @property
    def image_size(self) -> Size:
        """Size of the images that were encoded, in pixels."""
        return as_size(self.seal["image_size"])

    @property
    def keys(self) -> list[str]:
        file = self._load("keys/c/0")
        keys = vector(file, np.uint8).tobytes().decode(errors="replace").split("\n")
        return self._one_a_row(keys, file)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), -1 where the data has no label."""
        file = self._load("labels/c/0")
        return self._one_a_row(vector(file, np.int64).copy(), file)

    def _one_a_row[Rows: list[str] | NDArray[np.int64]](self, rows: Rows, file: Loaded) -> Rows:
        if len(rows) != len(self):
            raise CorruptError(f"{file.path}: holds {len(rows)} entries for {len(self)} latents", *file.remedy)
        return rows

    def _load(self, name: str) -> Loaded:
        return load(self.path / name, self.seal["files"][name], repair(self.path))

    def load_shard(self, shard: int) -> StoredLatents:
        """The rows of one shard, mapped from its file; raises `CorruptError` naming a file that is damaged."""
        count = min(self.shard_rows, len(self) - shard * self.shard_rows)
        shape, dtype = (count, *self.code_shape), self.seal["dtype"]
        values = view(self._load(shard_name("latents", shard, 4)), shape, dtype)
        scales = view(self._load(shard_name("scales", shard, 2)), shape[:2], np.float32) if dtype == "int8" else None
        return StoredLatents(values, scales)

    def read(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """Raw latents in the order of `indices`, (n, C, H, W); raises `CorruptError` naming a damaged shard."""
        return self.read_stored(indices).latents()

    def read_spaced(self, count: int) -> NDArray[np.float32]:
        """At most `count` raw latents, evenly spaced over the store, (n, C, H, W)."""
        return self.read(spaced_rows(len(self), min(count, len(self))))

    def read_stored(self, indices: Sequence[int] | NDArray[np.integer]) -> StoredLatents:
        """Like `read`, in the number format of the store."""
        rows = np.asarray(indices, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index outside 0 ... {len(self) - 1}")
        values = np.empty((len(rows), *self.code_shape), self.seal["dtype"])
        scales = np.empty(values.shape[:2], np.float32) if values.dtype == np.int8 else None
        shards, offsets = np.divmod(rows, self.shard_rows)
        for shard in np.unique(shards):
            here, stored = shards == shard, self._shard(int(shard))
            values[here] = stored.values[offsets[here]]
            if scales is not None and stored.scales is not None:
                scales[here] = stored.scales[offsets[here]]
        return StoredLatents(values, scales)

    def verify(self) -> None:
        """Check every byte; raises `CorruptError` naming the first damaged file and how many more there are."""
        _, damaged = find_damage(self.path)
        if damaged:
            raise damage_error(self.path, damaged)
