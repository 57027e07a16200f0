"""`codegan score`: how far generated images are from real ones, beside two floors that say what is attainable.

The autoencoder floor is the score of decode(encode(real)): a generator of latents can hardly get below it. The real
floor is the score of two random halves of the real images: what chance alone gives at half the count. The interval is
what other images of the same kinds might give (see `intervals`).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator

from data.console import finish
from data.errors import UsageError
from data.files.atomic import write_json
from data.files.runs import versions
from pipelines.scoring.config import ALONE, UNBIASED_FROM, ScoreConfig, asked_metrics, check_flags, compares_sets
from pipelines.scoring.coverage import train_classifier
from pipelines.scoring.diversity import PAIRS, LpipsPairs
from pipelines.scoring.feature_cache import FeatureCache
from pipelines.scoring.feature_pass import Rows, Source, look_at
from pipelines.scoring.features import Features, load_features
from pipelines.scoring.files import comparable_scores, entries_of, scores_file
from pipelines.scoring.inception import cache_folder
from pipelines.scoring.measures import MEASURES, Entry, Sets, diversity, entries, table
from pipelines.scoring.neighbours import find_neighbours, summary, write_neighbours
from pipelines.scoring.protocols import PROTOCOLS, MetricName, departures
from pipelines.scoring.sets import (
    Looking,
    Opened,
    cache_key,
    frozen_networks,
    open_run,
    open_sets,
    warn_of_flattery,
)
from pipelines.scoring.sifid import sifid
from stage1_autoencoder.training.processes import make_accelerator, on_main


class _Looked(NamedTuple):
    """What was seen; complete on the main process."""

    sets: Sets | None
    mirrored: Rows | None  # features of the mirrored real images
    pairs: tuple[Rows, Rows, Rows | None] | None  # LPIPS within generated, real and decoded images
    accuracy: dict[str, float]  # of the classifier behind `modes`, by factor


def score(config: ScoreConfig) -> dict[str, Any]:
    """Measure, print a table and write the scores; returns what the file holds, on every process.

    Raises `UsageError` for flags that do not go together, `InputError` for sets too small, `DivergedError` when the
    autoencoder's images are not finite, `CorruptError` when the features are not.
    """
    started = time.monotonic()
    check_flags(config)
    target = scores_file(config)
    accelerator = make_accelerator()
    with accelerator.main_process_first():  # it may download what the others then find
        features = load_features(config.features, config.feature_weights, accelerator.device, config.resize)
    opened = open_run(config, config.run, accelerator) if config.run else open_sets(config, accelerator)
    metrics = _without_hopeless_fid(config, opened, accelerator.is_main_process)
    looked = _look(config, metrics, opened, features, accelerator)

    def conclude() -> dict[str, Any]:
        scores = _entries(config, metrics, opened, features, looked)
        result = _result(config, metrics, opened, features, scores, target)
        result["wall_sec"] = round(time.monotonic() - started, 1)
        print("\n".join(table(entries_of(result))))
        _print_remarks(config, metrics, features, opened, result)
        _write(config, target, result, opened, looked)
        return result

    return on_main(accelerator, conclude)


def _result(
    config: ScoreConfig,
    metrics: Sequence[MetricName],
    opened: Opened,
    features: Features,
    scores: dict[str, Entry],
    target: Path | None,
) -> dict[str, Any]:
    """All that is told of the scores, and earlier ones of the same settings in the run's own file."""
    settings = _settings(config, opened, features)
    earlier = comparable_scores(target, settings) if target and not config.out else {}
    if kept := {name: entry for name, entry in entries_of(earlier).items() if name not in scores}:
        print(f"{', '.join(kept)}: measured before, with the same settings")
    measured = list(dict.fromkeys([*metrics, *earlier.get("metrics", [])]))
    return {
        **scores,
        **kept,
        **settings,
        "metrics": measured,
        "protocol_departures": _departures(config, opened, measured),
        "reference": opened.reference.name,
        "versions": versions() | {"clean-fid": version("clean-fid")},
    }


