"""What a run drew: its samples over training, and how near they come to the images it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files.atomic import read_json
from data.sources.decoding import Unreadable
from data.spacing import evenly_spaced
from pipelines.report.missing import Missing, attempt
from pipelines.report.pictures import embed_file
from pipelines.report.run_folder import RunFolder, flat
from pipelines.report.scores import outdated

# Bytes before base64, which adds a third: all pictures of a page together stay below 13 MB, a page below 20 MB.
_HEADER_BYTES, _LAST_FRAME_BYTES, _EARLIER_FRAMES_BYTES = 500_000, 1_200_000, 3_000_000  # of all runs together
_NEIGHBOURS_BYTES = 1_500_000
_FRAMES = 24


def latest(run: RunFolder, runs: int) -> dict[str, Any] | None:
    """The newest readable sample grid; nothing without one."""
    for path in reversed(sample_paths(run)):
        try:
            return _frame(run, path, _HEADER_BYTES // runs)
        except Unreadable:
            continue
    return None


def samples(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """A film of each run; raises `Missing` when there is none at all."""
    if not any(sample_paths(run) for run in runs):
        sentence = "There are no samples yet; training draws them at every snapshot. This command goes on with it:"
        raise Missing(sentence, runs[0].train_command)
    return [_film(run, len(runs)) for run in runs]


def sample_paths(run: RunFolder) -> list[Path]:
    return sorted(path for path in (run.folder / "samples").glob("[!.]*.png") if run.holds(path))


def _film(run: RunFolder, runs: int) -> dict[str, Any]:
    paths = sample_paths(run)
    chosen = [paths[index] for index in evenly_spaced(len(paths), _FRAMES)]
    frames, broken = [], []
    for path in chosen:
        budget = _LAST_FRAME_BYTES if path == paths[-1] else _EARLIER_FRAMES_BYTES // len(chosen)
        try:
            frames.append(_frame(run, path, budget // runs))
        except Unreadable as reason:
            broken.append(f"{path.name} is left out: {reason}.")
    told = "The same noise at every snapshot." if run.is_generator else "Originals above, reconstructions below."
    if len(frames) == 1:
        told += f" There is one snapshot so far; training adds one every {run.config.get('snapshot_kimg')} kimg."
    elif len(paths) > len(chosen):
        told += f" {len(chosen)} of {len(paths)} snapshots, evenly spaced; large ones are shrunk."
    notes = [f"{told} In full: {run.folder / 'samples'}"]
    return {"name": run.name, "frames": frames, "notes": [*notes, " ".join(broken)] if broken else notes}


def _frame(run: RunFolder, path: Path, budget: int) -> dict[str, Any]:
    label = f"{int(path.stem) / 1000:,.4g} thousand images" if path.stem.isdecimal() else path.stem
    shown = "Generated samples" if run.is_generator else "Originals above their reconstructions"
    return {"picture": embed_file(path.read_bytes(), budget), "alt": f"{shown} after {label}", "label": label}


def neighbours(run: RunFolder) -> dict[str, Any]:
    """The sheet that `codegan score` makes; raises `Missing` without it."""
    command = run.score_command()
    sheet = run.beside("neighbours.png", lambda path: embed_file(path.read_bytes(), _NEIGHBOURS_BYTES), command)
    if not sheet:
        raise Missing("No one has looked yet whether the samples repeat training images. This command does:", command)
    return {"sheet": sheet, "distances": attempt(run.check_command, _distances, run)}


def _distances(run: RunFolder) -> dict[str, Any] | None:
    found = run.beside("neighbours.json", read_json, run.score_command())
    if not found:
        return None
    near = found.get("closer_than_5_percent_of_real")
    return {
        "outdated": outdated(run, found),
        "near": None if near is None else f"{near:.0%}",
        "rows": [[name, _short(value)] for name, value in flat(found) if not isinstance(value, list)],
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
