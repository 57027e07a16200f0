"""What a run was trained on: a contact sheet of the images, their store, and the files that were left out."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.images import fit, image_grid, to_array
from data.store.seal import Skipped
from data.strict_json import parse
from pipelines.report.missing import Missing, attempt
from pipelines.report.pictures import embed_array
from pipelines.report.run_folder import RunFolder

_CONTACT_SIDE, _CONTACT_BYTES = 96, 900_000


def data_set(run: RunFolder) -> dict[str, Any]:
    """Either part may be missing."""
    stored = _store if run.is_generator else _skipped_by_training
    return {"sheet": attempt(run.check_command, _contact_sheet, run), "stored": attempt(run.check_command, stored, run)}


def _contact_sheet(run: RunFolder) -> dict[str, Any]:
    pictures = [to_array(fit(original, min(_CONTACT_SIDE, original.width))) for _, original in run.originals]
    sheet = embed_array(image_grid(pictures, columns=min(16, len(pictures))), _CONTACT_BYTES)
    return {"picture": sheet, "count": len(pictures), "data": run.data_name}


def _store(run: RunFolder) -> dict[str, Any]:
    store = run.store
    shape = " x ".join(map(str, store.code_shape))
    mirrored = ", mirrored ones among them" if store.seal["flip"] else ""
    if run.config.get("mirror"):
        mirrored += ", each shown as it is or mirrored"
    size = f"images of {store.image_size} x {store.image_size} pixels"
    told = f"Store {store.path.name}: {len(store):,} latents of {shape}{mirrored}, {store.seal['dtype']}, of {size}."
    return {"text": told, "skipped": _rows(store.seal["skipped"])}


def _skipped_by_training(run: RunFolder) -> dict[str, Any]:
    path = run.folder / "skipped.jsonl"
    if not path.is_file():
        command = shlex.join(["codegan", "inspect", *run.data])
        raise Missing("There is no list of skipped files. This command makes one:", command)
    return {"text": "", "skipped": _rows(_lines(path))}


def _lines(path: Path) -> list[dict[str, str]]:
    """What `write_skipped` wrote; raises `BadJSON` for anything else."""
    return [parse(line, Skipped) for line in path.read_bytes().splitlines()]


def _rows(skipped: Iterable[dict[str, str]]) -> list[list[str]]:
    return [[entry["key"], entry["reason"]] for entry in skipped]
