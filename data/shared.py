"""Runs wherever they are: in a folder or a .zip of this machine, in a .zip on a web server, or on the hub."""

from collections.abc import Collection
from pathlib import Path

from data.cache import fetched
from data.errors import UsageError
from data.hub import SCHEME, HubAddress, download
from data.sources.locations import scheme_of
from data.sources.web import without_secrets

type RunName = str | Path

_FORMS = "give a run folder, a .zip of one, https://HOST/RUN.zip#sha256=..., or hf://USER/NAME"


def find_run(run: RunName, allow_hosts: Collection[str] = ()) -> Path:
    """The folder or .zip of a run on this machine, downloaded first where it is elsewhere.

    Raises `UsageError` for other addresses, and what `fetched` and `download` raise.
    """
    scheme = scheme_of(str(run))
    if scheme is None:
        return Path(run)
    if scheme in ("http", "https"):
        return fetched(str(run), allow_hosts)
    if scheme == SCHEME:
        return download(HubAddress.parse(str(run)))
    raise UsageError(f"{scheme}://...: is not where runs are read from", _FORMS)


def shown(run: RunName) -> str:
    """A run as messages may show it and as it can be typed again, without secrets that an address may hold."""
    if scheme_of(str(run)) not in ("http", "https"):
        return str(run)
    address, mark, digest = str(run).partition("#")
    return f"{without_secrets(address)}{mark}{digest}"


def own_folder(run: RunName) -> Path | None:
    """The folder of a run where it is one on this machine, into which more can be written; else None."""
    return Path(run) if scheme_of(str(run)) is None and not Path(run).is_file() else None


def name_of(run: RunName) -> str:
    """A short name: the last part of a path or an address, without a suffix for .zip files."""
    if scheme_of(str(run)) is None:
        path = Path(run).resolve()
    else:
        path = Path(str(run).partition("#")[0].partition("?")[0].partition("@")[0])
    return path.name.removesuffix(".zip")
