"""`codegan report`: everything about a run, or about several beside each other, on one HTML page that opens offline."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from data.advice import Action, Advice, Done
from data.console import ProgressReport
from data.errors import UsageError
from data.files.atomic import write_bytes
from pipelines.commands import command
from pipelines.configs import ReportConfig
from pipelines.report.curves import curves
from pipelines.report.data_set import data_set
from pipelines.report.decoders import decoders, has_decoders
from pipelines.report.latents import interpolation, latents
from pipelines.report.missing import attempt
from pipelines.report.page import render
from pipelines.report.reconstructions import reconstructions, sizes
from pipelines.report.run_folder import RunFolder, flat
from pipelines.report.samples import neighbours, samples
from pipelines.report.scores import scores
from pipelines.report.summary import summarise

_MOST_RUNS = 8  # as many as there are colours

type Runs = Sequence[RunFolder]


def report(config: ReportConfig) -> Done:
    """Write RUN/report.html; what a run does not have yet is named on it, with the command that makes it.

    Raises `UsageError` for runs that cannot be compared, `InputError` for a folder that is not a run, `CorruptError`
    when its configuration, its log or that of its weights does not parse.
    """
    if not 1 <= len(config.run) <= _MOST_RUNS:
        raise UsageError(f"--run: has {len(config.run)} folders", f"give 1 to {_MOST_RUNS}")
    first, *others = config.run
    runs = [RunFolder.open(first, config.data, config.store), *map(RunFolder.open, others)]
    if len({run.is_generator for run in runs}) > 1:
        raise UsageError("--run: generators and autoencoders have nothing to compare", "give runs of one kind")
    path = runs[0].folder / "report.html"
    write_bytes(path, _page(runs))
    return Done([path], _next_command(runs[0]))


def _page(runs: Runs) -> bytes:
    """A section that fails costs itself alone."""
    first, of_generators = runs[0], runs[0].is_generator
    of_all: dict[str, Callable[[Runs], Any]] = {
        "scores": scores if of_generators else sizes,
        "samples": samples,
        "curves": curves,
        "configuration": configuration,
    }
    of_first: dict[str, Callable[[RunFolder], Any]] = {"reconstructions": reconstructions, "data": data_set}
    if of_generators:
        of_first |= {"latents": latents, "interpolation": interpolation, "neighbours": neighbours}
        if has_decoders(first):
            of_first["decoders"] = decoders
    sections = [*of_all, *of_first]
    with ProgressReport("report", len(sections), "sections") as progress:

        def told[T](name: str, section: T) -> T:
            progress.update(sections.index(name) + 1)
            return section

        return render(
            names=[run.name for run in runs],
            of_generators=of_generators,
            summaries=[attempt(run.check_command, summarise, run, len(runs)) for run in runs],
            of_all={name: told(name, attempt(first.check_command, make, runs)) for name, make in of_all.items()},
            of_first={name: told(name, attempt(first.check_command, make, first)) for name, make in of_first.items()},
        )


def configuration(runs: Runs) -> list[list[str]]:
    """A row for each field, with its name and its value in each run."""
    columns = [dict(flat(run.config)) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(_setting(column.get(name)) for column in columns)] for name in names]


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _next_command(run: RunFolder) -> list[str]:
    """What to type after looking at the report."""
    if not run.weights:
        return shlex.split(run.train_command)
    if not run.is_generator:
        return command(Advice(Action.ENCODE, {"data": run.data or ["DATA"], "autoencoder": run.folder}))
    if not (run.folder / "scores.json").is_file():
        return shlex.split(run.score_command())
    return command(Advice(Action.SAMPLE, {"run": run.folder}))
