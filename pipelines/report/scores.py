"""The scores of one run, or of several beside each other, with the floors that say what is attainable."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.files.atomic import read_json
from pipelines.report.missing import Missing
from pipelines.report.run_folder import RunFolder
from pipelines.scoring.config import UNBIASED_FROM
from stage2_codegen.variants.projected import BACKBONE

type Entry = dict[str, Any]  # numbers, and lists of both ends of an interval

_FILE = "scores.json"
_IN_HEADER = 3
_COLUMNS = {
    "value": "value",
    "interval": "95% interval",
    "autoencoder_floor": "autoencoder floor",
    "real_floor": "real floor",
    "num_generated": "generated",
    "num_real": "real",
    "num_half": "half of real",
    "nimg": "trained on",
}
_FACTOR_COLUMNS = ("values_covered", "total_variation", "autoencoder_floor", "real_floor", "accuracy")
_MEASURED_WITH = {
    "features": "features",
    "weights_sha256": "feature weights",
    "resize": "resizing",
    "reference_fingerprint": "real images",
    "size": "sizes",
}
_COUNTS = {"num_generated": "counts of generated images", "num_real": "counts of real images"}
_COUNT_MATTERS_NOT = ("kid", "kd", "sifid", "lpips")  # first words of scores whose expectation no count moves
_NO_BREAK = "\N{NO-BREAK SPACE}"


class Measured(NamedTuple):
    """What one file of scores holds."""

    run: RunFolder
    found: dict[str, Any]
    entries: dict[str, Entry]  # by name, in the order in which they were measured
    factors: dict[str, Entry]  # of the scenes, behind the score `modes`
    title: str  # empty for `scores.json`


def score_facts(run: RunFolder) -> tuple[list[tuple[str, str, str]], Missing | None]:
    """Name, value and floors of the first scores, and what makes them anew when they are of earlier weights.

    Raises `Missing` without readable scores.
    """
    measured = _read(run, _FILE)
    shown = list(measured.entries.items())[:_IN_HEADER]
    return [_fact(name, entry) for name, entry in shown], outdated(run, measured.found)


def outdated(run: RunFolder, found: Mapping[str, Any]) -> Missing | None:
    """The scores of the run's weights, where what was `found`, the content of a file, is of others."""
    then, now = found.get("nimg"), (run.best_weights if found.get("best") else run.weights).get("nimg")
    if not isinstance(then, int) or not isinstance(now, int) or then == now:
        return None
    sentence = (
        f"{run.name} was measured at {then:,} images; its weights are now of {now:,}. This command measures again:"
    )
    return Missing(sentence, run.score_command(found))


