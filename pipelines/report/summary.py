"""What a person judges a run by in ten seconds: its newest samples and its scores beside their floors."""

from pathlib import PurePath
from typing import Any, NamedTuple

from data.sizes import as_size, size_text
from pipelines.report.missing import Missing, attempt
from pipelines.report.reconstructions import sizes_of
from pipelines.report.run_folder import RunFolder
from pipelines.report.samples import latest
from pipelines.report.scores import score_facts


class Fact(NamedTuple):
    name: str
    value: str
    more: str = ""


def summarise(run: RunFolder, runs: int) -> dict[str, Any]:
    """A run as one of so many on a page."""
    goal = 1000 * float(run.config.get("kimg", 0))
    complete = run.nimg >= goal
    quality, outdated = _quality(run)
    facts = [*quality, Fact("Trained on", f"{run.nimg:,} images", "" if complete else f"of {goal:,.0f}")]
    if run.metrics:
        facts.append(Fact("Wall time", _duration(float(run.last.get("wall_sec", 0)))))
    if run.data:
        facts.append(Fact("Data", ", ".join(PurePath(name).name for name in run.data)))
    return {
        "subtitle": _subtitle(run),
        "latest": latest(run, runs),
        "facts": facts,
        "outdated": outdated,  # the scores among the facts
        "complete": complete,
        "command": run.train_command,
        "versions": [f"{name} {version}" for name, version in run.config.get("versions", {}).items()],
    }


def _quality(run: RunFolder) -> tuple[list[Fact], Missing | None]:
    """Nothing where it is missing or damaged: a section says what is wrong."""
    if run.is_generator:
        scores = attempt(run.check_command, score_facts, run)
        return ([], None) if isinstance(scores, Missing) else ([Fact(*score) for score in scores[0]], scores[1])
    sizes = attempt(run.check_command, sizes_of, run)
    return ([] if isinstance(sizes, Missing) else [Fact(f"PSNR at {sizes[0][0]} px", f"{sizes[0][1]} dB")]), None


def _subtitle(run: RunFolder) -> str:
    if run.is_generator:
        size = run.weights.get("image_size")
        return f"Generator, variant {run.config.get('variant')}" + (
            f", {size_text(as_size(size))} pixels" if size else ""
        )
    return f"Autoencoder, factor {run.config.get('factor')}, {run.config.get('code_channels')} code channels"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min"