def _settings(config: ScoreConfig, opened: Opened, features: Features) -> dict[str, Any]:
    """Scores that differ in any of these are not of one measurement."""
    return {
        "nimg": opened.nimg,
        "best": config.best,
        "num": opened.generated.count,
        "features": features.name,
        "weights_sha256": features.weights_sha256,
        "resize": features.resize,
        "protocol": config.protocol,
        "reference_fingerprint": opened.reference.fingerprint,
        "size": opened.reference.size,
        "seed": config.seed,
    }


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
        return _Looked(None, None, pairs, {})
    classifier = on_main(accelerator, train_classifier) if "modes" in metrics else None
    wanted = features if set(metrics) - ALONE != {"modes"} else None
    if wanted and config.run and accelerator.is_main_process:
        warn_of_flattery(wanted, frozen_networks(config.run), "--features")
    cache = FeatureCache(None if config.no_cache else config.cache or cache_folder())
    looking = Looking(wanted, classifier, config.batch_size, accelerator, cache)
    key = cache_key(opened.reference, opened.chosen, features)
    real, decoded, mirrored = looking.see(opened.real, key), None, None
    if opened.decoded and opened.autoencoder:
        decoded = looking.see(opened.decoded, key | {"autoencoder": opened.autoencoder.fingerprint})
    if opened.mirrored and wanted:
        mirrored = replace(looking, classifier=None).see(opened.mirrored, key | {"mirrored": True}).features
    sets = Sets(looking.see(opened.generated), real, decoded)
    return _Looked(sets, mirrored, pairs, classifier.accuracy if classifier else {})


def _look_at_pairs(config: ScoreConfig, opened: Opened, accelerator: Accelerator) -> tuple[Rows, Rows, Rows | None]:
    view = LpipsPairs(config.vgg_weights, accelerator.device)

    def distances(source: Source) -> Rows:
        even = max(2, config.batch_size // 2 * 2)
        return look_at(source.drawn(2 * PAIRS, config.seed), [view], even, accelerator)[0]

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
    snapshot = "the given images" if config.images else f"the {'best by kid' if config.best else 'newest'} snapshot"
    count, size = opened.generated.count, opened.reference.size
    return departures(config.protocol, count, size, metrics, config.features, config.resize, snapshot)


def _print_remarks(
    config: ScoreConfig, metrics: Sequence[str], features: Features, opened: Opened, result: dict[str, Any]
) -> None:
    """What of the numbers is not what it may seem. A Frechet distance falls as the count grows, most steeply below
    the number of features."""
    count = min(opened.generated.count, opened.real.count)
    frechet, kernel = features.score_name("fid"), features.score_name("kid")
    if config.protocol:
        differs = ", ".join(result["protocol_departures"])
        print(f"protocol {config.protocol} {differs or PROTOCOLS[config.protocol].source}")
    if "modes" in metrics:
        factors = result["modes"]["factors"].items()
        named = ", ".join(f"{factor} {numbers['accuracy']:.0%}" for factor, numbers in factors)
        print(f"modes: its classifier is right on held-out scenes: {named}")
    if "fid" in metrics and count <= features.dim:
        print(f"warning: {count} images for {features.dim} features: the covariances behind {frechet} are singular")
    if "fid" in metrics and count < UNBIASED_FROM:
        print(
            f"warning: below {UNBIASED_FROM:,} images {frechet} is biased upward, and so are its floors; "
            f"{kernel} is the one to trust"
        )


def _write(config: ScoreConfig, target: Path | None, result: dict[str, Any], opened: Opened, looked: _Looked) -> None:
    wrote, sets = [], looked.sets
    if target:
        write_json(target, result)
        wrote.append(target)
    if target and sets and sets.generated.features.shape[1]:
        decoded = sets.decoded and sets.decoded.features
        found = find_neighbours(sets.generated.features, sets.real.features, decoded, config.seed, looked.mirrored)
        path = target.with_name("neighbours-best" if config.best else "neighbours")
        described = {name: result[name] for name in ("nimg", "best", "features")}
        described["mirrored_too"] = looked.mirrored is not None
        wrote += write_neighbours(path, found, opened.generated, opened.real, described)
        if summary(found)["nearer_than_real"]:
            print("warning: generated images are nearer to training images than those are to each other: memory?")
    finish(wrote, ["codegan", "report", "--run", str(config.run)] if config.run else None)
