"""`codegan score`: how far generated images are from real ones, beside two floors that say what is attainable.

The autoencoder floor is the score of decode(encode(real)): a generator of latents can hardly get below it. The real
floor is the score of two random halves of the real images: what chance alone gives at half the count. The interval is
what other images of the same kinds might give (see `intervals`).
"""

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from accelerate import Accelerator

from data.console import finish
from data.errors import UsageError
from data.runs import versions
from data.storage import disk_errors, write_json
from pipelines.coverage import train_classifier
from pipelines.diversity import PAIRS, LpipsPairs
from pipelines.feature_cache import FeatureCache
from pipelines.feature_pass import Rows, Source, look_at
from pipelines.features import Features, load_features
from pipelines.inception import cache_folder
from pipelines.measures import MEASURES, Entry, Sets, diversity, entries, table
from pipelines.neighbours import find_neighbours, summary, write_neighbours
from pipelines.protocols import PROTOCOLS, MetricName, departures
from pipelines.score_config import ALONE, ScoreConfig, asked_metrics, check_flags, compares_sets
from pipelines.score_sets import UNBIASED_FROM, Looking, Opened, cache_key, open_run, open_sets
from pipelines.sifid import sifid
from stage1_autoencoder.loop import make_accelerator, on_main


class _Looked(NamedTuple):
    """What was seen; complete on the main process."""

    sets: Sets | None
    pairs: tuple[Rows, Rows, Rows | None] | None  # LPIPS within generated, real and decoded images
    accuracy: dict[str, float]  # of the classifier behind `modes`, by factor


def score(config: ScoreConfig) -> dict[str, Any]:
    """Measure, print a table and write the scores; returns what the file holds, on every process.

    Raises `UsageError` for flags that do not go together, `InputError` for sets too small, `DivergedError` when the
    autoencoder's images are not finite, `CorruptError` when the features are not.
    """
    started = time.monotonic()
    check_flags(config)
    accelerator = make_accelerator()
    opened = open_run(config, config.run, accelerator) if config.run else open_sets(config, accelerator)
    metrics = _without_hopeless_fid(config, opened, accelerator.is_main_process)
    with accelerator.main_process_first():  # it may download what the others then find
        features = load_features(config.features, config.feature_weights, accelerator.device, config.resize)
    looked = _look(config, metrics, opened, features, accelerator)

    def conclude() -> dict[str, Any]:
        scores = _entries(config, metrics, opened, features, looked)
        differs = _departures(config, opened, metrics)
        result = {
            **scores,
            "num": opened.generated.count,
            "features": features.name,
            "weights_sha256": features.weights_sha256,
            "resize": features.resize,
            "protocol": config.protocol,
            "protocol_departures": differs,
            "reference": opened.reference.name,
            "reference_fingerprint": opened.reference.fingerprint,
            "size": opened.reference.size,
            "seed": config.seed,
            "wall_sec": round(time.monotonic() - started, 1),
            "versions": versions() | {"clean-fid": version("clean-fid")},
        }
        print("\n".join(table(scores)))
        _print_remarks(config, metrics, features, opened, differs)
        _write(config, result, opened, looked.sets)
        return result

    return on_main(accelerator, conclude)


def _without_hopeless_fid(config: ScoreConfig, opened: Opened, show: bool) -> tuple[MetricName, ...]:
    """The metrics, kid first where fid cannot be trusted; on Inception there is then no fid unless it is forced."""
    asked = asked_metrics(config)
    counts = opened.generated.count, opened.real.count
    if "fid" not in asked or min(counts) >= UNBIASED_FROM:
        return asked
    counted = f"fid: needs {UNBIASED_FROM:,} images of each kind, there are {counts[0]:,} and {counts[1]:,}"
    rest: tuple[MetricName, ...] = ("kid", *(metric for metric in asked if metric not in ("fid", "kid")))
    if config.features != "inception" or config.force_fid:
        return (*(rest if "kid" in asked else rest[1:]), "fid")
    if "fid" in config.metrics:
        raise UsageError(counted, "give --metrics kid, which needs fewer, or --force-fid")
    if show:
        print(f"{counted}; it is left out, and kid is the one to trust. --force-fid prints it all the same")
    return rest


