"""A run folder: its configuration, its metrics, and whether it may be resumed.

RUN/config.json      the whole resolved configuration, with versions
RUN/metrics.jsonl    one JSON object a line: step, nimg, wall_sec, then log keys
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import CorruptError, MismatchError, UsageError
from data.places import Place
from data.storage import disk_errors, read_json, write_bytes, write_json

_VERSIONED = ("codegan", "torch", "zarr", "accelerate", "numpy")
# what a run writes before it has a checkpoint
_BEFORE_CHECKPOINTS = {"config.json", "metrics.jsonl", "skipped.jsonl", "tracker"}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a run computes."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _VERSIONED}


def to_json(value: Any) -> Any:
    """A configuration value as JSON sees it: dataclasses become objects, paths strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)  # a path, here or elsewhere


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{prefix}.{key}".strip("."))]
    return [] if old == new else [f"{prefix}: {old!r} then, {new!r} now"]


def _has_trained(folder: Path) -> bool:
    """Whether a run folder holds what took training, or what no run wrote; unfinished checkpoints are hidden."""
    names = {entry.name for entry in folder.glob("[!.]*")} - _BEFORE_CHECKPOINTS
    return bool(names - {"checkpoints"} or any((folder / "checkpoints").glob("[!.]*")))


def open_run(folder: Path, config: Mapping[str, Any], may_change: Sequence[str] = ()) -> None:
    """Start a run in `folder`, or check that its configuration is the one it was started with.

    Fields in `may_change` (how long to train, how often to save) can differ, and so can all before the first
    checkpoint: then nothing is lost, and a command that failed is corrected by typing it again. Raises `MismatchError`
    naming every other field that differs, `UsageError` when the folder holds something that is not a run.
    """
    path = folder / "config.json"
    wanted = to_json(config)
    if path.is_file():
        stored = read_json(path)
        ignored = {"versions", *may_change}
        differing = _differences(
            {k: v for k, v in stored.items() if k not in ignored}, {k: v for k, v in wanted.items() if k not in ignored}
        )
        if differing and (_has_trained(folder) or "versions" not in stored):
            raise MismatchError(
                f"{folder}: was started with another configuration ({'; '.join(differing)})",
                "repeat the flags of the first run (config.json has them), or choose another --out",
            )
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", "give a folder for --out")
    elif folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and not a run", "choose another --out")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**wanted, "versions": versions()})


class MetricsLog:
    """Appends to RUN/metrics.jsonl; wall time goes on where an interrupted run left it."""

    def __init__(self, folder: Path, nimg: int) -> None:
        """Keep lines up to `nimg`: those after it belong to steps that a resumed run takes again."""
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder, tolerate_cut=True) if row["nimg"] <= nimg]
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._wall_before = kept[-1]["wall_sec"] if kept else 0.0
        self._started = time.monotonic()

    def wall_sec(self) -> float:
        return self._wall_before + time.monotonic() - self._started

    def append(self, step: int, nimg: int, values: Mapping[str, float]) -> None:
        row = {"step": step, "nimg": nimg, "wall_sec": round(self.wall_sec(), 3), **values}
        with disk_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_metrics(folder: Place, tolerate_cut: bool = False) -> list[dict[str, Any]]:
    """All rows of RUN/metrics.jsonl, [] without one. A last line cut by a crash is dropped when `tolerate_cut`."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if tolerate_cut and number == len(lines):
                break
            raise CorruptError(f"{path}: line {number} is not JSON", "remove that line") from error
    return rows
