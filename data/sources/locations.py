"""Locations of files: paths on this machine, object stores (`s3://bucket/...`), and files on allowed web servers.

Object stores are reached through fsspec: the endpoint and the credentials come from the environment, as their drivers
document (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...). A web server is read only if its host was allowed by name, and
nothing is ever run: no `pipe:`, no chained address. Remote files are read by ranges and never copied to disk.
"""

import io
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from data.errors import CodeganError, InputError, UnsafeError, UsageError, one_line
from data.sources.web import WebFile, split_address, without_secrets

if TYPE_CHECKING:
    from upath import UPath

type Location = Path | UPath

# Hidden files that mark folders which codegan made; pictures in such folders are no data.
CONFIG_COPY = ".config.json"  # in a run
DRAWN = ".samples.json"  # in a folder of drawn images: how many were left there

_DRIVERS = {"s3": "", "gs": " gcsfs", "gcs": " gcsfs", "az": " adlfs", "abfs": " adlfs", "abfss": " adlfs"}
_WEB = ("http", "https")
_BLOCK = 1 << 20  # read ahead, since small parts often lie close together, as the headers of a tar do


def scheme_of(text: str) -> str | None:
    """`s3` of `s3://bucket/x`; None for the path of a local file."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://|(pipe|https?|s3|gs|file):", text)
    return (match[1] or match[2]).lower() if match else None


def parse_location(text: "str | Location") -> Location:
    """A local path, or one in an object store, which has the part of pathlib's interface that reads and writes.

    Raises `UsageError` for other addresses and missing drivers, `UnsafeError` for commands and passwords.
    """
    if not isinstance(text, str):
        return text
    scheme = scheme_of(text)
    if "\0" in text:
        raise UsageError(f"{text!r}: is not a location for files", "give a local path, or s3://BUCKET/FOLDER")
    if scheme is None:
        return Path(text)
    if scheme == "pipe":
        raise UnsafeError(f"{text}: would run a shell command", "save its output to a file and name that")
    _, _, rest = text.partition("://")
    if scheme not in _DRIVERS or not rest.strip("/") or rest.startswith("/") or "::" in rest:
        raise UsageError(f"{redacted(text)}: is not a location for files", "give a local path, or s3://BUCKET/FOLDER")
    if split_address(text).password is not None:
        raise UnsafeError(f"{redacted(text)}: holds a password", "leave it out; set the variables of the object store")
    try:
        from upath import UPath  # late: an optional dependency, slow to load

        found = UPath(f"{scheme}://{rest}", use_listings_cache=False)  # other processes write there too
        found.fs  # noqa: B018  # loads the driver
    except ImportError as error:
        fix = f"pip install 'codegan[remote]'{_DRIVERS[scheme]}"
        raise UsageError(f"{text}: needs a driver that is not installed ({one_line(error)})", fix) from error
    return found


def parse_source(text: str, allow_hosts: Collection[str] = ()) -> Location | WebFile:
    """Like `parse_location`, or a file to read on a web server; raises `UnsafeError` unless its host is allowed."""
    return WebFile(text, frozenset(allow_hosts)) if scheme_of(text) in _WEB else parse_location(text)


def redacted(text: str) -> str:
    """DATA as messages and reports may show it, without the secrets that an address may hold."""
    return text if scheme_of(text) in (None, "pipe") else without_secrets(text)


def data_flags(data: Collection[str], allow_hosts: Collection[str]) -> list[str]:
    """The flags that let another command read the same data."""
    return ["--data", *map(redacted, data), *(["--allow-host", *allow_hosts] if allow_hosts else [])]


@contextmanager
def network_errors(name: object) -> Iterator[None]:
    """Turn whatever a driver raises into an `InputError` that says what cannot be reached."""
    try:
        yield
    except (CodeganError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file, folder or bucket", "check the address") from error
    except Exception as error:  # every driver has its own classes
        fix = "check the address, the network and the credentials in the environment; then run the same command again"
        raise InputError(f"{name}: cannot be reached ({one_line(error)})", fix) from error


def list_objects(folder: "UPath") -> list[tuple[str, int, Callable[[], bytes]]]:
    """(name below the folder, size in bytes, read) for every file in a folder of an object store."""
    with network_errors(folder):
        found = folder.fs.find(folder.path, detail=True)
    base = folder.path.rstrip("/") + "/"
    return [
        (path.removeprefix(base), info["size"] or 0, partial(_fetch, folder.fs, path, None, None))
        for path, info in found.items()
        if info["type"] == "file"
    ]


def _fetch(filesystem: Any, path: str, start: int | None, end: int | None) -> bytes:
    with network_errors(filesystem.unstrip_protocol(path)):
        content: bytes = filesystem.cat_file(path, start=start, end=end)
    return content


def read_range(file: Location | WebFile, offset: int, count: int) -> bytes:
    """Read `count` bytes from `offset` on; raises `EOFError` where the file ends before that."""
    if isinstance(file, Path):
        # Opening the file each time costs microseconds, and needs no lock and no limit on the number of open files.
        with file.open("rb") as opened:
            opened.seek(offset)
            content = opened.read(count)
    elif count == 0:  # there is no range of no bytes
        content = b""
    elif isinstance(file, WebFile):
        content = file.fetch(offset, count)
    else:
        content = _fetch(file.fs, file.path, offset, offset + count)
    if len(content) != count:
        raise EOFError("the archive ends inside it")
    return content


def file_size(file: Location | WebFile) -> int:
    """The size in bytes; raises `InputError` where there is no such remote file."""
    if isinstance(file, WebFile):
        return file.size()
    with network_errors(file):
        return file.stat().st_size


def open_file(file: Location | WebFile) -> BinaryIO:
    """Open a file for reading at random; a remote one is read 1 MiB at a time."""
    if isinstance(file, Path):
        return file.open("rb")
    return io.BufferedReader(_Ranges(partial(read_range, file), file_size(file)), _BLOCK)


class _Ranges(io.RawIOBase):
    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._position = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        buffer[:count] = self._read(self._position, count)
        self._position += count
        return count


def put(file: "UPath", content: bytes) -> None:
    """Replace a remote file by `content` in one request, so that others see all of it or nothing."""
    with network_errors(file):
        file.fs.pipe_file(file.path, content)


def file_sizes(folder: Location) -> dict[str, int]:
    """The size in bytes of every file below `folder`, by its name there; one request covers a thousand remote files."""
    if isinstance(folder, Path):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: size for name, size, _ in list_objects(folder)}


def remove_tree(folder: Location) -> None:
    """Delete a folder and everything in it, if there is one."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with network_errors(folder):
            if folder.exists():
                folder.fs.rm(folder.path, recursive=True)
