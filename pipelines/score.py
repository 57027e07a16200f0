"""`codegan score`: how far generated images are from real ones, beside two floors that say what is attainable.

The autoencoder floor is the distance of decode(encode(real)) to real: a generator of latents can hardly get below it.
The real floor is the distance of two random halves of the real images: what chance alone gives at half the count.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from data.console import ProgressReport, finish
from data.errors import CorruptError, DivergedError, InputError, UsageError
from data.images import ImageSet, open_images, to_float, to_uint8
from data.runs import versions
from data.storage import disk_errors, write_json
from pipelines.features import FeatureName, Features, load_features
from pipelines.metrics import frechet_distance, kernel_distance
from pipelines.sample import load_generator
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.images import ImageGenerator

type Images = NDArray[np.uint8]
type Vectors = NDArray[np.float32]
type Indices = NDArray[np.int64]

_DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}
_UNBIASED_FROM = 2048  # images below which a Frechet distance is hardly comparable
_MIN_DEFAULT, _MAX_DEFAULT = _UNBIASED_FROM, 50_000
_MIN_IMAGES = 4  # two halves of two


class _Sets(NamedTuple):
    """Features of each set of images, (n, dim), and where the real ones came from."""

    fake: Vectors
    real: Vectors
    decoded: Vectors | None  # of the real images, through the autoencoder
    reference: ImageSet
    features: Features


@dataclass(frozen=True)
class ScoreConfig:
    """Measure generated images against real ones.

    Example: codegan score --run runs/flowers --data flowers.zip
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA")]
    """Real images: a folder, .zip, .tar shards, or scenes:N."""
    run: Path | None = None
    """Folder of a trained generator; its images are drawn in memory."""
    images: str | None = None
    """Images to score instead of a run: like --data, one name."""
    num: int | None = None
    """Images to draw from the run, and the most to take from a set. Default: as many as DATA has, at least 2,048 are
    drawn, and at most 50,000."""
    metrics: tuple[Literal["fid", "kid"], ...] = ("fid", "kid")
    """fid: Frechet distance; kid: kernel distance, the one to trust below some thousand images."""
    features: FeatureName = "inception"
    """Network that sees the images; only inception's scores are called FID and KID."""
    feature_weights: Path | None = None
    """Its weights. Inception finds its own: cached, else downloaded once (96 MB)."""
    size: int | None = None
    """Pixels a side both sets are fitted to, with --images. Default: the given images' median; a run has its own."""
    batch_size: int = 16
    """Images at a time."""
    seed: int = 0
    """First seed of the generated images; also which images and halves are taken."""
    max_skip: float = 0.01
    """Part of the files that may be unreadable."""
    out: Path | None = None
    """File for the scores. Default: RUN/scores.json, none with --images."""


def score(config: ScoreConfig) -> dict[str, Any]:
    """Measure, print a table and write the scores; returns what the file holds.

    Raises `UsageError` for flags that do not go together, `InputError` for sets too small, `DivergedError` when the
    autoencoder's images are not finite, `CorruptError` when the features are not.
    """
    started = time.monotonic()
    _check_flags(config)
    sets = _measure_run(config, config.run) if config.run else _measure_images(config)
    features = sets.features
    scores = {features.score_name(metric): _compare(metric, sets, config.seed) for metric in config.metrics}
    result = {
        **scores,
        "num": len(sets.fake),
        "features": features.name,
        "weights_sha256": features.weights_sha256,
        "reference": sets.reference.name,
        "reference_fingerprint": sets.reference.fingerprint,
        "size": sets.reference.size,
        "seed": config.seed,
        "wall_sec": round(time.monotonic() - started, 1),
        "versions": versions() | {"clean-fid": version("clean-fid")},
    }
    _print_table(scores)
    _warn_of_bias(features, min(len(sets.fake), len(sets.real)))
    target = config.out or (config.run / "scores.json" if config.run else None)
    if target:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, result)
    finish([target] if target else [], ["codegan", "report", "--run", str(config.run)] if config.run else None)
    return result


def _check_flags(config: ScoreConfig) -> None:
    if (config.run is None) == (config.images is None):
        raise UsageError("score: needs either --run or --images", "give a run folder, or a second set of images")
    if config.run and config.size:
        raise UsageError(f"--size {config.size}: goes with --images, a run has its own size", "leave out --size")
    if config.num is not None and config.num < _MIN_IMAGES:
        raise UsageError(f"--num {config.num}: is too few to compare", f"give at least {_MIN_IMAGES}, better 2048")
    if config.batch_size < 1 or config.seed < 0:
        raise UsageError("--batch-size: must be positive, --seed not negative", "codegan score --help")


