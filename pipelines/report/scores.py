"""The scores of one run, or of several beside each other, with the floors that say what is attainable."""

import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from pipelines.report.page import Fact, folded, missing, note, paragraph, table
from pipelines.report.run_view import Missing, RunView, is_number, score_command
from pipelines.scoring.config import UNBIASED_FROM
from stage2_codegen.variants.projected import BACKBONE

type Entry = dict[str, Any]

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
_EXPLAINED = (
    "Lower is better for distances (fid, kid, fd, kd, sifid), higher for all others. Autoencoder floor: the score of "
    "real images, encoded and decoded; a generator of latents hardly gets beyond it. Real floor: one random half of "
    "the real images against the other"
)
_OTHER_REAL_FLOORS = {
    "is": "for is, which compares with nothing, the score of one half alone",
    "lpips": "for lpips-diversity, that of pairs of real images",
}
_FAVOURED = (
    "Distances on ImageNet features favour generators whose critic was trained on ImageNet features (Kynkaanniemi et "
    "al. 2023), as was that of"
)
_BIASED = f"Below {UNBIASED_FROM:,} images a Frechet distance (fid, fd) is biased upward, and so are its floors."


class Measured(NamedTuple):
    """What one file of scores holds."""

    run: RunView
    found: dict[str, Any]
    entries: dict[str, Entry]  # by name, in the order in which they were measured
    title: str  # empty for `scores.json`


def score_facts(run: RunView) -> tuple[list[Fact], str]:
    """The first scores with their floors, and whether they are of earlier weights; nothing without readable scores."""
    try:
        measured = _read(run, _FILE)
    except Missing:
        return [], ""
    shown = list(measured.entries.items())[:_IN_HEADER]
    return [_fact(name, entry) for name, entry in shown], outdated(run, measured.found)


def outdated(run: RunView, found: dict[str, Any]) -> str:
    """Says so where what was `found`, the content of a file with `nimg`, is of other weights than the run has now."""
    then, now = found.get("nimg"), (run.best_weights if found.get("best") else run.weights).get("nimg")
    if not is_number(then) or not is_number(now) or then == now:
        return ""
    sentence = (
        f"{run.name} was measured at {then:,} images; its weights are now of {now:,}. This command measures again:"
    )
    return missing(sentence, shlex.join(score_command(run, found)))


def scores(runs: Sequence[RunView]) -> str:
    """A table for each kind of measurement, with a row for each score of each run, those of one score together."""
    groups: dict[str, list[Measured]] = {}
    lacking = []
    for run in runs:
        for file in (_FILE, *sorted(path.name for path in run.folder.glob("scores-*.json"))):
            try:
                measured = _read(run, file)
                groups.setdefault(measured.title, []).append(measured)
            except Missing as lack:
                lacking.append(missing(lack.sentence, lack.command))
    shown = [_group(groups[title], len(runs) > 1) for title in sorted(groups)]
    explained = note(_explanation([each for group in groups.values() for each in group])) if groups else ""
    return "".join([*shown, explained, *lacking])


def _read(run: RunView, file: str) -> Measured:
    """Raises `Missing` where nothing was measured, or where the file is damaged."""
    command = shlex.join(score_command(run))
    found = run.side_file(file, command) if run.is_generator else {}
    entries = {name: entry for name, value in found.items() if (entry := _entry(value, found))}
    if not entries:
        told = f"{file} of {run.name} holds no scores" if found else f"{run.name} has no scores yet"
        raise Missing(f"{told}. This command measures them:", command)
    return Measured(run, found, entries, "" if file == _FILE else _title(file, found))


def _title(file: str, found: dict[str, Any]) -> str:
    """In words for the names that `codegan score` gives; else, of --out, the distinct part of the file's."""
    kinds = {str(found["protocol"]): f"protocol {found['protocol']}"} if found.get("protocol") else {}
    kinds |= {"best": "best weights"} if found.get("best") else {}
    stem = file.removeprefix("scores-").removesuffix(".json")
    return " · ".join(kinds.values()) if "-".join(kinds) == stem else stem


def _entry(value: Any, found: dict[str, Any]) -> Entry:
    """Its numbers, and those of the whole file; empty for what is no score."""
    if not isinstance(value, dict) or not is_number(value.get("value")):
        return {}
    known = {**value, "nimg": found.get("nimg")}
    return {column: known[column] for column in _COLUMNS if column in known and _shows(known[column])}


def _shows(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and len(value) == 2 and all(map(is_number, value)))


