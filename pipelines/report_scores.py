"""The scores of one run, or of several beside each other, with the floors that say what is attainable."""

import shlex
from collections.abc import Sequence
from typing import Any

from pipelines.page import Fact, missing, note, table
from pipelines.run_view import Missing, RunView, score_command

type Entry = dict[str, Any]

_COLUMNS = {
    "value": "value",
    "interval": "95% interval",
    "autoencoder_floor": "autoencoder floor",
    "real_floor": "real floor",
    "num_generated": "generated",
    "num_real": "real",
    "num_half": "half of real",
}
_MEASURED_WITH = ("features", "weights_sha256", "resize", "reference_fingerprint", "size")
_UNBIASED_FROM = 2048
_NO_BREAK = "\N{NO-BREAK SPACE}"
_EXPLAINED = (
    "Lower is better for distances (fid, kid, fd, kd, sifid), higher for all others. Autoencoder floor: real images, "
    "encoded and decoded, against real images; a generator of latents hardly gets beyond it. Real floor: one random "
    "half of the real images against the other."
)
_BIASED = f" Below {_UNBIASED_FROM:,} images a Frechet distance (fid, fd) is biased upward, and so are its floors."


def score_entries(run: RunView) -> dict[str, Entry]:
    """By name, in the order in which they were measured."""
    stored = _stored(run) if run.is_generator else {}
    return {name: entry for name, entry in stored.items() if isinstance(entry, dict) and "value" in entry}


def _stored(run: RunView) -> dict[str, Any]:
    return run.optional_json("scores.json") or {}


def score_fact(name: str, entry: Entry) -> Fact:
    floors = {"autoencoder": entry.get("autoencoder_floor"), "real": entry.get("real_floor")}
    known = [f"{kind} floor {_number(value)}" for kind, value in floors.items() if value is not None]
    return Fact(name, _number(entry["value"]), ", ".join(floor.replace(" ", _NO_BREAK) for floor in known))


def scores(runs: Sequence[RunView]) -> str:
    """A row for each score of each run, those of one score together; raises `Missing` when no run has any."""
    scored = [(run, score_entries(run)) for run in runs]
    if not any(entries for _, entries in scored):
        raise Missing("There are no scores yet. This command measures them:", shlex.join(score_command(runs[0])))
    names = dict.fromkeys(name for _, entries in scored for name in entries)
    entries = [
        (f"{name} · {run.name}" if len(runs) > 1 else name, entries[name])
        for name in names
        for run, entries in scored
        if name in entries
    ]
    columns = [column for column in _COLUMNS if any(entry.get(column) is not None for _, entry in entries)]
    rows = [[label, *(_number(entry.get(column)) for column in columns)] for label, entry in entries]
    least = min(entry.get(kind) or 0 for _, entry in entries for kind in ("num_generated", "num_real"))
    lacking = [
        missing(f"{run.name} has no scores yet. This command measures them:", shlex.join(score_command(run)))
        for run, found in scored
        if not found
    ]
    explained = note(_EXPLAINED + (_BIASED if least < _UNBIASED_FROM else ""))
    return "".join(
        [table(["", *map(_COLUMNS.__getitem__, columns)], rows, "scores"), explained, _origin(runs), *lacking]
    )


def _origin(runs: Sequence[RunView]) -> str:
    """What the scores were measured with: numbers of other features or of another reference do not compare."""
    stored = [found for run in runs if (found := _stored(run))]
    told = dict.fromkeys(f"Features: {found.get('features')}. Reference: {found.get('reference')}." for found in stored)
    comparable = len({tuple(found.get(name) for name in _MEASURED_WITH) for found in stored}) == 1
    return note(" ".join([*told, *([] if comparable else ["They were measured in several ways and do not compare."])]))


def _number(value: Any) -> str:
    """Four digits, and all before the point of a large number; of an interval both ends."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " to ".join(map(_number, value))
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
