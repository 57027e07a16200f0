"""Listing the images in a folder, a `.zip` or `.tar` shards, which are listed once and then read at random.

Each may be on this machine, in an object store or, if it is an archive, on an allowed web server. Nothing is ever
extracted to disk, so a hostile name inside an archive reaches no file system. Files without an image's extension,
hidden files and the litter of file managers are silently ignored.
"""

import io
import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeGuard

from braceexpand import braceexpand
from PIL import Image

from data.errors import CorruptError, InputError, UsageError
from data.prefetch import prefetch
from data.sources.decoding import FORMATS
from data.sources.locations import (
    CONFIG_COPY,
    DRAWN,
    Location,
    list_objects,
    open_file,
    parse_source,
    read_range,
    redacted,
    scheme_of,
)
from data.sources.web import WebFile

if TYPE_CHECKING:
    from upath import UPath

EXTENSIONS = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
# Images that cannot be read: leaving them out silently would lose half of someone's camera roll.
UNSUPPORTED = (".heic", ".heif", ".jxl", ".jp2", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
MAX_FILE_BYTES = 1 << 30
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_ARCHIVES = (".zip", ".tar")
_FORMS = "DATA is a folder, a .zip, one or more .tar shards, or scenes:N"
_INDEXED_AT_ONCE = 8  # shards, each in a thread

type Source = Location | WebFile


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
    """Everything that was found: what to read, what cannot be used and why, and remarks by key."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)  # folders that cannot be read, with any number of images
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


def is_image(name: str) -> bool:
    """Whether a relative name has an image's extension and no part that is hidden or litter."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts or any(part.startswith((".", "__MACOSX", "@eaDir")) for part in parts):
        return False
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    return suffix in EXTENSIONS or suffix in UNSUPPORTED


def list_entries(names: Sequence[str], allow_hosts: Collection[str] = ()) -> Listing:
    """List DATA. Keys are paths inside the folder or archive; with several shards, below the shard's own path from
    the folder all shards share. Labels come from `.cls` members of tars, or from sub-folders of a folder or zip.
    """
    sources = [source for name in names for source in _expand(name, allow_hosts)]
    if len(set(sources)) < len(sources):
        raise UsageError(f"{', '.join(map(redacted, names))}: gives a path more than once", "name every shard once")
    if len(sources) == 1 and _is_folder(sources[0]):
        listing = _list_folder(sources[0]) if isinstance(sources[0], Path) else _list_objects(sources[0])
    elif len(sources) == 1 and sources[0].suffix.lower() == ".zip":
        listing = _list_zip(sources[0])
    else:
        listing = _list_tars(sources)
    listing.entries.sort(key=lambda entry: entry.key)
    listing.skipped.sort()
    return listing


def _expand(name: str, allow_hosts: Collection[str]) -> Iterator[Source]:
    elsewhere = scheme_of(name) is not None
    if "{" not in name or (not elsewhere and Path(name).exists()):
        yield _find(name, allow_hosts)
        return
    try:
        texts = list(braceexpand(name))
    except ValueError as error:
        raise UsageError(
            f"{redacted(name)}: its braces do not match", "write shards as shard-{000..003}.tar"
        ) from error
    yield from (_find(text, allow_hosts) for text in texts)


def _find(name: str, allow_hosts: Collection[str]) -> Source:
    source = parse_source(name, allow_hosts)
    if isinstance(source, Path):
        try:
            source = source.expanduser()
        except RuntimeError as error:
            raise InputError(f"{source}: there is no such user on this machine", "write the path in full") from error
        if not source.exists():
            raise InputError(f"{source}: no such file or folder", f"check the path; {_FORMS}")
    if source.name.lower().endswith(_COMPRESSED):
        raise UsageError(
            f"{source}: a compressed tar cannot be read at random",
            "unpack only the compression, e.g. gunzip --keep FILE.tar.gz, and give the .tar",
        )
    if not _is_folder(source) and source.suffix.lower() not in _ARCHIVES:
        raise UsageError(f"{source}: is neither a folder nor a .zip or .tar archive", _FORMS)
    return Path(os.path.abspath(source)) if isinstance(source, Path) else source


def _is_folder(source: Source) -> TypeGuard[Location]:
    """Whether a source is a folder; in an object store its name says so, and folders on web servers are not listed."""
    if isinstance(source, Path):
        return source.is_dir()
    return not isinstance(source, WebFile) and source.suffix.lower() not in _ARCHIVES


def _list_folder(root: Path) -> Listing:
    listing = Listing()
    root = root.resolve()

    def unreadable(error: OSError) -> None:
        inside = (
            Path(error.filename).relative_to(root) / "*"
        )  # a name inside the folder, since the folder is a class of its own
        listing.skipped.append(Skip(clean_key(inside.as_posix()), f"folder cannot be read: {error.strerror}"))
        listing.closed.append(error.filename)

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        if Path(folder) != root and not {CONFIG_COPY, DRAWN}.isdisjoint(
            files
        ):  # or a run would read the images of another
            listing.notes[clean_key(Path(folder).relative_to(root).as_posix())] = "made by codegan, not read"
            subfolders.clear()
            continue
        for path in sorted(Path(folder, name) for name in subfolders):
            if path.is_symlink():  # not followed by os.walk: it may lead out of the folder, or in a circle
                listing.notes[clean_key(path.relative_to(root).as_posix())] = "link to a folder, not followed"
        for path in sorted(Path(folder, name) for name in files):
            name = path.relative_to(root).as_posix()
            if is_image(name):
                size, problem = _check_file(path, root)
                listing.add(name, size, path.read_bytes, problem=problem)
    return _with_folder_labels(listing)


def _check_file(path: Path, root: Path) -> tuple[int, str | None]:
    try:
        status = path.stat()
    except OSError as error:
        return 0, f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
        return 0, "not a regular file"
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return 0, "link to a file outside the folder"
    return status.st_size, None


def _list_objects(folder: "UPath") -> Listing:
    listing = Listing()
    for name, size, read in list_objects(folder):
        if is_image(name):
            listing.add(name, size, read)
    return _with_folder_labels(listing)


def _list_zip(source: Source) -> Listing:
    listing = Listing()
    try:
        with open_file(source) as file, zipfile.ZipFile(file) as archive:
            members, directory_start = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise CorruptError(f"{source}: is not a whole zip archive ({error})", "copy or download it again") from error
    ends = dict(pairwise(sorted({directory_start, *(info.header_offset for info in members)})))
    for info in members:
        if is_image(info.filename.replace("\\", "/")) and not info.is_dir():
            problem = "encrypted" if info.flag_bits & 1 else None
            read = partial(_read_zipped, source, info, ends.get(info.header_offset, 0))
            listing.add(info.filename, info.file_size, read, problem=problem)
    return _with_folder_labels(listing)


def _read_zipped(source: Source, info: zipfile.ZipInfo, end: int) -> bytes:
    """Read a member, from its header to `end`, in one request, since threads would take turns at an open archive."""
    part = io.BytesIO(read_range(source, info.header_offset, max(0, end - info.header_offset)))
    name_bytes, extra_bytes = struct.unpack_from("<HH", part.getbuffer(), 26)
    part.seek(30 + name_bytes + extra_bytes)
    with zipfile.ZipExtFile(part, "r", info) as member:
        return member.read()


def _with_folder_labels(listing: Listing) -> Listing:
    """Number the classes of a one-folder-per-class layout, in the order of their names.

    Classes are the sub-folders of the deepest folder that holds all images. There must be at least two, and no image
    beside them. Images that were skipped count as well, so that repairing one changes no label.
    """
    keys = [entry.key for entry in listing.entries] + [skip.key for skip in listing.skipped]
    parents = [PurePosixPath(key).parent.parts for key in keys]
    levels = (sorted(set(names)) for names in zip(*parents, strict=False))
    depth, classes = next(((depth, names) for depth, names in enumerate(levels) if len(names) > 1), (0, []))
    if classes:
        number = {name: index for index, name in enumerate(classes)}
        listing.entries = [replace(e, label=number[PurePosixPath(e.key).parts[depth]]) for e in listing.entries]
    return listing


def _list_tars(sources: Sequence[Source]) -> Listing:
    listing = Listing()
    for source in sources:
        if source.suffix.lower() != ".tar":
            raise UsageError(f"{source}: cannot be combined with other data", "only .tar shards can be given together")
    trails = [PurePosixPath("/", str(source)) for source in sources]  # an address becomes a path below the root
    shared = os.path.commonpath([trail.parent for trail in trails])
    indexes = prefetch(_read_index, sources, ahead=_INDEXED_AT_ONCE, threads=_INDEXED_AT_ONCE)
    for source, trail, index in zip(sources, trails, indexes, strict=True):
        prefix = "" if len(sources) == 1 else f"{trail.relative_to(shared).as_posix()}/"
        _list_tar(source, index, prefix, listing)
    return listing


class _Member(NamedTuple):
    info: tarfile.TarInfo
    stem: str | None
    extension: str  # all that follows the first dot of the name, in lower case
    label: int | None


def _list_tar(source: Source, members: Sequence[_Member], prefix: str, listing: Listing) -> None:
    labels = {stem: label for info, stem, extension, label in members if extension == "cls" and info.isreg()}
    plain = {stem for _, stem, extension, _ in members if f".{extension}" in EXTENSIONS}
    for info, stem, extension, _ in members:
        if info.isdir() or not is_image(info.name):
            continue
        key = clean_key(prefix + info.name)
        if "." in extension and stem in plain:  # 0001.mask.png beside 0001.jpg belongs to that sample
            listing.notes[key] = "not used: an annotation of the image with the same stem"
            continue
        if labels and labels.get(stem) is None:
            listing.notes[key] = "has no integer .cls label while others do"
        problem = None if info.isreg() and not info.issparse() else "a link or sparse member, not a plain file"
        read = partial(read_range, source, info.offset_data, info.size)
        listing.add(prefix + info.name, info.size, read, labels.get(stem), problem)


def _read_index(source: Source) -> list[_Member]:
    """All members. Raises `CorruptError` unless the two zero blocks that end every whole tar follow.

    Without this check a tar that was truncated between two members would read as a smaller one.
    """
    fix = "copy or download it again, or repack it with tar --create"
    with open_file(source) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                members = [_member(info, file) for info in archive]
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise CorruptError(f"{source}: is not a whole tar archive ({error})", fix) from error
        file.seek(archive.offset)
        if file.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
            raise CorruptError(f"{source}: is truncated or damaged after {len(members)} members", fix)
        while block := file.read(1 << 20):
            if any(block):
                raise CorruptError(f"{source}: holds more bytes after its end", "give joined tars one by one")
    return members


def _member(info: tarfile.TarInfo, file: BinaryIO) -> _Member:
    """A member, with its label read at once: elsewhere it came in the same block as the header."""
    # webdataset decides which members are one sample and what their extensions are, so that shards mean here what they
    # mean to its users; it cannot read members at random, so the rest of it is not used. Late, since it imports torch.
    from webdataset.tariterators import base_plus_ext

    stem, extension = base_plus_ext(info.name)
    extension, label = (extension or "").lower(), None
    if extension == "cls" and info.isreg():
        file.seek(info.offset_data)
        text = file.read(min(info.size, 32)).strip()
        label = int(text) if re.fullmatch(rb"[+-]?\d{1,18}", text) else None
    return _Member(info, stem, extension, label)
