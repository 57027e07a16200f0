"""Listing the images in a folder, a `.zip` or `.tar` shards, which are listed once and then read at random.

Each may be on this machine, in an object store or, if it is an archive, on an allowed web server. Nothing is ever
extracted to disk, so a hostile name inside an archive reaches no file system. Whatever is named as images are is
listed, also what nobody can read; other files, hidden files and the litter of file managers are ignored.
"""

import io
import os
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from braceexpand import braceexpand

from data.errors import CodeganError, CorruptError, InputError, UsageError, one_line
from data.prefetch import prefetch
from data.sources.folders import Walk, is_litter
from data.sources.kinds import IMAGE_SUFFIXES
from data.sources.labels import DATASET_JSON, MAX_BYTES, Stated, parse_dataset_json
from data.sources.locations import (
    Location,
    list_objects,
    open_file,
    parse_source,
    read_range,
    redacted,
    scheme_of,
)
from data.sources.tars import STORED_AGAIN, list_pictures, read_index
from data.sources.web import WebFile

if TYPE_CHECKING:
    from upath import UPath

MAX_FILE_BYTES = 1 << 30
_MAX_EXPANSION = 20  # times the bytes that a zip holds of a member, or else that many of it:
_FREE_BYTES = 64 << 20
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
    ignored: list[str] = field(default_factory=list)  # names of files that are not named as images are
    _seen: set[str] = field(default_factory=set)

    def add(
        self, name: str, size: int, read: Callable[[], bytes], label: int | None = None, problem: str | None = None
    ) -> None:
        key = clean_key(name)
        if size > MAX_FILE_BYTES:
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
    if not parts or any(map(is_litter, parts)):
        return False
    return PurePosixPath(parts[-1]).suffix.lower() in IMAGE_SUFFIXES


def list_entries(names: Sequence[str], allow_hosts: Collection[str] = ()) -> Listing:
    """List DATA. Keys are paths inside the folder or archive; with several shards, below the shard's own path from
    the folder all shards share. Labels come from `.cls` and `.json` members of tars, and in a folder or zip from its
    `dataset.json` or its sub-folders.
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
    if listing.ignored and not listing.entries and not listing.skipped:
        listing.notes[clean_key(listing.ignored[0])] = "not named as images are, nor are the others"
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
    walk = Walk(root.resolve(), is_image)
    walk.run()
    for name, path, size in walk.files:
        listing.add(name, size, path.read_bytes)
    listing.skipped += [Skip(clean_key(name), reason) for name, reason in walk.refused]
    listing.notes |= {clean_key(name): note for name, note in walk.notes.items()}
    listing.closed, listing.ignored = walk.closed, walk.ignored
    described = (root / DATASET_JSON).resolve()
    if not described.is_file() or not described.is_relative_to(walk.root):
        return _with_folder_labels(listing)
    return _with_stated_labels(listing, described.read_bytes, described.stat().st_size)


def _list_objects(folder: "UPath") -> Listing:
    listing = Listing()
    objects = list_objects(folder)
    for name, size, read in objects:
        if is_image(name):
            listing.add(name, size, read)
        else:
            listing.ignored.append(name)
    described = next((item for item in objects if item[0] == DATASET_JSON), None)
    return _with_stated_labels(listing, described[2], described[1]) if described else _with_folder_labels(listing)


def _list_zip(source: Source) -> Listing:
    listing = Listing()
    try:
        with open_file(source) as file, zipfile.ZipFile(file) as archive:
            members, directory_start = archive.infolist(), archive.start_dir
    except CodeganError:
        raise
    except Exception as error:  # damage and claims of any size raise nearly any class
        what = f"{source}: is not a whole zip archive ({one_line(error)})"
        raise CorruptError(what, "copy or download it again") from error
    ends = dict(pairwise(sorted({directory_start, *(info.header_offset for info in members)})))
    last = {info.filename: info for info in members}
    for info in members:
        if info.is_dir():
            continue
        if not is_image(info.filename.replace("\\", "/")):
            listing.ignored.append(info.filename)
        elif last[info.filename] is not info:
            listing.notes[clean_key(info.filename)] = STORED_AGAIN
        else:
            read = partial(_read_zipped, source, info, end := ends.get(info.header_offset, 0))
            listing.add(info.filename, info.file_size, read, problem=_problem(info, end))
    described = last.get(DATASET_JSON)
    if described is None:
        return _with_folder_labels(listing)
    read = partial(_read_zipped, source, described, ends.get(described.header_offset, 0))
    return _with_stated_labels(listing, read, described.file_size)


def _problem(info: zipfile.ZipInfo, end: int) -> str | None:
    """Why a member that lies before `end` is not read. Pictures are compressed already, so a zip hardly shrinks them;
    what expands to many times its size is made to fill the memory.
    """
    if info.flag_bits & 1:
        return "encrypted"
    stored = max(0, end - info.header_offset)
    if info.file_size > max(_FREE_BYTES, _MAX_EXPANSION * stored):
        return f"expands from {stored} to {info.file_size} bytes"
    return None


def _read_zipped(source: Source, info: zipfile.ZipInfo, end: int) -> bytes:
    """Read a member, from its header to `end`, in one request, since threads would take turns at an open archive."""
    part = io.BytesIO(read_range(source, info.header_offset, max(0, end - info.header_offset)))
    name_bytes, extra_bytes = struct.unpack_from("<HH", part.getbuffer(), 26)
    part.seek(30 + name_bytes + extra_bytes)
    with zipfile.ZipExtFile(part, "r", info) as member:
        return member.read(info.file_size)  # without a number it would unpack whatever there is


def _with_stated_labels(listing: Listing, read: Callable[[], bytes], size: int) -> Listing:
    """Take labels from `dataset.json`, which `read` reads, or from folders if it is about something else."""
    stated = _read_dataset_json(read, size)
    if stated.note:
        listing.notes[DATASET_JSON] = stated.note
    if stated.labels is None:
        return _with_folder_labels(listing)
    labels = {clean_key(name): label for name, label in stated.labels.items()}
    listing.entries = [replace(entry, label=labels.get(entry.key)) for entry in listing.entries]
    unlabelled = [entry.key for entry in listing.entries if entry.label is None]
    if labels and unlabelled:
        listing.notes[DATASET_JSON] = f"gives no label to {len(unlabelled)} images, such as {unlabelled[0]}"
    return listing


def _read_dataset_json(read: Callable[[], bytes], size: int) -> Stated:
    if size > MAX_BYTES:
        return Stated(None, f"not used: takes more than {MAX_BYTES >> 20} MB")
    try:
        return parse_dataset_json(read())
    except (CodeganError, MemoryError):  # a failing network is no reason to go on without labels
        raise
    except Exception as error:  # damaged archives raise nearly any class
        return Stated(None, f"not used: cannot be read ({one_line(error)})")


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
    indexes = prefetch(read_index, sources, ahead=_INDEXED_AT_ONCE, threads=_INDEXED_AT_ONCE)
    for source, trail, members in zip(sources, trails, indexes, strict=True):
        prefix = "" if len(sources) == 1 else f"{trail.relative_to(shared).as_posix()}/"
        notes: dict[str, str] = {}
        for name, offset, size, label, problem in list_pictures(members, is_image, notes):
            listing.add(prefix + name, size, partial(read_range, source, offset, size), label, problem)
        listing.notes |= {clean_key(prefix + name): note for name, note in notes.items()}
        files = [member.info.name for member in members if member.info.isreg()]
        listing.ignored += [name for name in files if not is_image(name)]
    return listing
