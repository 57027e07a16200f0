"""Sizes and checksums of files, as `manifest.json` and the seals of stores list them, and JSON with a checksum inside.

The entry of a file is {"bytes": SIZE, "crc32c": CHECKSUM}. For the files of a store it has zlib's "crc32" instead.
Shards consist of parts that end in their own crc32c, and the crc32c of data followed by its crc32c is always the same
number, so it could not tell one shard from another.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import google_crc32c

from data.limits import Limit
from data.sources.locations import Location
from data.strict_json import MAX_BYTES, BadJSON, parse

type Entry = Mapping[str, Any]
type Algorithm = Literal["crc32c", "crc32"]

_BLOCK = 1 << 22
_Size = Annotated[int, Limit(least=0)]
_Checksum = Annotated[int, Limit(least=0, below=1 << 32)]
_EXTEND: dict[str, Callable[[int, Any], int]] = {  # the checksum of what came before and of a further block
    "crc32c": google_crc32c.extend,
    "crc32": lambda checksum, block: zlib.crc32(block, checksum),
}


@dataclass(frozen=True)
class ManifestEntry:
    """The shape of an entry of `manifest.json`."""

    bytes: _Size
    crc32c: _Checksum


@dataclass(frozen=True)
class StoreEntry:
    """The shape of an entry of a store's seal; that of a shard of latents also has statistics by channel."""

    bytes: _Size
    crc32: _Checksum
    sum: list[float] | None = None
    sum_of_squares: list[float] | None = None
    min: list[float] | None = None
    max: list[float] | None = None


def crc32c(content: bytes) -> int:
    """Castagnoli's checksum of some bytes."""
    return int(google_crc32c.value(content))


def read_blocks(path: Location) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def read_most(path: Location, max_bytes: int = MAX_BYTES) -> bytes:
    """A file, and of one that has more than `max_bytes` no more than tells so."""
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def make_entry(blocks: Iterable[Any], algorithm: Algorithm = "crc32c") -> dict[str, int]:
    """The entry of a file that holds these blocks of bytes."""
    size, checksum = 0, 0
    for block in blocks:
        size += len(block)
        checksum = _EXTEND[algorithm](checksum, block)
    return {"bytes": size, algorithm: checksum}


def wrong_size(present: int | None, entry: Entry) -> str | None:
    """What is wrong with a file that has `present` bytes, None where there is no file."""
    if present is None:
        return "is missing"
    return None if present == entry["bytes"] else f"has {present} bytes instead of {entry['bytes']}"


def size_damage(path: Location, entry: Entry) -> str | None:
    """What is wrong with a file, as far as can be seen without reading it."""
    return wrong_size(path.stat().st_size if path.is_file() else None, entry)


def content_damage(blocks: Iterable[Any], entry: Entry) -> str | None:
    """What is wrong with a file of the right size that holds these blocks of bytes."""
    algorithm: Algorithm = "crc32c" if "crc32c" in entry else "crc32"
    return None if make_entry(blocks, algorithm)[algorithm] == entry[algorithm] else "checksum mismatch"


def damaged_files(folder: Location, entries: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of each damaged file; reads all of them, and none that lies outside the folder."""
    for name, entry in entries.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            yield name, "is not the name of a file inside the folder"
        elif problem := size_damage(folder / name, entry) or content_damage(read_blocks(folder / name), entry):
            yield name, problem


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` and, as its last entry, its crc32c."""
    return {**content, "crc32c": crc32c(json.dumps(content, sort_keys=True).encode())}


def checksum_holds(content: Mapping[str, Any]) -> bool:
    return content == with_checksum({name: value for name, value in content.items() if name != "crc32c"})


def read_checked(path: Location, shape: Any = dict) -> dict[str, Any] | None:
    """A JSON object of this shape that was written `with_checksum`; None where it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = parse(read_most(path), shape)
    except BadJSON:
        return None
    return content if checksum_holds(content) else None
