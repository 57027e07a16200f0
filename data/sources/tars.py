"""The members of webdataset's tar shards: which of them are images, where their bytes are, and their labels."""

import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple, Self

from data.errors import CodeganError, CorruptError, one_line
from data.sources.labels import MAX_SAMPLE_BYTES, parse_sample_json
from data.sources.locations import Location, open_file
from data.sources.web import WebFile

_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_MAX_EXTENSION = 1 << 20  # bytes; a path has at most 4096
STORED_AGAIN = "stored more than once, the last one is used"


class Member(NamedTuple):
    info: tarfile.TarInfo
    label: int | None = None  # that a .cls or .json file states
    note: str = ""


class Picture(NamedTuple):
    """A member to list, if it has no problem."""

    name: str
    offset: int
    size: int
    label: int | None
    problem: str | None


def read_index(source: Location | WebFile) -> list[Member]:
    """All members. Raises `CorruptError` unless the two zero blocks that end every whole tar follow.

    Without this check a tar that was truncated between two members would read as a smaller one.
    """
    fix = "copy or download it again, or repack it with tar --create"
    with open_file(source) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as archive:
                members = [_member(info, file) for info in archive]
            file.seek(archive.offset)
            is_whole = file.read(2 * tarfile.BLOCKSIZE) == bytes(2 * tarfile.BLOCKSIZE)
            has_more = any(any(block) for block in iter(partial(file.read, 1 << 20), b""))
        except CodeganError:
            raise
        except Exception as error:  # damage and claims of any size raise nearly any class
            raise CorruptError(f"{source}: is not a whole tar archive ({one_line(error)})", fix) from error
    if not is_whole:
        raise CorruptError(f"{source}: is truncated or damaged after {len(members)} members", fix)
    if has_more:
        raise CorruptError(f"{source}: holds more bytes after its end", "give joined tars one by one")
    return members


class _Header(tarfile.TarInfo):
    """A header whose names and extensions are small, since `tarfile` reads them whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and header.size > _MAX_EXTENSION:
            raise tarfile.HeaderError(f"an extended header of {header.size} bytes")
        return header


def _member(info: tarfile.TarInfo, file: BinaryIO) -> Member:
    """A member, with its label read at once: elsewhere it came in the same block as the header."""
    suffix, label, note = PurePosixPath(info.name).suffix.lower(), None, ""
    if info.isreg() and suffix == ".cls":
        file.seek(info.offset_data)
        text = file.read(min(info.size, 32)).strip()
        label = int(text) if re.fullmatch(rb"[+-]?\d{1,18}", text) else None
    elif info.isreg() and suffix == ".json" and info.size <= MAX_SAMPLE_BYTES:
        file.seek(info.offset_data)
        label, note = parse_sample_json(file.read(info.size))
    return Member(info, label, note)


def list_pictures(
    members: Sequence[Member], is_image: Callable[[str], bool], notes: dict[str, str]
) -> Iterator[Picture]:
    """The images among the members, in their order; `notes` receives remarks by the names of members.

    Of several members of a name the last one counts, as in a tar that is unpacked.
    """
    # webdataset decides which members are one sample, so that shards mean here what they mean to its users; it cannot
    # read members at random, so the rest of it is not used. Late, since it imports torch.
    from webdataset.tariterators import base_plus_ext

    labels = _labels(members)
    last = {member.info.name: member.info for member in members}
    stems = {_stem(name) for name in last if is_image(name)}
    contents: dict[str, tarfile.TarInfo | None] = {}  # of members so far, by name
    for info, _, note in members:
        name = info.name
        contents[name] = contents.get(info.linkname) if info.islnk() else info
        if note:
            notes[name] = note
        if info.isdir() or not is_image(name):
            continue
        if last[name] is not info:
            notes[name] = STORED_AGAIN
        elif _is_annotation(name, stems):
            notes[name] = "not used: an annotation of the image with the same stem"
        else:
            label = labels.get(_stem(name), labels.get(base_plus_ext(name)[0]))
            if labels and label is None:
                notes[name] = "has no integer label while others do"
            yield _picture(info, contents[name], label)


def _labels(members: Sequence[Member]) -> dict[str, int]:
    """Labels by stem; those of .cls files count before those of .json files."""
    stated = [(member.info.name, member.label) for member in members if member.label is not None]
    stated.sort(key=lambda named: named[0].lower().endswith(".cls"))
    return {_stem(name): label for name, label in stated}


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def _is_annotation(name: str, stems: Collection[str]) -> bool:
    """Whether `0001.mask.png` stands beside an image 0001. What begins with a digit, as in `Track 1.5.png` beside
    `Track 1.png`, is part of a name.
    """
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return any(
        parts[end][:1].isalpha() and f"{folder}{slash}{'.'.join(parts[:end])}" in stems
        for end in range(1, len(parts) - 1)
    )


def _picture(info: tarfile.TarInfo, content: tarfile.TarInfo | None, label: int | None) -> Picture:
    problem = None
    if info.issym():
        problem = "a symbolic link; pack what it points to with tar --dereference"
    elif content is None:
        problem = f"a hard link to {info.linkname!r}, which does not come before it"
    elif content.issparse():
        problem = "a sparse member; pack it without --sparse"
    elif not content.isreg():
        problem = "not a plain file"
    if content is None or problem:
        return Picture(info.name, 0, 0, label, problem)
    return Picture(info.name, content.offset_data, content.size, label, None)
