"""The curves of one run, or of several over each other, and what happened on the way."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipelines.report.charts import Line, Mark, line_chart
from pipelines.report.missing import Missing
from pipelines.report.run_folder import RunFolder
from stage2_codegen.health import Advisor, Health

type Row = dict[str, Any]


class _Chart(NamedTuple):
    title: str
    unit: str
    keys: tuple[str, ...]  # the second one dashed


_CHARTS = [
    _Chart("Generator loss", "critic output", ("loss/g",)),
    _Chart("Critic loss", "critic output", ("loss/critic",)),
    _Chart("Critic gap", "score of real - score of fake", ("score/gap",)),
    _Chart("Critic scores", "critic output", ("score/real", "score/fake")),
    _Chart("Reconstruction loss", "mean difference, images in [-1, 1]", ("loss/l1",)),
    _Chart("Adversarial loss", "nats", ("loss/adversarial",)),
    _Chart("Discriminator loss", "nats", ("loss/discriminator",)),
    _Chart("Gradient penalty, unweighted", "mean (norm - 1)²", ("penalty/gp",)),
    _Chart("Distance between samples", "share of that between real ones", ("health/pairwise_ratio",)),
    _Chart("Largest shift of a channel", "deviations of the real channel", ("health/channel_shift",)),
    _Chart("Critic gap at snapshots", "deviations of the scores", ("health/critic_gap",)),
    _Chart("Grid of the decoder's patches", "1: as on real pictures", ("health/grid",)),
]
_LAST_CHARTS = [
    _Chart("Speed", "images/s", ("time/images_per_sec",)),
    _Chart("Waiting for data", "share of the time", ("time/data_share",)),
    _Chart("Peak memory", "MB", ("memory/peak_mb",)),
]


def curves(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """All that was logged; raises `Missing` before the first row."""
    if not any(run.metrics for run in runs):
        raise Missing("Nothing has been logged yet. This command trains:", runs[0].train_command)
    logged = [list(map(_with_derived, run.metrics)) for run in runs]
    keys = dict.fromkeys(key for rows in logged for row in rows for key in row if "/" in key)
    named = {key for chart in (*_CHARTS, *_LAST_CHARTS) for key in chart.keys}
    scores = [_Chart(key.removeprefix("eval/"), "", (key,)) for key in keys if key.startswith("eval/")]
    others = [_Chart(key, "", (key,)) for key in sorted(keys.keys() - named) if not key.startswith("eval/")]
    marks = [mark for run in runs for mark in _events(run, f"{run.name}: " if len(runs) > 1 else "")]
    charts = [
        line_chart(chart.title, chart.unit, _lines(chart, runs, logged), "thousand images", marks)
        for chart in (*scores, *_CHARTS, *others, *_LAST_CHARTS)
        if not keys.keys().isdisjoint(chart.keys)
    ]
    return {"charts": charts, "marks": marks}


def _with_derived(row: Row) -> Row:
    """A logged row and what it implies; the seconds per thousand images become images per second."""
    values = dict(row)
    if {"score/real", "score/fake"} <= row.keys():
        values["score/gap"] = row["score/real"] - row["score/fake"]
    seconds = values.pop("time/sec_per_kimg", 0)
    if seconds > 0:
        values["time/images_per_sec"] = 1000 / seconds
    return values


def _lines(chart: _Chart, runs: Sequence[RunFolder], logged: Sequence[list[Row]]) -> list[Line]:
    """A run has its own colour; the two lines of a single run have two."""
    lines = []
    for number, (run, rows) in enumerate(zip(runs, logged, strict=True)):
        for second, key in enumerate(chart.keys):
            points = [(row["nimg"] / 1000, float(row[key])) for row in rows if key in row]
            name = " ".join([run.name] * (len(runs) > 1) + [key.partition("/")[2]] * (len(chart.keys) > 1))
            lines.append(Line(name, points, number if len(runs) > 1 else second, dashed=bool(second)))
    return lines


def _events(run: RunFolder, prefix: str) -> list[Mark]:
    """Resumes, returns to a checkpoint, and the warnings that training gave, in order."""
    found = sorted((*_restarts(run.metrics), *_warnings(run.metrics)), key=lambda mark: mark.x)
    return [mark._replace(text=prefix + mark.text) for mark in found]


def _restarts(rows: Sequence[Row]) -> Iterator[Mark]:
    """A process knows its speed from its second row of losses on, so a row without one is its first; what came after
    the checkpoint that it began with has been cut off, so that is where the row before stands.
    """
    known, ranks = False, None  # of the process before
    for before, row in zip([{}, *rows], rows, strict=False):
        if "rollbacks" in row:
            text = f"At {row['nimg']:,} images: went back to this checkpoint after NaN or infinity, with half the rates"
            yield Mark(row["nimg"] / 1000, "rollback", f"{text} (time {row['rollbacks']:g})")
            known = False  # the row that follows may lack a speed, too
        elif any(key.startswith("loss/") for key in row):
            if known and "time/sec_per_kimg" not in row:
                text = f"At {before['nimg']:,} images: resumed, after {before['wall_sec'] / 60:.1f} min of training"
                processes = f", now in {row['ranks']:g} processes" if row.get("ranks") != ranks else ""
                yield Mark(before["nimg"] / 1000, "resume", text + processes)
            known, ranks = True, row.get("ranks")


def _warnings(rows: Sequence[Row]) -> Iterator[Mark]:
    advise = Advisor()
    for row in rows:
        if health := Health.of(row):
            for what, fix in advise(health):
                yield Mark(row["nimg"] / 1000, "warning", f"At {row['nimg']:,} images: {what}. To try: {fix}")
