"""Shard files: written by zarr's own codecs, and read in place as one strided array.

    row 0 | crc32c | row 1 | crc32c | ... | (offset, bytes) of every row | crc32c of that index

A row is one chunk, raw and little-endian; zarr's `sharding_indexed` codec puts the index at the end. Rows are evenly
spaced, so a mapped file is an array without copying a byte. zarr writes all of this but does not read it here: its
reads of single chunks are slow, and it cannot tell a shard from another one in its place.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from data.advice import Remedy
from data.errors import CorruptError
from data.files.checksums import Entry, content_damage, crc32c, size_damage
from data.sources.locations import Location, read_range
from data.store.seal import shard_name

_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16  # for each row in the index
_ABSENT = 2**64 - 1  # offset and size, in the index, of the rows that the last shard lacks


def array_files(
    shape: Sequence[int], dtype: DTypeLike, rows: int, chunk_rows: int = 1, values: NDArray[Any] | None = None
) -> dict[str, bytes]:
    """The files of a zarr array by name: `zarr.json`, and with `values` the shards of `rows` rows each."""
    kind, files = np.dtype(dtype).kind, dict[str, Any]()
    array = zarr.create_array(
        MemoryStore(files),
        shape=tuple(shape),
        dtype=np.dtype(dtype),
        chunks=(chunk_rows, *shape[1:]),
        shards=(rows, *shape[1:]),
        compressors=[Crc32cCodec()],
        fill_value=np.nan if kind == "f" else 0,
        config={"write_empty_chunks": True},  # a chunk of zeros is data, not absence
    )
    if values is not None:
        array[:] = values
    return {name: bytes(content.to_bytes()) for name, content in files.items()}


def shard_bytes(stored: NDArray[Any], rows: int) -> bytes:
    """The content of the file of one shard that has room for `rows` rows."""
    return array_files(stored.shape, stored.dtype, rows, values=stored)[shard_name("", 0, stored.ndim)[1:]]


class Loaded(NamedTuple):
    """The bytes of a file, which match its checksum, with its path and how to repair it."""

    content: NDArray[np.uint8]
    path: Location
    remedy: Remedy


def load(path: Location, entry: Entry, remedy: Remedy) -> Loaded:
    """Map a file into memory, shared by all processes of the machine, and compare it with its `entry` in the seal.

    Raises `CorruptError` with that remedy when it differs. No file stays open, so there may be thousands. A remote
    file is fetched.
    """
    import torch  # late: it takes seconds to load, and only reading needs it

    if problem := size_damage(path, entry):
        raise CorruptError(f"{path}: {problem}", *remedy)
    size: int = entry["bytes"]
    content: NDArray[np.uint8]
    if isinstance(path, Path):
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    else:
        content = np.frombuffer(read_range(path, 0, size), np.uint8)
    if problem := content_damage([content], entry):
        raise CorruptError(f"{path}: {problem}", *remedy)
    return Loaded(content, path, remedy)


def view(file: Loaded, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """The rows inside a shard file as an array of this shape, without a copy.

    Raises `CorruptError` unless they are laid out exactly as `shard_bytes` does it.
    """
    dtype, content = np.dtype(dtype), file.content
    count, stride = shape[0], math.prod(shape[1:]) * dtype.itemsize + _CHECKSUM_BYTES
    problem = CorruptError(f"{file.path}: its rows are not laid out as they should be", *file.remedy)
    if count * stride > len(content):
        raise problem
    index, checksum = content[count * stride : -_CHECKSUM_BYTES].tobytes(), content[-_CHECKSUM_BYTES:].tobytes()
    expected = np.full((max(count, len(index) // _ENTRY_BYTES), 2), _ABSENT, "<u8")
    expected[:count] = np.stack([np.arange(count) * stride, np.full(count, stride)], axis=1)
    if index != expected.tobytes() or int.from_bytes(checksum, "little") != crc32c(index):
        raise problem
    return np.ndarray(tuple(shape), dtype, content, strides=(stride, *np.empty(shape[1:], dtype).strides))


def vector(file: Loaded, dtype: DTypeLike) -> NDArray[Any]:
    """All of an array with one axis, which is one chunk."""
    size = (len(file.content) - _ENTRY_BYTES - 2 * _CHECKSUM_BYTES) // np.dtype(dtype).itemsize
    return np.asarray(view(file, (1, size), dtype)[0])