def scores(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """A table for each kind of measurement, with a row for each score of each run, those of one score together."""
    groups: dict[str, list[Measured]] = {}
    lacking = []
    for run in runs:
        for file in (_FILE, *sorted(path.name for path in run.folder.glob("scores-*.json"))):
            try:
                found = _read(run, file)
                groups.setdefault(found.title, []).append(found)
            except Missing as lack:
                lacking.append(lack)
    measured = [each for group in groups.values() for each in group]
    tables = [_table(groups[title], len(runs) > 1) for title in sorted(groups)]
    return {"tables": tables, "missing": lacking, **_explanation(measured)}


def _read(run: RunFolder, file: str) -> Measured:
    """Raises `Missing` where nothing was measured, or where the file is damaged."""
    command = run.score_command()
    measured = run.beside(file, lambda path: _measured(run, path), command) if run.is_generator else None
    if not measured or not measured.entries:
        found = measured and measured.found
        told = f"{file} of {run.name} holds no scores" if found else f"{run.name} has no scores yet"
        raise Missing(f"{told}. This command measures them:", command)
    return measured


def _measured(run: RunFolder, path: Path) -> Measured:
    """The numbers in a file, without what is none."""
    found = read_json(path)
    conditions = {"nimg": found.get("nimg")}
    entries = {
        name: _numbers(value | conditions, _COLUMNS)
        for name, value in found.items()
        if isinstance(value, dict) and _is_number(value.get("value"))
    }
    modes = found.get("modes")
    by_factor = modes.get("factors") if isinstance(modes, dict) else None
    factors = by_factor if isinstance(by_factor, dict) else {}
    columns = ("values", *_FACTOR_COLUMNS)
    described = {name: _numbers(value, columns) for name, value in factors.items() if isinstance(value, dict)}
    return Measured(run, found, entries, described, "" if path.name == _FILE else _title(path.name, found))


def _numbers(value: Mapping[str, Any], names: Iterable[str]) -> Entry:
    """Those of `names` that hold a finite number or two."""
    return {
        name: number
        for name in names
        if _is_number(number := value.get(name))
        or (isinstance(number, list) and len(number) == 2 and all(map(_is_number, number)))
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _title(file: str, found: Mapping[str, Any]) -> str:
    """In words for the names that `codegan score` gives; else, of --out, the distinct part of the file's."""
    kinds = {str(found["protocol"]): f"protocol {found['protocol']}"} if found.get("protocol") else {}
    kinds |= {"best": "best weights"} if found.get("best") else {}
    stem = file.removeprefix("scores-").removesuffix(".json")
    return " · ".join(kinds.values()) if "-".join(kinds) == stem else stem


def _table(measured: Sequence[Measured], several: bool) -> dict[str, Any]:
    names = dict.fromkeys(name for each in measured for name in each.entries)
    lines = [
        (_label(name, each, several), each.entries[name]) for name in names for each in measured if name in each.entries
    ]
    columns = [column for column in _COLUMNS if any(column in entry for _, entry in lines)]
    title = measured[0].title
    return {
        "title": title[:1].upper() + title[1:],
        "head": ["", *(_COLUMNS[column] for column in columns)],
        "rows": [[label, *(_number(entry.get(column)) for column in columns)] for label, entry in lines],
        "incomparable": _incomparable(names, measured),
        "origin": _origin(measured),
        "outdated": [lack for each in measured if (lack := outdated(each.run, each.found))],
        "factors": _factor_rows(measured, several),
    }


def _label(name: str, measured: Measured, several: bool) -> str:
    return f"{name} · {measured.run.name}" if several else name


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _incomparable(names: Iterable[str], measured: Sequence[Measured]) -> dict[str, list[str]]:
    """The conditions that differ between runs and move scores, with the names of those scores."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        counts = {} if _kind(name) in _COUNT_MATTERS_NOT else _COUNTS
        conditions = [each.found | each.entries[name] for each in measured if name in each.entries]
        differing = [
            label
            for field, label in (_MEASURED_WITH | counts).items()
            if len({str(condition.get(field)) for condition in conditions}) > 1
        ]
        reasons.setdefault(", ".join(differing), []).append(name)
    return {why: affected for why, affected in reasons.items() if why}


def _origin(measured: Sequence[Measured]) -> str:
    """What the scores were measured with, once where it is the same for all runs."""
    told = [(each.run.name, _measured_with(each.found)) for each in measured]
    first, *others = dict.fromkeys(sentence for _, sentence in told)
    return " ".join(f"{name}: {sentence}" for name, sentence in told) if others else first


def _measured_with(found: Mapping[str, Any]) -> str:
    sentence = f"Features: {found.get('features')}. Reference: {found.get('reference')}."
    if not found.get("protocol"):
        return sentence
    departures = found.get("protocol_departures")
    differs = ", ".join(map(str, departures)) if isinstance(departures, list) else ""
    return f"{sentence} Protocol {found['protocol']}, {differs or 'as in the paper'}."


def _explanation(measured: Sequence[Measured]) -> dict[str, Any]:
    """What decides on the remarks below the tables."""
    entries = [(_kind(name), entry) for each in measured for name, entry in each.entries.items()]
    counts = [entry.get(count, 0) for kind, entry in entries for count in _COUNTS if kind in ("fid", "fd")]
    return {
        "kinds": [kind for kind, _ in entries],
        "unbiased_from": UNBIASED_FROM,
        "biased": min(counts, default=UNBIASED_FROM) < UNBIASED_FROM,
        "favoured": list(dict.fromkeys(each.run.name for each in measured if _saw_imagenet(each.run))),
    }


def _saw_imagenet(run: RunFolder) -> bool:
    frozen = run.weights.get("frozen")
    return isinstance(frozen, dict) and BACKBONE in frozen


def _factor_rows(measured: Sequence[Measured], several: bool) -> list[list[str]]:
    """Each factor of the scenes, and how far the network that names it can be trusted."""
    names = dict.fromkeys(name for each in measured for name in each.factors)
    return [
        [_label(name, each, several), *_factor_cells(each.factors[name])]
        for name in names
        for each in measured
        if name in each.factors
    ]


def _factor_cells(factor: Entry) -> list[str]:
    covered, *shares = (_number(factor.get(column)) for column in _FACTOR_COLUMNS)
    return [f"{covered} of {_number(factor.get('values'))}", *shares]


def _fact(name: str, entry: Entry) -> tuple[str, str, str]:
    floors = {"autoencoder": entry.get("autoencoder_floor"), "real": entry.get("real_floor")}
    known = [f"{kind} floor {_number(value)}" for kind, value in floors.items() if value is not None]
    return name, _number(entry["value"]), ", ".join(floor.replace(" ", _NO_BREAK) for floor in known)


def _number(value: Any) -> str:
    """Four digits, and all before the point of a large number; of an interval both ends; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " to ".join(map(_number, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
