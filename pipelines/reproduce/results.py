"""Results of rows as files, and the table that they make: table.md to read, table.json to compute with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files.atomic import read_json, write_bytes, write_json
from data.files.runs import versions
from pipelines.reproduce.paper import MEASURES, SCORED, AutoencoderTraining, Row, Training
from pipelines.reproduce.plan import Plan, listed

OF_THE_MACHINE = {"minutes", "hours", "memory", "drawing"}
NO_DATA = "no data given"
NOT_RUN = "not run yet"


def settings(plan: Plan, row: Row) -> dict[str, Any]:
    """What a result depends on, besides the row itself."""
    config = plan.config
    source = plan.sources[row.data].name if row.data in plan.sources else None
    made_by = plan.autoencoder_source.name if plan.autoencoder_source else config.autoencoder
    needs_autoencoder = isinstance(row.training, Training) and row.training.factor > 1
    return {
        "data": source,
        "scale": config.scale,
        "size": config.size,
        "seeds": list(plan.seeds),
        "features": config.features,
        "autoencoder": str(made_by) if needs_autoencoder else None,
        "vgg_weights": bool(config.vgg_weights) if isinstance(row.training, Training) and row.training.vgg else None,
    }


def result_path(plan: Plan, row: Row) -> Path:
    return plan.out / "results" / f"table-{plan.table.name}" / f"{row.name}.json"


def stored_result(plan: Plan, row: Row) -> dict[str, Any]:
    """The result of a row with these settings, as an earlier call left it, or nothing."""
    path = result_path(plan, row)
    stored: dict[str, Any] = read_json(path) if path.is_file() else {}
    return stored if stored.get("settings") == settings(plan, row) else {}


def write_table(plan: Plan, failures: Mapping[str, str], machine: str) -> list[Path]:
    """Write both files from what is known so far; `failures` are reasons by row."""
    rows = [_entry(plan, row, failures) for row in plan.table.rows]
    timed = [measure for measure in plan.table.measures if measure in OF_THE_MACHINE]
    departures = list(plan.departures)
    if timed:
        departures.append(f"times and memory are those of {machine}; the paper's are of {plan.paper.machine}")
    described = {
        "paper": plan.paper.name,
        "title": plan.paper.title,
        "authors": plan.paper.authors,
        "table": plan.table.name,
        "table_title": plan.table.title,
        "measures": {measure: MEASURES[measure] for measure in plan.table.measures},
        "measured_as": {measure: _measured_as(measure, plan.config.features) for measure in plan.table.measures},
        "rows": rows,
        "departures": departures,
        "notes": list(plan.table.notes),
        "scale": plan.config.scale,
        "num": plan.num if plan.table.scored else None,
        "machine": machine,
        "versions": versions(),
    }
    write_json(plan.out / "table.json", described)
    write_bytes(plan.out / "table.md", _page(described).encode())
    return [plan.out / "table.md", plan.out / "table.json"]


def _entry(plan: Plan, row: Row, failures: Mapping[str, str]) -> dict[str, Any]:
    stored = stored_result(plan, row)
    reason = "" if stored else row.reason or failures.get(row.name, "")
    if not stored and not reason:
        reason = NOT_RUN if row.data in plan.sources else f"{NO_DATA} for {plan.paper.data_set(row.data).title}"
    return {
        "name": row.name,
        "label": row.label,
        "data": row.data,
        "training": _trained_as(plan, row),
        "published": dict(row.published),
        "measured": stored.get("measured", {}),
        "trainings": stored.get("trainings", []),
        "without_result": reason or None,
    }


def _trained_as(plan: Plan, row: Row) -> dict[str, Any] | None:
    """What is trained for the row; None where it cannot be run."""
    if isinstance(row.training, AutoencoderTraining):
        return {"factor": row.training.factor, "kimg": row.training.kimg * plan.config.scale}
    if row.training is None:
        return None
    return {
        "variant": row.training.variant,
        "model": dict(row.training.model),
        "size": plan.size(row.training),
        "factor": row.training.factor,
        "kimg": row.training.kimg * plan.config.scale,
        "batch_size": row.training.batch_size,
    }


def _measured_as(measure: str, features: str) -> str:
    """The head of the column of measured numbers: FID and IS are names of scores on Inception's features alone."""
    if features == "inception" or measure not in SCORED:
        return MEASURES[measure]
    return f"{'FD' if measure == 'fid' else MEASURES[measure]} on {features} features"


def _page(described: Mapping[str, Any]) -> str:
    columns = ["row", "name"]
    for measure, head in described["measures"].items():
        columns += [f"{head}, published", f"{described['measured_as'][measure]}, measured"]
    lines = [
        f"# {described['title']}, table {described['table']}",
        "",
        f"{described['authors']}: {described['table_title']}.",
        "",
        _line([*columns, "remark"]),
        _line(["---"] * (len(columns) + 1)),
    ]
    for row in described["rows"]:
        cells = [row["label"], row["name"]]
        for measure in described["measures"]:
            cells += [_published(row["published"].get(measure)), _measured(row["measured"].get(measure))]
        lines.append(_line([*cells, row["without_result"] or ""]))
    lines += ["", "Departures from the paper:", ""]
    lines += [f"- {phrase}" for phrase in described["departures"]] or ["- none"]
    if described["notes"]:
        lines += ["", "What the paper leaves open:", "", *(f"- {note}" for note in described["notes"])]
    made_with = listed([f"{name} {version}" for name, version in described["versions"].items()], "and")
    lines += ["", f"Measured on {described['machine']}, with {made_with}; training in fp32."]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _published(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if value < 0.01 else f"{value:g}"


def _measured(value: float | None) -> str:
    """Four digits, as most papers have."""
    if value is None:
        return "-"
    return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:.4g}"
