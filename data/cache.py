"""Files from elsewhere that are kept on this machine: they are known by their SHA-256 and downloaded once."""

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from data.console import ProgressReport
from data.errors import CorruptError, UnsafeError, UsageError
from data.files.atomic import publish
from data.files.checksums import read_blocks
from data.sources.web import WebFile, without_secrets

MAX_BYTES = 8 << 30  # of a download
_PART = 8 << 20  # bytes of a request
_HASH = "sha256="


def cache_folder() -> Path:
    """Where downloads and features are kept: $CODEGAN_CACHE, else codegan in $XDG_CACHE_HOME or ~/.cache."""
    if "CODEGAN_CACHE" in os.environ:
        return Path(os.environ["CODEGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codegan"


def fetched(url: str, allow_hosts: Collection[str] = ()) -> Path:
    """The file at https://HOST/FILE#sha256=DIGEST, from the cache or else from its server.

    Raises `UsageError` for an address without a digest, `UnsafeError` for a host that is not allowed or a file that is
    too large, `InputError` where the server fails, and `CorruptError` where the file is another one.
    """
    address, _, fragment = url.partition("#")
    digest = fragment.removeprefix(_HASH).lower()
    if not fragment.startswith(_HASH) or not re.fullmatch("[0-9a-f]{64}", digest):
        fix = f"add #{_HASH} and the 64 digits that `sha256sum FILE` prints where the file was made"
        raise UsageError(f"{without_secrets(address)}: does not say which file is meant", fix)
    file = WebFile(address, frozenset(allow_hosts))
    kept = cache_folder() / "files" / f"{digest}{file.suffix.lower()}"
    if not (kept.is_file() and _sha256(kept) == digest):
        _download(file, kept, digest)
    return kept


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in read_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _download(file: WebFile, target: Path, digest: str) -> None:
    size, found = file.size(), hashlib.sha256()
    if size > MAX_BYTES:
        raise UnsafeError(f"{file}: has more than {MAX_BYTES >> 30} GiB", "make sure of its origin")
    report = ProgressReport("download", size >> 20, "MiB")
    with publish(target) as partial, partial.open("wb") as kept, report:
        for offset in range(0, size, _PART):
            part = file.fetch(offset, _PART)
            kept.write(part)
            found.update(part)
            report.update((offset + len(part)) >> 20)
        if found.hexdigest() != digest:
            what = f"{file}: its SHA-256 is {found.hexdigest()}, not the one that was given"
            raise CorruptError(what, "check both; nothing was kept")
