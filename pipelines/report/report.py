"""`codegan report`: everything about a run, or about several beside each other, on one HTML page that opens offline."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePath
from typing import Any

from data.console import finish
from data.errors import UsageError
from data.files.atomic import write_bytes
from pipelines.configs import ReportConfig
from pipelines.report.curves import curves
from pipelines.report.latents import interpolation, latents
from pipelines.report.page import (
    Fact,
    attempt,
    command_block,
    contents,
    facts,
    folded,
    heading,
    missing,
    note,
    page,
    paragraph,
    section,
    table,
)
from pipelines.report.run_view import Missing, RunView, flat, needing, next_command, reproducing_command
from pipelines.report.samples import data, latest, neighbours, reconstructions, samples
from pipelines.report.scores import score_facts, scores

_MOST_RUNS = 8  # as many as there are colours

type Runs = Sequence[RunView]


def report(config: ReportConfig) -> None:
    """Write RUN/report.html; what a run does not have yet is named on it, with the command that makes it.

    Raises `UsageError` for runs that cannot be compared, `InputError` for a folder that is not a run, `CorruptError`
    when its configuration, its log or that of its weights does not parse.
    """
    if not 1 <= len(config.run) <= _MOST_RUNS:
        raise UsageError(f"--run: has {len(config.run)} folders", f"give 1 to {_MOST_RUNS}")
    runs = [RunView.open(folder) for folder in config.run]
    if len({run.is_generator for run in runs}) > 1:
        raise UsageError("--run: generators and autoencoders have nothing to compare", "give runs of one kind")
    path = runs[0].folder / "report.html"
    write_bytes(path, page(f"{', '.join(run.name for run in runs)} - codegan", _parts(runs)))
    finish([path], next_command(runs[0]))


def _parts(runs: Runs) -> list[str]:
    """The header and the sections, those of the first run after those of all."""
    make: dict[str, tuple[str, Callable[[Runs], str]]] = {
        "scores": ("Scores", scores),
        "samples": ("Samples over training", samples),
        "curves": ("Curves", curves),
        "reconstructions": ("Reconstructions", partial(_of_first, reconstructions)),
        "latents": ("Latents", partial(_of_first, latents)),
        "interpolation": ("Interpolation", partial(_of_first, interpolation)),
        "neighbours": ("Nearest neighbours", partial(_of_first, neighbours)),
        "data": ("Data", partial(_of_first, data)),
        "configuration": ("Configuration", _configuration),
    }
    if not runs[0].is_generator:
        make["scores"] = ("Reconstruction of held-out images", _sizes)
        make["samples"] = ("Reconstructions over training", samples)
        for name in ("latents", "interpolation", "neighbours"):
            del make[name]
    links = contents({name: title for name, (title, _) in make.items()})
    return [_header(runs), links, *(section(name, title, attempt(body, runs)) for name, (title, body) in make.items())]


def _of_first(make: Callable[[RunView], str], runs: Runs) -> str:
    """A section that shows one run."""
    first, *others = runs
    told = f"Of {first.name}; a page of its own shows that of {' and '.join(run.name for run in others)}."
    return (note(told) if others else "") + attempt(make, first)


def _header(runs: Runs) -> str:
    articles = "".join(_summary(run, number, len(runs)) for number, run in enumerate(runs))
    return f'<header id="header" class="{"several" if len(runs) > 1 else "single"}">{articles}</header>'


def _summary(run: RunView, number: int, runs: int) -> str:
    """What a person judges a run by in ten seconds: its newest samples and its scores beside their floors."""
    goal = 1000 * float(run.config.get("kimg", 0))
    done = run.nimg >= goal
    entries, outdated = score_facts(run)
    with suppress(Missing):  # the section says what is wrong
        entries += [Fact(f"PSNR at {size} px", f"{psnr} dB") for size, psnr, *_ in _sizes_of(run)[:1]]
    entries.append(Fact("Trained on", f"{run.nimg:,} images", "" if done else f"of {goal:,.0f}"))
    if run.metrics:
        entries.append(Fact("Wall time", _duration(float(run.last.get("wall_sec", 0)))))
    if run.data:
        entries.append(Fact("Data", ", ".join(PurePath(name).name for name in run.data)))
    command = reproducing_command(run.config)
    if done:
        how = folded("Command that reproduces this run", command_block(command))
    else:
        how = missing("Training is not complete. This command goes on with it:", command)
    versions = " · ".join(f"{name} {version}" for name, version in run.config.get("versions", {}).items())
    title = heading(run.name, number if runs > 1 else None)
    text = [title, paragraph(_subtitle(run), "soft"), facts(entries), outdated, how, note(versions)]
    return f"<article>{latest(run, runs)}<div>{''.join(text)}</div></article>"


def _subtitle(run: RunView) -> str:
    if run.is_generator:
        size = run.weights.get("image_size")
        return f"Generator, variant {run.config.get('variant')}" + (f", {size} x {size} pixels" if size else "")
    return f"Autoencoder, factor {run.config.get('factor')}, {run.config.get('code_channels')} code channels"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _sizes_of(run: RunView) -> list[list[str]]:
    """Pixels a side, PSNR, mean squared error and count, as they are shown; none of a generator.

    Raises `Missing` when nothing was measured, or when the file is damaged.
    """
    if run.is_generator:
        return []
    again = reproducing_command(run.config)
    found = run.side_file("reconstructions.json", again)
    if not found:
        raise Missing(f"Of {run.name} they are measured when training ends. This command goes on with it:", again)
    with needing(
        f"reconstructions.json of {run.name} cannot be read", "Delete it; this command makes it again:", again
    ):
        return [
            [str(row["size"]), f"{row['psnr']:.2f}", f"{row['mse']:.3e}", str(row["count"])] for row in found["rows"]
        ]


def _sizes(runs: Runs) -> str:
    """An autoencoder's measured reconstructions."""
    rows, lacking = [], []
    for run in runs:
        try:
            rows += [[run.name, *row] for row in _sizes_of(run)]
        except Missing as lack:
            lacking.append(missing(lack.sentence, lack.command))
    head = ["", "pixels a side", "PSNR, dB", "mean squared error, images in [-1, 1]", "images"]
    measured = table(head, rows) + note("Higher PSNR is better.") if rows else ""
    return measured + "".join(lacking)


def _configuration(runs: Runs) -> str:
    """One column a run; the rows in which they differ stand out."""
    columns = [dict(flat(run.config)) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(_setting(column.get(name)) for column in columns)] for name in names]
    differing = [number for number, (_, *values) in enumerate(rows) if len(set(values)) > 1]
    head = ["field", *(run.name for run in runs)] if len(runs) > 1 else ["field", "value"]
    return folded(f"{len(rows)} fields", table(head, rows, "text", marked=differing))


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
