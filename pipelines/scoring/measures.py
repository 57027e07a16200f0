"""From what was seen of three sets of images to the entries of scores.json, each with its interval and floors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from data.errors import InputError
from data.seeds import REAL_HALVES
from pipelines.scoring.coverage import by_factor, combinations_covered
from pipelines.scoring.feature_pass import Rows
from pipelines.scoring.intervals import Interval, around, halves, interval
from pipelines.scoring.metrics import (
    ball_counts,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distances,
)
from pipelines.scoring.protocols import MetricName

type Entry = dict[str, Any]

_DRAWS, _DRAWS_IF_SLOW = 200, 20  # random halves behind an interval
_PRECISION_NEIGHBOURS, _DENSITY_NEIGHBOURS = 3, 5  # of the papers


class Seen(NamedTuple):
    """What was seen of a set of images: one row an image, no columns where nobody looked."""

    features: Rows
    probabilities: Rows
    factors: Rows

    def part(self, chosen: Any) -> "Seen":
        return Seen(*(rows[chosen] for rows in self))


class Sets(NamedTuple):
    generated: Seen
    real: Seen
    decoded: Seen | None  # the real images, through the autoencoder


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None = None
    more: Entry = field(default_factory=dict)


class Measure(NamedTuple):
    """A metric, or two that share their work, by name; without a seed no intervals are made."""

    estimate: Callable[[Seen, Seen, int | None], dict[str, Estimate]]
    needs: int = 2  # images a set


def entries(metric: MetricName, sets: Sets, seed: int) -> dict[str, Entry]:
    """By name: the value, its 95 % interval, its floors and the counts behind them.

    The real floor compares two random halves of the real images. Raises `InputError` for sets too small.
    """
    measure, real = MEASURES[metric], sets.real
    if (smallest := min(len(sets.generated.features), len(real.features))) < measure.needs:
        raise InputError(f"{metric}: needs {measure.needs} images of each kind, there are {smallest}", "give more")
    order = np.random.default_rng([seed, REAL_HALVES]).permutation(len(real.features))
    half = len(order) // 2
    one, other = real.part(order[:half]), real.part(order[half : 2 * half])
    found = measure.estimate(sets.generated, real, seed)
    decoded = measure.estimate(sets.decoded, real, None) if sets.decoded else {}
    between = measure.estimate(one, other, None) if half >= measure.needs else {}
    result: dict[str, Entry] = {}
    for name, estimate in found.items():
        result[name] = {
            "value": estimate.value,
            "interval": estimate.interval,
            "autoencoder_floor": decoded[name].value if decoded else None,
            "real_floor": between[name].value if between else None,
            "num_generated": len(sets.generated.features),
            "num_real": len(real.features),
            "num_half": half,
            **estimate.more,
        }
        for factor, numbers in estimate.more.get("factors", {}).items():
            for floor, of in (("autoencoder_floor", decoded), ("real_floor", between)):
                numbers[floor] = of[name].more["factors"][factor]["total_variation"] if of else None
    return result


def distances(fake: Rows, real: Rows) -> dict[str, float]:
    """The two that are quick enough to follow a training by: kernel distance and Frechet distance."""
    return {"kid": kernel_distance(fake, real), "fid": frechet_distance(fake, real)}


def _frechet(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    a, b = fake.features, real.features
    value = frechet_distance(a, b)
    if seed is None:
        return {"fid": Estimate(value)}
    sizes = (len(a), len(b))
    return {
        "fid": Estimate(value, interval(lambda i, j: frechet_distance(a[i], b[j]), sizes, value, _DRAWS_IF_SLOW, seed))
    }


def _kernel(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    a, b = fake.features, real.features
    if seed is None or min(len(a), len(b)) < 4:
        return {"kid": Estimate(kernel_distance(a, b))}
    drawn = list(halves((len(a), len(b)), _DRAWS, seed))
    in_a, in_b = np.zeros((1 + _DRAWS, len(a))), np.zeros((1 + _DRAWS, len(b)))
    in_a[0] = in_b[0] = 1
    for row, (i, j) in enumerate(drawn, 1):
        in_a[row, i] = in_b[row, j] = 1
    value, *of_halves = kernel_distances(a, b, in_a, in_b)
    return {"kid": Estimate(float(value), around(float(value), np.array(of_halves)))}


def _inception(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    rows = fake.probabilities
    value, std = inception_score(rows)
    of_halves = None
    if seed is not None:
        of_halves = interval(lambda i: inception_score(rows[i])[0], (len(rows),), value, _DRAWS_IF_SLOW, seed)
    return {"is": Estimate(value, of_halves, {"std": std, "splits": min(10, len(rows))})}


def _precision(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    fake_counts, _ = ball_counts(fake.features, real.features, _PRECISION_NEIGHBOURS)
    real_counts, _ = ball_counts(real.features, fake.features, _PRECISION_NEIGHBOURS)
    return {"precision": _mean(fake_counts > 0, seed, 1), "recall": _mean(real_counts > 0, seed, 1)}


def _density(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    counts, covered = ball_counts(fake.features, real.features, _DENSITY_NEIGHBOURS)
    return {"density": _mean(counts / _DENSITY_NEIGHBOURS, seed, np.inf), "coverage": _mean(covered, seed, 1)}


def _mean(of_images: Any, seed: int | None, highest: float) -> Estimate:
    """Its interval is over the images that are counted; the estimated manifold stays as it is."""
    value = float(of_images.mean())
    if seed is None:
        return Estimate(value)
    found = interval(lambda i: float(of_images[i].mean()), (len(of_images),), value, _DRAWS, seed)
    return Estimate(value, found and (max(0.0, found[0]), min(highest, found[1])))


def _modes(fake: Seen, real: Seen, seed: int | None) -> dict[str, Estimate]:
    a, b = fake.factors, real.factors
    value, more = combinations_covered(a, b), {"factors": by_factor(a, b)}
    if seed is None:
        return {"modes": Estimate(value, None, more)}
    found = interval(lambda i, j: combinations_covered(a[i], b[j]), (len(a), len(b)), value, _DRAWS, seed)
    return {"modes": Estimate(value, found and (max(0.0, found[0]), min(1.0, found[1])), more)}


MEASURES: dict[MetricName, Measure] = {
    "fid": Measure(_frechet),
    "kid": Measure(_kernel),
    "is": Measure(_inception),
    "precision-recall": Measure(_precision, _PRECISION_NEIGHBOURS + 1),
    "density-coverage": Measure(_density, _DENSITY_NEIGHBOURS + 1),
    "modes": Measure(_modes),
}


def diversity(generated: Rows, real: Rows, decoded: Rows | None, seed: int) -> Entry:
    """The mean LPIPS of pairs, each (pairs, 1): higher is more diverse, and what real images reach is the aim.

    Of real images there may be too few for a pair, and then no floors.
    """
    estimate = _mean(generated, seed, np.inf)
    floor, decoded_floor = (None if rows is None or not len(rows) else float(rows.mean()) for rows in (real, decoded))
    return {
        "value": estimate.value,
        "interval": estimate.interval,
        "autoencoder_floor": decoded_floor,
        "real_floor": floor,
        "num_generated": 2 * len(generated),
        "num_real": 2 * len(real),
        "num_half": None,
    }


def table(scores: dict[str, Entry]) -> Iterator[str]:
    """Lines of text, a score each."""
    columns = ("value", "interval", "autoencoder_floor", "real_floor", "num_generated", "num_real", "num_half")
    rows = [["", *(name.replace("_", " ") for name in columns)]]
    rows += [[name, *(_cell(entry.get(column)) for column in columns)] for name, entry in scores.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        yield "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))])


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ... ".join(f"{bound:.4g}" for bound in value)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