def _look(
    config: ScoreConfig, metrics: Sequence[MetricName], opened: Opened, features: Features, accelerator: Accelerator
) -> _Looked:
    pairs = None
    if "lpips-diversity" in metrics:
        pairs = _look_at_pairs(config, opened, accelerator)
    if not compares_sets(metrics):
        return _Looked(None, pairs, {})
    classifier = on_main(accelerator, train_classifier) if "modes" in metrics else None
    wanted = features if set(metrics) - ALONE != {"modes"} else None
    cache = FeatureCache(None if config.no_cache else config.cache or cache_folder())
    looking = Looking(wanted, classifier, config.batch_size, accelerator, cache)
    key = cache_key(opened.reference, opened.chosen, features)
    real, decoded = looking.see(opened.real, key), None
    if opened.decoded and opened.autoencoder:
        decoded = looking.see(opened.decoded, key | {"autoencoder": opened.autoencoder.fingerprint})
    sets = Sets(looking.see(opened.generated), real, decoded)
    return _Looked(sets, pairs, classifier.accuracy if classifier else {})


def _look_at_pairs(config: ScoreConfig, opened: Opened, accelerator: Accelerator) -> tuple[Rows, Rows, Rows | None]:
    view = LpipsPairs(config.vgg_weights, accelerator.device)

    def distances(source: Source) -> Rows:
        even = max(2, config.batch_size // 2 * 2)
        return look_at(source.first(2 * PAIRS), [view], even, accelerator)[0]

    generated, real = distances(opened.generated), distances(opened.real)
    return generated, real, distances(opened.decoded) if opened.decoded else None


def _entries(
    config: ScoreConfig, metrics: Sequence[MetricName], opened: Opened, features: Features, looked: _Looked
) -> dict[str, Entry]:
    result: dict[str, Entry] = {}
    for metric in metrics:
        if metric == "sifid":
            result |= sifid(features, *opened.singles, opened.decoded, config.seed)
        elif metric == "lpips-diversity" and looked.pairs:
            result[metric] = diversity(*looked.pairs, config.seed)
        elif looked.sets and metric in MEASURES:
            found = entries(metric, looked.sets, config.seed)
            named = found if metric == "modes" else {features.score_name(name): found[name] for name in found}
            result |= named
    for factor, accuracy in looked.accuracy.items():
        result["modes"]["factors"][factor]["accuracy"] = accuracy
    return result


def _departures(config: ScoreConfig, opened: Opened, metrics: Sequence[str]) -> list[str]:
    if config.protocol is None:
        return []
    return departures(config.protocol, opened.generated.count, opened.reference.size, metrics, config.features)


def _print_remarks(
    config: ScoreConfig, metrics: Sequence[str], features: Features, opened: Opened, differs: Sequence[str]
) -> None:
    """What of the numbers is not what it may seem. A Frechet distance falls as the count grows, most steeply below
    the number of features."""
    count = min(opened.generated.count, opened.real.count)
    frechet, kernel = features.score_name("fid"), features.score_name("kid")
    if config.protocol:
        print(" ".join([f"protocol {config.protocol}", ", ".join(differs) or PROTOCOLS[config.protocol].source]))
    if "fid" in metrics and count <= features.dim:
        print(f"warning: {count} images for {features.dim} features: the covariances behind {frechet} are singular")
    if "fid" in metrics and count < UNBIASED_FROM:
        print(
            f"warning: below {UNBIASED_FROM:,} images {frechet} is biased upward, and so are its floors; "
            f"{kernel} is the one to trust"
        )


def _write(config: ScoreConfig, result: dict[str, Any], opened: Opened, sets: Sets | None) -> None:
    target = config.out or (config.run / "scores.json" if config.run else None)
    wrote = []
    if target:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, result)
        wrote.append(target)
    if target and sets and sets.generated.features.shape[1]:
        found = find_neighbours(sets.generated.features, sets.real.features, sets.decoded and sets.decoded.features)
        wrote += write_neighbours(target.parent, found, opened.generated, opened.real)
        if summary(found)["nearer_than_real"]:
            print("warning: generated images are nearer to training images than those are to each other: memory?")
    finish(wrote, ["codegan", "report", "--run", str(config.run)] if config.run else None)