def _load_features(config: ScoreConfig) -> Features:
    """After run and data are open: their faults should show before anything is downloaded."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_features(config.features, config.feature_weights, device)


def _measure_run(config: ScoreConfig, run: Path) -> _Sets:
    pipe = load_generator(run)
    real = open_images(config.data, size=pipe.image_size, max_skip=config.max_skip)
    features = _load_features(config)
    num = config.num or min(max(len(real), _MIN_DEFAULT), _MAX_DEFAULT)
    chosen = _choose(real, num, config.seed)
    decoded = (_reconstruct(pipe.autoencoder, batch) for batch in real.batches(config.batch_size, chosen))
    return _Sets(
        real=_collect(features, real.batches(config.batch_size, chosen), len(chosen), "real images"),
        decoded=_collect(features, decoded, len(chosen), "decoded images"),
        fake=_collect(features, _generate(pipe, num, config), num, "generated images"),
        reference=real,
        features=features,
    )


def _measure_images(config: ScoreConfig) -> _Sets:
    given = open_images(str(config.images), max_skip=config.max_skip)
    given = replace(given, size=config.size or int(np.median(given.sizes.min(axis=1))))
    real = open_images(config.data, size=given.size, max_skip=config.max_skip)
    features = _load_features(config)
    collected = []
    for images, label in ((given, "given images"), (real, "real images")):
        chosen = _choose(images, config.num or _MAX_DEFAULT, config.seed)
        collected.append(_collect(features, images.batches(config.batch_size, chosen), len(chosen), label))
    return _Sets(fake=collected[0], real=collected[1], decoded=None, reference=real, features=features)


def _choose(images: ImageSet, num: int, seed: int) -> Indices:
    """At most `num` images, a seeded subset in the set's order; the overview that `codegan sample` adds is not one."""
    usable = np.array([index for index, key in enumerate(images.keys) if key != "grid.png"], np.int64)
    if len(usable) < _MIN_IMAGES:
        raise InputError(f"{images.name}: has {len(usable)} images, too few to compare", "give some hundred images")
    return np.sort(np.random.default_rng([seed, 0]).permutation(usable)[:num])


def _collect(features: Features, batches: Iterable[Images], total: int, label: str) -> Vectors:
    """Features of all batches, (n, dim); one batch of images at a time is held."""
    vectors: list[Vectors] = []
    done = 0
    with ProgressReport(label, total, "images") as progress:
        for batch in batches:
            vectors.append(features(batch))
            done += len(batch)
            progress.update(done)
    stacked = np.concatenate(vectors)
    if not np.isfinite(stacked).all():
        raise CorruptError(f"{features.name} features: are not finite on the {label}", "use other --feature-weights")
    return stacked


def _generate(pipe: ImageGenerator, num: int, config: ScoreConfig) -> Iterator[Images]:
    for start in range(0, num, config.batch_size):
        yield pipe(seeds=[config.seed + i for i in range(start, min(start + config.batch_size, num))])


@torch.inference_mode()
def _reconstruct(autoencoder: Autoencoder, images_u8: Images) -> Images:
    decoded = autoencoder.decode(autoencoder.encode(to_float(torch.from_numpy(images_u8).to(autoencoder.device))))
    if not decoded.isfinite().all():
        raise DivergedError("the run's autoencoder: decodes to NaN or infinity", "train the autoencoder again")
    images: Images = to_uint8(decoded).cpu().numpy()
    return images


def _compare(metric: str, sets: _Sets, seed: int) -> dict[str, Any]:
    """One metric's value, its floors and the counts behind them."""
    distance, real = _DISTANCES[metric], sets.real
    order = np.random.default_rng([seed, 1]).permutation(len(real))
    half = len(real) // 2
    return {
        "value": distance(sets.fake, real),
        "autoencoder_floor": None if sets.decoded is None else distance(sets.decoded, real),
        "real_floor": distance(real[order[:half]], real[order[half : 2 * half]]),
        "num_generated": len(sets.fake),
        "num_real": len(real),
        "num_half": half,
    }


def _print_table(scores: dict[str, dict[str, Any]]) -> None:
    columns = ("value", "autoencoder_floor", "real_floor", "num_generated", "num_real", "num_half")
    rows = [["", *(name.replace("_", " ") for name in columns)]]
    rows += [[name, *(_cell(entry[column]) for column in columns)] for name, entry in scores.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        print("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _warn_of_bias(features: Features, count: int) -> None:
    """A Frechet distance falls as the count grows, most steeply below the number of features."""
    frechet, kernel = features.score_name("fid"), features.score_name("kid")
    if count <= features.dim:
        print(f"warning: {count} images for {features.dim} features: the covariances behind {frechet} are singular")
    if count < _UNBIASED_FROM:
        print(
            f"warning: below {_UNBIASED_FROM:,} images {frechet} is biased upward, and so are its floors; "
            f"{kernel} is the one to trust"
        )
