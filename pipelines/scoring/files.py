"""Where the scores of a run are kept, and which of an earlier measurement may stay beside new ones."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import CorruptError, UsageError
from data.files.atomic import read_json
from pipelines.scoring.config import ScoreConfig

type Stored = dict[str, Any]


def scores_file(config: ScoreConfig) -> Path | None:
    """--out, else RUN/scores.json; a protocol's scores and those of the best weights have files of their own.

    None with --images. Before anything is measured, raises `UsageError` where nothing can be written, and
    `CorruptError` where there is something else than scores.
    """
    kinds = [kind for kind in (config.protocol, "best" if config.best else None) if kind]
    path = config.out or (config.run and config.run / f"{'-'.join(['scores', *kinds])}.json")
    if path is None:
        return None
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", f"name a file in it: {path / 'scores.json'}")
    nearest = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})", "name another file with --out") from error
    if config.out and (path.stem.startswith("neighbours") or (path.exists() and not entries_of(_read(path)))):
        raise UsageError(f"{path}: is another file than one of scores", "choose another name for --out")
    _read(path)
    return path


def _read(path: Path) -> Stored:
    """What the file of scores holds; nothing when there is none."""
    if not path.is_file():
        return {}
    try:
        stored = read_json(path)
        problem = f"{path}: holds no scores"
    except CorruptError as error:
        stored, problem = None, error.what
    if not isinstance(stored, dict):
        raise CorruptError(problem, "delete this file, or name another one with --out")
    return stored


def comparable_scores(path: Path, settings: Mapping[str, Any]) -> Stored:
    """What the file holds if it was measured with these settings; else nothing, and it is said what is replaced."""
    stored = _read(path)
    changed = [name for name, value in settings.items() if name not in stored or stored[name] != value]
    if not changed:
        return stored
    if lost := ", ".join(entries_of(stored)):
        print(f"{path}: the {lost} in it, of other {', '.join(changed)}, is replaced; --out keeps both")
    return {}


def entries_of(stored: Stored) -> dict[str, dict[str, Any]]:
    """The scores among what a file holds, by name."""
    return {name: entry for name, entry in stored.items() if isinstance(entry, dict) and "value" in entry}
