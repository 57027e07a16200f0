"""Run folders: their configuration, their metrics, and whether they may be resumed.

RUN/config.json      the whole resolved configuration, with versions and a checksum
RUN/.config.json     a copy, in case either is damaged
RUN/metrics.jsonl    one JSON object on each line: step, nimg, wall_sec, log keys, and a checksum of these
"""

import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.errors import CorruptError, MismatchError, UsageError
from data.files.atomic import disk_errors, write_bytes, write_json
from data.files.checksums import checksum_holds, read_checked, read_most, with_checksum
from data.limits import Natural, Weight
from data.sources.locations import CONFIG_COPY, Location
from data.strict_json import BadJSON, parse

logger = logging.getLogger(__name__)

CONFIG = "config.json"
_VERSIONED = ("codegan", "torch", "zarr", "accelerate", "numpy")
# what a run writes before it has a checkpoint
_BEFORE_CHECKPOINTS = {CONFIG, "metrics.jsonl", "skipped.jsonl", "tracker"}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a run computes."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _VERSIONED}


def to_json(value: Any) -> Any:
    """A configuration value for JSON, where dataclasses become objects, paths strings and tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)  # a path, here or elsewhere


def defaults(kind: type) -> dict[str, Any]:
    """The defaults of a dataclass by field; fields without one are left out."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}


def _filled(stored: Mapping[str, Any], missing: Mapping[str, Any]) -> dict[str, Any]:
    """`stored`, completed by what only `missing` has; objects in both are merged."""
    filled = dict(missing)
    for key, value in stored.items():
        inner = missing.get(key)
        filled[key] = _filled(value, inner) if isinstance(value, dict) and isinstance(inner, dict) else value
    return filled


def _differences(old: Any, new: Any, ignored: Container[str], name: str = "") -> list[str]:
    """A line for each entry that differs, except those in `ignored`, which names inner ones as "outer.inner"."""
    if name in ignored:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        inner = (_differences(old.get(key), new.get(key), ignored, f"{name}.{key}".strip(".")) for key in keys)
        return [line for lines in inner for line in lines]
    return [] if old == new else [f"{name}: {old!r} then, {new!r} now"]


def _has_trained(folder: Path) -> bool:
    """Whether a folder holds results of training, or anything that no run wrote; unfinished checkpoints are hidden."""
    names = {entry.name for entry in folder.glob("[!.]*")} - _BEFORE_CHECKPOINTS
    return bool(names - {"checkpoints"} or any((folder / "checkpoints").glob("[!.]*")))


def find_config(folder: Path) -> tuple[dict[str, Any] | None, list[Path]]:
    """A run's configuration, None where there is no undamaged copy, and the copies that are damaged.

    Earlier versions wrote a single file without a checksum, which is trusted.
    """
    path, second = folder / CONFIG, folder / CONFIG_COPY
    copies = [path, second] if second.is_file() else [path] if path.is_file() else []
    checked = {copy: read_checked(copy) for copy in copies}
    whole = [config for config in checked.values() if config is not None]
    if copies == [path] and not whole:
        with suppress(BadJSON):
            config = parse(read_most(path))
            if "crc32c" not in config:
                return config, []
    return next(iter(whole), None), [copy for copy in copies if checked[copy] is None]


def config_error(config: Mapping[str, Any] | None, damaged: Sequence[Path]) -> CorruptError:
    """An error about what `find_config` found to be damaged."""
    fix = "run the command of this run again, which writes it again"
    if config is None:
        fix = "restore it from a copy; the command of this run writes one like it into another --out"
    return CorruptError(f"{damaged[0]}: is missing or does not match its checksum", fix)