def _group(measured: Sequence[Measured], several: bool) -> str:
    """Scores that were measured in the same way, as far as that was asked for."""
    names = dict.fromkeys(name for each in measured for name in each.entries)
    lines = [
        (_label(name, each, several), each.entries[name]) for name in names for each in measured if name in each.entries
    ]
    columns = [column for column in _COLUMNS if any(column in entry for _, entry in lines)]
    rows = [[label, *(_number(entry.get(column)) for column in columns)] for label, entry in lines]
    title = measured[0].title
    return "".join(
        [
            f"<h3>{escape(title[:1].upper() + title[1:])}</h3>" if title else "",
            table(["", *map(_COLUMNS.__getitem__, columns)], rows, "scores"),
            *(paragraph(sentence) for sentence in _incomparable(names, measured)),
            note(_origin(measured)),
            *(outdated(each.run, each.found) for each in measured),
            _factors(measured, several),
        ]
    )


def _label(name: str, measured: Measured, several: bool) -> str:
    return f"{name} · {measured.run.name}" if several else name


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _incomparable(names: Iterable[str], measured: Sequence[Measured]) -> list[str]:
    """Of the scores that several runs have: in what their measurements differ, if in anything that moves them."""
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
    return [f"Do not compare {', '.join(of)}: measured with different {why}." for why, of in reasons.items() if why]


def _origin(measured: Sequence[Measured]) -> str:
    """What the scores were measured with, once where it is the same for all runs."""
    told = [(each.run.name, _measured_with(each.found)) for each in measured]
    first, *others = dict.fromkeys(sentence for _, sentence in told)
    return " ".join(f"{name}: {sentence}" for name, sentence in told) if others else first


def _measured_with(found: dict[str, Any]) -> str:
    sentence = f"Features: {found.get('features')}. Reference: {found.get('reference')}."
    if not found.get("protocol"):
        return sentence
    departures = found.get("protocol_departures")
    differs = ", ".join(map(str, departures)) if isinstance(departures, list) else ""
    return f"{sentence} Protocol {found['protocol']}, {differs or 'as in the paper'}."


def _explanation(measured: Sequence[Measured]) -> str:
    entries = [(_kind(name), entry) for each in measured for name, entry in each.entries.items()]
    kinds = dict.fromkeys(kind for kind, _ in entries)
    told = ["; ".join([_EXPLAINED, *(text for kind, text in _OTHER_REAL_FLOORS.items() if kind in kinds)]) + "."]
    counts = [entry.get(count, 0) for kind, entry in entries for count in _COUNTS if kind in ("fid", "fd")]
    if min(counts, default=UNBIASED_FROM) < UNBIASED_FROM:
        told.append(_BIASED)
    if favoured := dict.fromkeys(run.name for run, *_ in measured if BACKBONE in _object(run.weights.get("frozen"))):
        told.append(f"{_FAVOURED} {', '.join(favoured)}.")
    return " ".join(told)


def _factors(measured: Sequence[Measured], several: bool) -> str:
    """What is behind `modes`: each factor of the scenes, and how far the network that names it can be trusted."""
    found = [(each, _object(_object(each.found.get("modes")).get("factors"))) for each in measured]
    names = dict.fromkeys(name for _, factors in found for name in factors)
    rows = [
        [_label(name, each, several), *_numbers_of(_object(factors[name]))]
        for name in names
        for each, factors in found
        if name in factors
    ]
    if not rows:
        return ""
    head = ["", "values covered", "total variation", "autoencoder floor", "real floor", "classifier's accuracy"]
    told = note(
        "Total variation of the frequencies against those of real images: 0 for the same, 1 for nothing in common. "
        "Accuracy: share of held-out scenes of which the network behind these numbers names the factor rightly."
    )
    return folded("Modes by factor", table(head, rows) + told)


def _numbers_of(factor: dict[str, Any]) -> list[str]:
    covered = f"{_number(factor.get('values_covered'))} of {_number(factor.get('values'))}"
    shares = ("total_variation", "autoencoder_floor", "real_floor", "accuracy")
    return [covered, *(_number(factor.get(name)) for name in shares)]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fact(name: str, entry: Entry) -> Fact:
    floors = {"autoencoder": entry.get("autoencoder_floor"), "real": entry.get("real_floor")}
    known = [f"{kind} floor {_number(value)}" for kind, value in floors.items() if value is not None]
    return Fact(name, _number(entry["value"]), ", ".join(floor.replace(" ", _NO_BREAK) for floor in known))


def _number(value: Any) -> str:
    """Four digits, and all before the point of a large number; of an interval both ends; a dash for anything else."""
    if isinstance(value, list):
        return " to ".join(map(_number, value))
    if not is_number(value):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
