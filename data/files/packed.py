"""The weights of a run inside a .zip, read in place: nothing is extracted, and no name inside becomes a path."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from data.errors import CodeganError, CorruptError, InputError, UnsafeError, one_line
from data.files.atomic import MANIFEST, Manifest
from data.files.checkpoints import BEST, Checkpoint
from data.files.checksums import content_damage, wrong_size
from data.strict_json import BadJSON, parse

MAX_BYTES = 8 << 30  # of the weights, which are held in memory
MAX_MEMBERS = 1_000_000
CONFIG, TENSORS = "config.json", ".safetensors"
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the only ones that unpack no more than is asked for
_FIX = "pack the run folder again, or copy the file again"


def load_packed(archive: Path, best: bool = False) -> Checkpoint:
    """Read the weights in a .zip of a run folder or of its weights, perhaps with folders above, and check every byte.

    Raises `InputError` where there are none or those of several runs, `CorruptError` on damage, and `UnsafeError` for
    a file that is too large or made to mislead.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            contents = _read_weights(opened, archive, best)
        config: dict[str, Any] = parse(contents[CONFIG])
        tensors = {
            PurePosixPath(name).stem: load(content) for name, content in contents.items() if name.endswith(TENSORS)
        }
    except CodeganError:
        raise
    except BadJSON as error:
        raise CorruptError(f"{archive}: its {CONFIG} {error}", _FIX) from error
    except SafetensorError as error:
        raise CorruptError(f"{archive}: holds weights that cannot be read ({one_line(error)})", _FIX) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError) as error:
        raise CorruptError(f"{archive}: is not a whole zip archive ({one_line(error)})", _FIX) from error
    return Checkpoint(tensors, config)


def _read_weights(opened: zipfile.ZipFile, archive: Path, best: bool) -> dict[str, bytes]:
    """The files of the folder of weights, by their names in it, as its manifest lists them."""
    members = _members(opened, archive)
    folder = _find_weights(members, archive)
    if best:
        folder = folder / BEST
    prefix = "" if folder == PurePosixPath() else f"{folder}/"
    inside = {name.removeprefix(prefix): info for name, info in members.items() if name.startswith(prefix)}
    files = {name: info for name, info in inside.items() if "/" not in name}
    if MANIFEST not in files:
        raise InputError(f"{archive}: no snapshot in it was scored", "leave out --best, or pack a run that was")
    if sum(info.file_size for info in files.values()) > MAX_BYTES:
        raise UnsafeError(f"{archive}: holds weights of more than {MAX_BYTES >> 30} GiB", "make sure of its origin")
    contents = {name: _read(opened, info, archive) for name, info in files.items()}
    _check(contents, archive)
    return contents


def _members(opened: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive, without hidden ones and the litter of file managers."""
    infos = [info for info in opened.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise UnsafeError(f"{archive}: holds more than {MAX_MEMBERS:,} files", "pack the run folder alone")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        if str(path) in members:
            raise UnsafeError(f"{archive}: holds {path} twice", _FIX)
        members[str(path)] = info
    return members


def _find_weights(members: Mapping[str, zipfile.ZipInfo], archive: Path) -> PurePosixPath:
    """The one folder of weights: training states have no configuration, and the best weights lie inside others."""
    manifests = (PurePosixPath(name) for name in members if PurePosixPath(name).name == MANIFEST)
    found = [path.parent for path in manifests if str(path.parent / CONFIG) in members and path.parent.name != BEST]
    if not found:
        raise InputError(f"{archive}: holds no weights", "pack the folder of a run that reached a snapshot")
    if len(found) > 1:
        raise InputError(f"{archive}: holds {len(found)} runs ({found[0]}, {found[1]} ...)", "pack one run folder")
    return found[0]


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> bytes:
    if info.flag_bits & 1:
        raise InputError(f"{archive}: is encrypted", "pack the run folder without a password")
    if info.compress_type not in _READ:
        raise InputError(f"{archive}: is compressed in a way that is not read here", "pack with Deflate, as is usual")
    with opened.open(info) as member:
        return member.read(info.file_size)  # a read without a number would unpack whatever there is


def _check(contents: Mapping[str, bytes], archive: Path) -> None:
    """Compare the files with their manifest; raises `CorruptError` naming the first difference."""
    try:
        entries = parse(contents[MANIFEST], Manifest)["files"]
    except BadJSON as error:
        raise CorruptError(f"{archive}: its {MANIFEST} {error}", _FIX) from error
    own = {name: entry for name, entry in entries.items() if "/" not in name}
    for name, entry in own.items():
        content = contents.get(name)
        problem = wrong_size(None if content is None else len(content), entry)
        if problem := problem or content_damage([content], entry):
            raise CorruptError(f"{archive}: {name} {problem}", _FIX)
    if unknown := sorted(contents.keys() - own.keys() - {MANIFEST}):
        raise CorruptError(f"{archive}: {unknown[0]} is not in {MANIFEST}", _FIX)