def open_run(
    folder: Path, config: Mapping[str, Any], may_change: Sequence[str] = (), earlier: Mapping[str, Any] | None = None
) -> None:
    """Start a run in `folder`, or check that its configuration is the one it was started with.

    A run of an earlier version, which lacks newer fields, is taken to have had `earlier`, usually their `defaults`.

    Fields in `may_change` (how long to train, how often to save; "outer.inner" for one inside another) may differ. All
    may differ before the first checkpoint, when nothing is lost and a failed command is corrected by typing it again.
    Raises `MismatchError` naming every other field that differs, `CorruptError` when both copies of the configuration
    are damaged, and `UsageError` when the folder holds something that is not a run.
    """
    wanted = to_json(config)
    stored, damaged = find_config(folder)
    if stored is not None:
        stored = _filled(stored, to_json(earlier or {}))
        differing = _differences(stored, wanted, {"versions", "crc32c", *may_change})
        if differing and (_has_trained(folder) or "versions" not in stored):
            raise MismatchError(
                f"{folder}: was started with another configuration ({'; '.join(differing)})",
                "repeat the flags of the first run (config.json has them), or choose another --out",
            )
        if damaged:
            logger.warning("%s: was damaged and is written again", damaged[0])
    elif damaged:
        raise config_error(stored, damaged)
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", "give a folder for --out")
    elif folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and not a run", "choose another --out")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, CONFIG_COPY):
        write_json(folder / name, with_checksum({**wanted, "versions": versions()}))


class MetricsLog:
    """Appends to RUN/metrics.jsonl. Wall time continues where an interrupted run stopped."""

    def __init__(self, folder: Path, nimg: int, wall_sec: float = 0.0) -> None:
        """Keep lines up to `nimg`; those after it belong to steps that a resumed run takes again.

        `wall_sec` is the time that passed up to now, including those steps, where the process knows it.
        """
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder, tolerate_cut=True) if row["nimg"] <= nimg]
        write_bytes(self.path, "".join(map(_line, kept)).encode())
        self._wall_before = max(wall_sec, kept[-1]["wall_sec"] if kept else 0.0)
        self._started = time.monotonic()

    def wall_sec(self) -> float:
        return self._wall_before + max(0.0, time.monotonic() - self._started)

    def append(self, step: int, nimg: int, values: Mapping[str, float]) -> None:
        row = {"step": step, "nimg": nimg, "wall_sec": round(self.wall_sec(), 3), **values}
        with disk_errors(self.path), self.path.open("a") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(with_checksum(row)) + "\n"


@dataclasses.dataclass(frozen=True)
class _Row:
    """The shape of a line of the log."""

    step: Natural
    nimg: Natural
    wall_sec: Weight


_PLAIN_KEYS = {field.name for field in dataclasses.fields(_Row)} | {"ranks", "rollbacks"}  # others have a slash


def read_metrics(folder: Location, tolerate_cut: bool = False) -> list[dict[str, Any]]:
    """All rows of RUN/metrics.jsonl, without their checksums; [] without one.

    A last line cut by a crash is dropped when `tolerate_cut`. Earlier versions wrote no checksums, so lines without are
    accepted in a log that has none at all. Raises `CorruptError` naming the first damaged line.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    rows = []
    for number, line in enumerate(lines, 1):
        is_unfinished = number == len(lines)  # whole lines end in a line break
        if is_unfinished and not line:
            break
        try:
            rows.append(_parse_row(line))
        except BadJSON as error:
            if tolerate_cut and is_unfinished and not _holds_a_row(line):
                break
            raise CorruptError(f"{path}: line {number} {error}", "remove that line") from error
    has_checksum = ["crc32c" in row for row in rows]
    if any(has_checksum) and not all(has_checksum):
        number = has_checksum.index(False) + 1
        raise CorruptError(f"{path}: line {number} has no checksum", "remove that line")
    return [{name: value for name, value in row.items() if name != "crc32c"} for row in rows]


def _parse_row(line: bytes) -> dict[str, Any]:
    """Raises `BadJSON` for what is not a row, or not the one that was written."""
    row: dict[str, Any] = parse(line, _Row, allow_nan=True)
    for name, value in row.items():
        if not (name in _PLAIN_KEYS or "/" in name or name == "crc32c"):
            raise BadJSON(f"holds a name that no log has: {name}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadJSON(f"does not hold a number for {name}")
    if "crc32c" in row and not checksum_holds(row):
        raise BadJSON("does not match its checksum")
    return row


def _holds_a_row(line: bytes) -> bool:
    """Whether a line holds a whole row and more, so that something else than a cut has happened to it."""
    return b"}" in line
