"""The entries of scores.json: how they are made of extracted features, kept in files and shown as a table.

A metric is a formula (see `metrics`); a score is an entry by the metric's name, with its value, its interval and two
floors that say what is attainable. The autoencoder floor is the score of decode(encode(real)): a generator of latents
can hardly get below it. The real floor compares two random halves of the real images: what chance alone gives at half
the count.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import InputError, UsageError
from data.files.atomic import read_json
from data.seeds import REAL_HALVES
from data.shared import own_folder
from pipelines.scoring.config import ScoreConfig, is_selected
from pipelines.scoring.coverage import by_factor, combinations_covered
from pipelines.scoring.extraction import Extracted
from pipelines.scoring.metrics import (
    Interval,
    ball_counts,
    frechet_distance,
    halves,
    inception_score,
    interval,
    kernel_distance,
    kernel_distances,
    normal_interval,
)
from pipelines.scoring.protocols import MetricName
from pipelines.scoring.sets import Sets

type Entry = dict[str, Any]
type Scores = dict[str, Any]  # all that a file of scores holds: entries, and the settings they were made with

_DRAWS, _DRAWS_IF_SLOW = 200, 20  # random halves behind an interval
_PRECISION_NEIGHBOURS, _DENSITY_NEIGHBOURS = 3, 5  # of the papers
_MIN_IMAGES = {"precision-recall": _PRECISION_NEIGHBOURS + 1, "density-coverage": _DENSITY_NEIGHBOURS + 1}  # else two
_COLUMNS = ("value", "interval", "autoencoder_floor", "real_floor", "num_generated", "num_real", "num_half")


@dataclass(frozen=True)
class Estimate:
    """What a metric gives for two sets."""

    value: float
    interval: Interval | None = None
    details: Entry = field(default_factory=dict)


def make_entry(
    estimate: Estimate, autoencoder_floor: float | None, real_floor: float | None, **counts: int | None
) -> Entry:
    return {
        "value": estimate.value,
        "interval": estimate.interval,
        "autoencoder_floor": autoencoder_floor,
        "real_floor": real_floor,
        **counts,
        **estimate.details,
    }


def make_entries(metric: MetricName, sets: Sets[Extracted], seed: int) -> dict[str, Entry]:
    """The entries of one metric, by name. Raises `InputError` for sets too small for it."""
    estimate, real, least = METRICS[metric], sets.real, _MIN_IMAGES.get(metric, 2)
    if (smallest := min(len(sets.generated.features), len(real.features))) < least:
        raise InputError(f"{metric}: needs {least} images of each kind, there are {smallest}", "give more")
    order = np.random.default_rng([seed, REAL_HALVES]).permutation(len(real.features))
    half = len(order) // 2
    one, other = real.part(order[:half]), real.part(order[half : 2 * half])
    of_decoded = estimate(sets.decoded, real, None) if sets.decoded else {}
    of_halves = estimate(one, other, None) if half >= least else {}
    counts = {"num_generated": len(sets.generated.features), "num_real": len(real.features), "num_half": half}
    entries: dict[str, Entry] = {}
    for name, found in estimate(sets.generated, real, seed).items():
        decoded, halved = of_decoded.get(name), of_halves.get(name)
        floors = (floor.value if floor else None for floor in (decoded, halved))
        entries[name] = make_entry(found, *floors, **counts)
        for factor, numbers in found.details.get("factors", {}).items():
            for label, floor in (("autoencoder_floor", decoded), ("real_floor", halved)):
                numbers[label] = floor and floor.details["factors"][factor]["total_variation"]
    return entries


# A function for each metric, or for two that share their work: it takes what was extracted from generated and from real
# images, and the seed of the intervals, without which there are none.


def _frechet(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    a, b = fake.features, real.features
    value = frechet_distance(a, b)
    of_halves = interval(lambda i, j: frechet_distance(a[i], b[j]), (len(a), len(b)), value, _DRAWS_IF_SLOW, seed)
    return {"fid": Estimate(value, of_halves)}


def _kernel(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    """The halves share the kernel values, which take the time."""
    a, b = fake.features, real.features
    if seed is None or min(len(a), len(b)) < 4:
        return {"kid": Estimate(kernel_distance(a, b))}
    in_a, in_b = np.zeros((1 + _DRAWS, len(a))), np.zeros((1 + _DRAWS, len(b)))
    in_a[0] = in_b[0] = 1
    for row, (i, j) in enumerate(halves((len(a), len(b)), _DRAWS, seed), 1):
        in_a[row, i] = in_b[row, j] = 1
    value, *of_halves = kernel_distances(a, b, in_a, in_b)
    return {"kid": Estimate(float(value), normal_interval(float(value), np.array(of_halves)))}


def _inception(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    rows = fake.probabilities
    value, std = inception_score(rows)
    of_halves = interval(lambda i: inception_score(rows[i])[0], (len(rows),), value, _DRAWS_IF_SLOW, seed)
    return {"is": Estimate(value, of_halves, {"std": std, "splits": min(10, len(rows))})}


def _precision(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    fake_counts, _ = ball_counts(fake.features, real.features, _PRECISION_NEIGHBOURS)
    real_counts, _ = ball_counts(real.features, fake.features, _PRECISION_NEIGHBOURS)
    return {
        "precision": mean_estimate(fake_counts > 0, seed, 0, 1),
        "recall": mean_estimate(real_counts > 0, seed, 0, 1),
    }


def _density(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    counts, covered = ball_counts(fake.features, real.features, _DENSITY_NEIGHBOURS)
    return {
        "density": mean_estimate(counts / _DENSITY_NEIGHBOURS, seed, 0),
        "coverage": mean_estimate(covered, seed, 0, 1),
    }


def mean_estimate(of_images: Any, seed: int | None, lowest: float = -np.inf, highest: float = np.inf) -> Estimate:
    """The interval is over the images that are averaged: an estimated manifold, for one, stays as it is."""
    value = float(of_images.mean())
    found = interval(lambda i: float(of_images[i].mean()), (len(of_images),), value, _DRAWS, seed)
    return Estimate(value, _clamped(found, lowest, highest))


def _modes(fake: Extracted, real: Extracted, seed: int | None) -> dict[str, Estimate]:
    a, b = fake.factors, real.factors
    value = combinations_covered(a, b)
    found = interval(lambda i, j: combinations_covered(a[i], b[j]), (len(a), len(b)), value, _DRAWS, seed)
    return {"modes": Estimate(value, _clamped(found, 0, 1), {"factors": by_factor(a, b)})}


def _clamped(found: Interval | None, lowest: float, highest: float) -> Interval | None:
    return found and (max(lowest, found[0]), min(highest, found[1]))


METRICS: dict[MetricName, Callable[[Extracted, Extracted, int | None], dict[str, Estimate]]] = {
    "fid": _frechet,
    "kid": _kernel,
    "is": _inception,
    "precision-recall": _precision,
    "density-coverage": _density,
    "modes": _modes,
}


def table(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Lines of text, an entry each."""
    rows = [["", *(name.replace("_", " ") for name in _COLUMNS)]]
    rows += [[name, *(cell(entry.get(column)) for column in _COLUMNS)] for name, entry in entries.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        yield "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))])


def cell(value: Any) -> str:
    """A number, a count or an interval as tables show it."""
    if isinstance(value, tuple | list):
        return " ... ".join(f"{bound:.4g}" for bound in value)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def scores_file(config: ScoreConfig) -> Path | None:
    """--out, else RUN/scores.json; a protocol's scores and those of the best weights have files of their own.

    None with --images alone, for a selection of the samples, or for a run that is no folder of this machine. Raises
    `UsageError` where nothing can be written, and `CorruptError` where the file holds something else than scores.
    """
    name = "-".join(filter(None, ("scores", config.protocol, "best" if config.best else None)))
    folder = own_folder(config.run) if config.run and not is_selected(config) else None
    path = config.out or (folder and folder / f"{name}.json")
    if path is None:
        return None
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", f"name a file in it: {path / 'scores.json'}")
    nearest = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})", "name another file with --out") from error
    if config.out and (path.stem.startswith("neighbours") or (path.exists() and not entries_of(_read(path)))):
        raise UsageError(f"{path}: holds something else than scores", "choose another name for --out")
    _read(path)
    return path


def _read(path: Path) -> Scores:
    """What the file holds; nothing when there is none."""
    if not path.is_file():
        return {}
    fix = "delete this file, or name another one with --out"
    stored: Scores = read_json(path, fix=fix)
    return stored


def comparable_scores(path: Path, settings: Mapping[str, Any]) -> Scores:
    """What the file holds if it was made with these settings; else nothing, and it is said what will be replaced."""
    stored = _read(path)
    changed = [name for name, value in settings.items() if name not in stored or stored[name] != value]
    if not changed:
        return stored
    if lost := ", ".join(entries_of(stored)):
        print(f"{path}: replaces {lost}, scored with another {', '.join(changed)}; --out keeps both")
    return {}


def entries_of(stored: Scores) -> dict[str, Entry]:
    """The entries among what a file of scores holds, by name."""
    return {name: entry for name, entry in stored.items() if isinstance(entry, dict) and "value" in entry}
