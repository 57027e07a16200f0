"""Writing files so that a crash at any instant leaves either the old state or the new one.

The protocol is the same everywhere: write under a temporary name in the target's folder, fsync, rename, fsync the
folder. A folder committed by `commit_folder` also holds `manifest.json` with the size and crc32c of each of its files,
so that later damage is found by `verify_folder`.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.errors import CorruptError, LockedError, SpaceError, UnsafeError, UsageError
from data.files.checksums import ManifestEntry, damaged_files, make_entry, read_blocks, read_most
from data.sources.locations import Location, put
from data.strict_json import MAX_BYTES, BadJSON, parse

MANIFEST = "manifest.json"
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
_PARTIAL = ".partial-"  # prefix of everything unfinished; removed by the next writer
_WRITTEN = ("checkpoints", "weights", "samples", "tracker", "latents", "scales", "labels", "keys", "journal")
_RETIRED = f"{_PARTIAL}old-"  # prefix of a folder while it is replaced


@dataclass(frozen=True)
class Manifest:
    files: dict[str, ManifestEntry]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or quota into a `SpaceError`, and make sure that it and other errors name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(
                f"{path}: no space left on the disk",
                "free some space and run the same command again; what was committed before is kept",
            ) from error
        error.filename = error.filename or str(path)
        raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _absent(folder: Path) -> list[Path]:
    """`folder` and those above it that do not exist, the deepest first."""
    return list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))


def _make_folder(folder: Path) -> None:
    """Like `mkdir -p`, and such that a power loss undoes none of the folders."""
    absent = _absent(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(absent):
        _fsync(made.parent)


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a file to write, which replaces `path` atomically and durably when the block ends without an error."""
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    with disk_errors(path):
        _make_folder(path.parent)
        partial.unlink(missing_ok=True)  # in a folder from someone else it may be a link to any place
        try:
            yield partial
            _fsync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _fsync(path.parent)


def write_bytes(path: Location, content: bytes) -> None:
    """Replace `path` by `content` atomically and durably, making its folder if necessary."""
    if not isinstance(path, Path):
        put(path, content)
        return
    with publish(path) as partial:
        partial.write_bytes(content)


def write_json(path: Location, value: Any) -> None:
    """Write `value` as JSON; raises `ValueError` for NaN and infinity, which other programs could not read."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(
    path: Location, shape: Any = dict, fix: str = "restore the file from a copy", max_bytes: int = MAX_BYTES
) -> Any:
    """Parse a JSON file that codegan wrote and that has a shape of `data.strict_json`; raises `CorruptError`, with
    this `fix`, for any other content.
    """
    try:
        return parse(read_most(path, max_bytes), shape, max_bytes)
    except BadJSON as error:
        raise CorruptError(f"{path}: {error}", fix) from error


@contextmanager
def commit_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill. On success it becomes `path`, with a manifest; on failure nothing changes."""
    partial, retired = path.with_name(_PARTIAL + path.name), path.with_name(_RETIRED + path.name)
    with disk_errors(path):
        _make_folder(path.parent)
        shutil.rmtree(partial, ignore_errors=True)
        _put_back(retired)
        partial.mkdir()
        try:
            yield partial
            _write_manifest(partial)
            if path.exists():
                path.rename(retired)
            partial.rename(path)
            _fsync(path.parent)
            shutil.rmtree(retired, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def discard_folder(path: Path) -> None:
    """Delete a committed folder; a crash while doing so leaves nothing that looks like one."""
    partial = path.with_name(_PARTIAL + path.name)
    shutil.rmtree(partial, ignore_errors=True)
    path.rename(partial)
    shutil.rmtree(partial, ignore_errors=True)


def _put_back(retired: Path) -> None:
    """Rename a replaced folder back where its writer was killed between two renames: it is the only copy then."""
    if retired.exists() and not (path := retired.with_name(retired.name.removeprefix(_RETIRED))).exists():
        retired.rename(path)
    shutil.rmtree(retired, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    entries = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            _fsync(file)
            entries[file.relative_to(folder).as_posix()] = make_entry(read_blocks(file))
    write_json(folder / MANIFEST, {"files": entries})


def verify_folder(folder: Path) -> None:
    """Compare every file of a committed folder with its manifest; raises `CorruptError` naming the first difference."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CorruptError(f"{manifest}: is missing", f"remove {folder}; it was never finished")
    fix = f"restore the file from a copy, or remove {folder}"
    entries = read_json(manifest, Manifest, fix)["files"]
    for name, problem in damaged_files(folder, entries):
        raise CorruptError(f"{folder / name}: {problem}", fix)
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("[!.]*") if file.is_file()} - {MANIFEST}
    if unknown := sorted(present - entries.keys()):
        raise CorruptError(f"{folder / unknown[0]}: is not in {MANIFEST}", fix)


def remove_partials(folder: Location) -> None:
    """Delete what a killed writer left unfinished in `folder` and below, and put back what it was replacing."""
    if not isinstance(folder, Path):  # remote writes are single requests, which leave nothing unfinished
        return
    for leftover in list(folder.rglob(f"{_PARTIAL}*")):
        if leftover.name.startswith(_RETIRED):
            _put_back(leftover)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Raise `UnsafeError` where a folder in which codegan writes and deletes is a link to one outside `folder`."""
    for name in _WRITTEN:
        for top, names, _ in os.walk(folder / name):
            for path in (folder / name, *(Path(top) / inner for inner in names)):
                if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                    raise UnsafeError(f"{path}: is a link out of {folder}", "put the folder itself in its place")


@contextmanager
def lock(folder: Location) -> Iterator[None]:
    """Hold `folder` for this process; raises `LockedError` naming the process that already does.

    The lock is the kernel's (`flock`), so a killed process never leaves one behind. Object stores have no locks, so two
    writers are not kept apart there. Folders that were made for the lock and are still empty are removed again.
    """
    if not isinstance(folder, Path):
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", "give a folder for --out")
    refuse_links(folder)
    absent = _absent(folder)
    _make_folder(folder)
    path = folder / ".lock"
    with ExitStack() as stack:
        with disk_errors(folder):
            file = stack.enter_context(open(os.open(path, _LOCK_FLAGS, 0o666), "ab+", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read(200).decode(errors="replace").strip() or "another process"
                raise LockedError(
                    f"{folder}: is being written by {owner}", "wait until it ends, or stop it first"
                ) from None
            if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise LockedError(f"{folder}: was just released by another process", "run the same command again")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # it is not empty, as is usual
                for made in absent:
                    made.rmdir()
