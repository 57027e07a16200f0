"""Where the bytes of pictures come from: a folder, a `.zip` or `.tar` shards, listed once and then read at random.

Nothing is ever extracted to disk, so a hostile name inside an archive reaches no file system. Files that are no picture
by extension, hidden files and the litter of file managers are ignored without a word.
"""

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from braceexpand import braceexpand
from PIL import Image

from data.decoding import FORMATS
from data.errors import CorruptError, InputError, UnsafeError, UsageError

EXTENSIONS = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
# Pictures we cannot read: leaving them out silently would lose half of someone's camera roll.
UNSUPPORTED = (".heic", ".heif", ".jxl", ".jp2", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
MAX_FILE_BYTES = 1 << 30
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_FORMS = "DATA is a folder, a .zip, one or more .tar shards, or scenes:N"


class Skip(NamedTuple):
    key: str
    reason: str


@dataclass(frozen=True)
class Entry:
    key: str
    read: Callable[[], bytes]
    label: int | None = None


@dataclass
class Listing:
    """Everything found: what to read, what cannot be used and why, and remarks by key."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(
        self, name: str, size: int, read: Callable[[], bytes], label: int | None = None, problem: str | None = None
    ) -> None:
        key = clean_key(name)
        if PurePosixPath(key).suffix.lower() in UNSUPPORTED:
            problem = "format not supported; convert it to PNG or JPEG"
        elif size > MAX_FILE_BYTES:
            problem = f"file of {size} bytes is too large"
        elif key in self._seen:
            problem = "repeats the name of an earlier file"
        if problem is None:
            self._seen.add(key)
            self.entries.append(Entry(key, read, label))
        else:
            self.skipped.append(Skip(key, problem))


def clean_key(name: str) -> str:
    """A relative, printable, POSIX-like name: no root, no `..`, no control or undecodable characters."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "".join(c if c.isprintable() else f"%{ord(c):02X}" for c in "/".join(parts))


def is_picture(name: str) -> bool:
    """Whether a relative name has a picture's extension and no hidden or litter part."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts or any(part.startswith((".", "__MACOSX", "@eaDir")) for part in parts):
        return False
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    return suffix in EXTENSIONS or suffix in UNSUPPORTED


def list_entries(names: Sequence[str]) -> Listing:
    """List DATA. Keys are paths inside the folder or archive; with several shards, below the shard's own path from
    the folder all shards share. Labels come from `.cls` members of tars, or from sub-folders of a folder or zip.
    """
    paths = [Path(os.path.abspath(path)) for name in names for path in _expand(name)]
    if len(set(paths)) < len(paths):
        raise UsageError(f"{', '.join(names)}: gives a path more than once", "name every shard once")
    if len(paths) == 1 and paths[0].is_dir():
        listing = _list_folder(paths[0])
    elif len(paths) == 1 and paths[0].suffix.lower() == ".zip":
        listing = _list_zip(paths[0])
    else:
        listing = _list_tars(paths)
    listing.entries.sort(key=lambda entry: entry.key)
    listing.skipped.sort()
    return listing


def _expand(name: str) -> Iterator[Path]:
    if name.startswith("pipe:"):
        raise UnsafeError(f"{name}: would run a shell command", "save its output to a .tar file and name that")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|(?:https?|s3|gs|file):", name):
        raise UsageError(f"{name}: addresses are not read", "download it first and give the local path")
    if Path(name).exists() or "{" not in name:
        yield _existing(name)
        return
    try:
        yield from map(_existing, braceexpand(name))
    except ValueError as error:
        raise UsageError(f"{name}: its braces do not match", "write shards as shard-{000..003}.tar") from error


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", f"check the path; {_FORMS}")
    if path.name.lower().endswith(_COMPRESSED):
        raise UsageError(
            f"{path}: a compressed tar cannot be read at random",
            "unpack only the compression, e.g. gunzip --keep FILE.tar.gz, and give the .tar",
        )
    if not path.is_dir() and path.suffix.lower() not in (".zip", ".tar"):
        raise UsageError(f"{path}: is neither a folder nor a .zip or .tar archive", _FORMS)
    return path


def _list_folder(root: Path) -> Listing:
    listing = Listing()
    root = root.resolve()

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        listing.skipped.append(Skip(clean_key(folder), f"folder cannot be read: {error.strerror}"))

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        for path in sorted(Path(folder, name) for name in subfolders):
            if path.is_symlink():  # os.walk does not follow it: it may lead out of the folder, or round in a circle
                listing.notes[clean_key(path.relative_to(root).as_posix())] = "link to a folder, not followed"
        for path in sorted(Path(folder, name) for name in files):
            name = path.relative_to(root).as_posix()
            if is_picture(name):
                size, problem = _check_file(path, root)
                listing.add(name, size, path.read_bytes, problem=problem)
    return _with_folder_labels(listing)


def _check_file(path: Path, root: Path) -> tuple[int, str | None]:
    try:
        status = path.stat()
    except OSError as error:
        return 0, f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return 0, "not a regular file"
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return 0, "link to a file outside the folder"
    return status.st_size, None


def _list_zip(path: Path) -> Listing:
    listing = Listing()
    try:
        archive = zipfile.ZipFile(path)  # stays open: its reads lock, and closing is left to the last entry
    except zipfile.BadZipFile as error:
        raise CorruptError(f"{path}: is not a whole zip archive ({error})", "copy or download it again") from error
    for info in archive.infolist():
        if is_picture(info.filename.replace("\\", "/")) and not info.is_dir():
            problem = "encrypted" if info.flag_bits & 1 else None
            listing.add(info.filename, info.file_size, partial(archive.read, info), problem=problem)
    return _with_folder_labels(listing)


def _with_folder_labels(listing: Listing) -> Listing:
    """Number the classes of a one-folder-per-class layout, in the order of their names.

    Classes are the sub-folders of the deepest folder that holds every picture; there must be at least two, and no
    picture beside them. Pictures skipped at the listing count as well, so that mending one moves no label.
    """
    keys = [entry.key for entry in listing.entries] + [skip.key for skip in listing.skipped]
    parents = [PurePosixPath(key).parent.parts for key in keys]
    levels = (sorted(set(names)) for names in zip(*parents, strict=False))
    depth, classes = next(((depth, names) for depth, names in enumerate(levels) if len(names) > 1), (0, []))
    if classes:
        number = {name: index for index, name in enumerate(classes)}
        listing.entries = [replace(e, label=number[PurePosixPath(e.key).parts[depth]]) for e in listing.entries]
    return listing


def _list_tars(paths: Sequence[Path]) -> Listing:
    listing = Listing()
    shared = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        if path.suffix.lower() != ".tar":
            raise UsageError(f"{path}: cannot be combined with other data", "only .tar shards can be given together")
        prefix = "" if len(paths) == 1 else f"{path.relative_to(shared).as_posix()}/"
        _list_tar(path, prefix, listing)
    return listing


def _list_tar(path: Path, prefix: str, listing: Listing) -> None:
    from webdataset.tariterators import base_plus_ext  # late: it imports torch

    members = _read_index(path)
    split = {}
    for member in members:
        stem, extension = base_plus_ext(member.name)
        split[member.name] = stem, (extension or "").lower()
    labels = {
        split[member.name][0]: _read_label(path, member)
        for member in members
        if member.isreg() and split[member.name][1] == "cls"
    }
    plain = {stem for stem, extension in split.values() if f".{extension}" in EXTENSIONS}
    for member in members:
        if member.isdir() or not is_picture(member.name):
            continue
        stem, extension = split[member.name]
        key = clean_key(prefix + member.name)
        if "." in extension and stem in plain:  # 0001.mask.png beside 0001.jpg belongs to that sample
            listing.notes[key] = "not used: an annotation of the picture with the same stem"
            continue
        if labels and labels.get(stem) is None:
            listing.notes[key] = "has no integer .cls label while others do"
        problem = None if member.isreg() and not member.issparse() else "a link or sparse member, not a plain file"
        read = partial(_read_range, path, member.offset_data, member.size)
        listing.add(prefix + member.name, member.size, read, labels.get(stem), problem)


def _read_index(path: Path) -> list[tarfile.TarInfo]:
    """All members; raises `CorruptError` unless they end with the two zero blocks every whole tar ends with.

    Without that check a tar cut between two members reads as a smaller one.
    """
    fix = "copy or download it again, or repack it with tar --create"
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise CorruptError(f"{path}: is not a whole tar archive ({error})", fix) from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
            raise CorruptError(f"{path}: is cut or damaged after {len(members)} members", fix)
        while block := file.read(1 << 20):
            if any(block):
                raise CorruptError(f"{path}: holds more bytes after its end", "give joined tars one by one")
    return members


def _read_label(path: Path, member: tarfile.TarInfo) -> int | None:
    text = _read_range(path, member.offset_data, min(member.size, 32)).strip()
    return int(text) if re.fullmatch(rb"[+-]?\d{1,18}", text) else None


def _read_range(path: Path, offset: int, count: int) -> bytes:
    # Opening each time costs microseconds, and needs neither a lock nor a limit on the number of shards.
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(count)
    if len(content) != count:
        raise OSError("the archive ends inside it")
    return content
