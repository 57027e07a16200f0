"""`codegan score`: how far generated images are from real ones; and the scores of snapshots while training."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from data.advice import Action, Advice, Done
from data.cache import cache_folder
from data.console import warn
from data.errors import UsageError
from data.files.atomic import write_json
from data.files.runs import versions
from data.images import ImageSet
from data.shared import own_folder
from pipelines.scoring.config import (
    ALONE,
    UNBIASED_FROM,
    ScoreConfig,
    asked_metrics,
    check_flags,
    compares_sets,
    is_selected,
)
from pipelines.scoring.coverage import train_classifier
from pipelines.scoring.entries import Entry, comparable_scores, entries_of, make_entries, scores_file, table
from pipelines.scoring.extraction import Extracted, FeatureCache, FeaturePass, extract
from pipelines.scoring.metrics import Rows, frechet_distance, kernel_distance
from pipelines.scoring.neighbours import find_neighbours, summary, write_neighbours
from pipelines.scoring.networks import FeatureNetwork, load_features
from pipelines.scoring.pairwise import PAIRS, LpipsPairs, diversity, sifid
from pipelines.scoring.protocols import PROTOCOLS, MetricName, departures
from pipelines.scoring.sets import Comparison, LazyImages, Sets, choose, generated_images, open_comparison, real_images
from stage1_autoencoder.training.processes import make_accelerator, on_main
from stage2_codegen.image_generator import ImageGenerator


def score(config: ScoreConfig) -> Done:
    """Compute the scores, print a table and write them; raises what `compute_scores` does."""
    _, wrote = compute_scores(config)
    folder = own_folder(config.run) if config.run else None
    return Done(wrote, Advice(Action.REPORT, {"run": folder, "data": config.data, "hosts": ()}) if folder else None)


def compute_scores(config: ScoreConfig) -> tuple[dict[str, Any], list[Path]]:
    """Compute the scores, print a table and write them; what the file holds, and the files, on every process.

    Raises `UsageError` for flags that do not go together, `InputError` for sets too small, `DivergedError` when the
    autoencoder's images are not finite, `CorruptError` when the features are not.
    """
    started = time.monotonic()
    check_flags(config)
    target = scores_file(config)
    accelerator = make_accelerator()
    with accelerator.main_process_first():  # it may download what the others then find
        network = load_features(config.features, config.feature_weights, accelerator.device, config.resize)
    comparison = open_comparison(config, accelerator)
    metrics = _trusted_metrics(config, comparison.sets, accelerator.is_main_process)
    pairs = _extract_pairs(config, comparison.sets, accelerator) if "lpips-diversity" in metrics else None
    classifier = on_main(accelerator, train_classifier) if "modes" in metrics else None
    extracted = None
    if compares_sets(metrics):
        needed = network if set(metrics) - ALONE != {"modes"} else None
        if needed and accelerator.is_main_process:
            warn_of_flattery(needed, comparison.frozen, "--features")
        cache = None if config.no_cache else FeatureCache(config.cache or cache_folder())
        features_of = FeaturePass(needed, accelerator, config.batch_size, classifier, cache)
        extracted = _extract_all(features_of, comparison.sets)

    def conclude() -> tuple[dict[str, Any], list[Path]]:
        entries: dict[str, Entry] = {}
        for metric in metrics:
            if metric == "sifid":
                entries |= sifid(network, *comparison.one_by_one, comparison.sets.decoded, config.seed)
            elif pairs and metric == "lpips-diversity":
                entries[metric] = diversity(pairs, config.seed)
            elif extracted:
                found = make_entries(metric, extracted, config.seed)
                if metric != "modes":  # which no features enter
                    found = {network.score_name(name): entry for name, entry in found.items()}
                entries |= found
        for factor, accuracy in (classifier.accuracy if classifier else {}).items():
            entries["modes"]["factors"][factor]["accuracy"] = accuracy
        settings = _settings(config, comparison, network)
        scores = _with_earlier(entries, metrics, settings, None if config.out else target)
        scores |= {
            "reference": comparison.reference.name,
            "versions": versions() | {"clean-fid": version("clean-fid")},
            "wall_sec": round(time.monotonic() - started, 1),
        }
        print("\n".join(table(entries_of(scores))))
        _print_remarks(entries, scores, network)
        wrote = []
        if target:
            write_json(target, scores)
            wrote.append(target)
        if target and extracted and extracted.generated.features.shape[1]:
            path = target.with_name("neighbours-best" if config.best else "neighbours")
            wrote += _write_neighbours(path, scores, comparison.sets, extracted, config.seed)
        return scores, wrote

    return on_main(accelerator, conclude)


def _trusted_metrics(config: ScoreConfig, sets: Sets[LazyImages], show: bool) -> tuple[MetricName, ...]:
    """The metrics, kid first where fid cannot be trusted; on Inception there is then no fid unless it is forced."""
    asked = asked_metrics(config)
    counts = sets.generated.count, sets.real.count
    if "fid" not in asked or min(counts) >= UNBIASED_FROM:
        return asked
    others = tuple(metric for metric in asked if metric not in ("fid", "kid"))
    if config.features != "inception" or config.force_fid:
        return ("kid", *others, "fid") if "kid" in asked else (*others, "fid")
    problem = f"fid: needs {UNBIASED_FROM:,} images of each kind, there are {counts[0]:,} and {counts[1]:,}"
    if "fid" in config.metrics:
        raise UsageError(problem, "give --metrics kid, which needs fewer, or --force-fid")
    if show:
        print(f"{problem}; it is left out, and kid is the one to trust. --force-fid prints it all the same")
    return ("kid", *others)


def _extract_pairs(config: ScoreConfig, sets: Sets[LazyImages], accelerator: Accelerator) -> Sets[Rows]:
    lpips = LpipsPairs(config.vgg_weights, accelerator.device)
    even = max(2, config.batch_size // 2 * 2)

    def distances(images: LazyImages) -> Rows:
        return extract(images.drawn(2 * PAIRS, config.seed), [lpips], even, accelerator)[0]

    generated, real = distances(sets.generated), distances(sets.real)
    return Sets(generated, real, distances(sets.decoded) if sets.decoded else None)


def _extract_all(features_of: FeaturePass, sets: Sets[LazyImages]) -> Sets[Extracted]:
    """What is extracted from each set; complete on the main process."""
    real = features_of(sets.real)
    decoded = features_of(sets.decoded) if sets.decoded else None
    mirrored = None
    if sets.mirrored and features_of.network:
        mirrored = replace(features_of, classifier=None)(sets.mirrored)
    return Sets(features_of(sets.generated), real, decoded, mirrored)


def _settings(config: ScoreConfig, comparison: Comparison, network: FeatureNetwork) -> dict[str, Any]:
    """Scores that differ in any of these cannot stand in one file."""
    return {
        "nimg": comparison.nimg,
        "best": config.best,
        **({"class": config.class_name, "truncation": config.truncation} if is_selected(config) else {}),
        "num": comparison.sets.generated.count,
        "features": network.name,
        "weights_sha256": network.weights_sha256,
        "resize": network.resize,
        "protocol": config.protocol,
        "reference_fingerprint": comparison.reference.fingerprint,
        "size": comparison.reference.size,
        "seed": config.seed,
    }


def _with_earlier(
    entries: dict[str, Entry], metrics: Sequence[str], settings: dict[str, Any], file: Path | None
) -> dict[str, Any]:
    """The entries, others that `file` holds of the same settings, and how all were made."""
    earlier = comparable_scores(file, settings) if file else {}
    if kept := {name: entry for name, entry in entries_of(earlier).items() if name not in entries}:
        print(f"{', '.join(kept)}: scored before, with the same settings")
    computed = list(dict.fromkeys([*metrics, *earlier.get("metrics", [])]))
    made = {"metrics": computed, "protocol_departures": departures(settings, computed)}
    return {**entries, **kept, **settings, **made}


def _print_remarks(entries: Mapping[str, Entry], scores: Mapping[str, Any], network: FeatureNetwork) -> None:
    """Where the numbers are not what they may seem."""
    if scores["protocol_departures"]:
        print(f"protocol {scores['protocol']}, but {', '.join(scores['protocol_departures'])}")
    elif scores["protocol"]:
        print(f"protocol {scores['protocol']}, as in {PROTOCOLS[scores['protocol']].source}")
    if "modes" in entries:
        factors = entries["modes"]["factors"].items()
        accuracies = ", ".join(f"{factor} {numbers['accuracy']:.0%}" for factor, numbers in factors)
        print(f"modes: accuracy of its classifier on held-out scenes: {accuracies}")
    frechet, kernel = network.score_name("fid"), network.score_name("kid")
    if frechet not in entries:
        return
    # It falls as the count grows, most steeply below the number of features.
    count = min(entries[frechet]["num_generated"], entries[frechet]["num_real"])
    if count <= network.dim:
        print(f"warning: {count} images for {network.dim} features: the covariances behind {frechet} are singular")
    if count < UNBIASED_FROM:
        print(
            f"warning: below {UNBIASED_FROM:,} images {frechet} is biased upward, and so are its floors; "
            f"{kernel} is the one to trust"
        )


def _write_neighbours(
    path: Path, scores: Mapping[str, Any], sets: Sets[LazyImages], extracted: Sets[Extracted], seed: int
) -> list[Path]:
    decoded, mirrored = (rows and rows.features for rows in (extracted.decoded, extracted.mirrored))
    found = find_neighbours(extracted.generated.features, extracted.real.features, decoded, seed, mirrored)
    if summary(found)["nearer_than_real"]:
        print("warning: generated images are nearer to training images than those are to each other: memorisation?")
    described = {name: scores[name] for name in ("nimg", "best", "features")}
    described["mirrored_too"] = mirrored is not None
    return write_neighbours(path, found, sets.generated, sets.real, described)


def warn_of_flattery(network: FeatureNetwork, frozen: Mapping[str, str], flag: str) -> None:
    """Say so where the network that `flag` chose is one of the `frozen` ones of a run, given by SHA-256."""
    if network.weights_sha256 in frozen.values():
        warn(
            f"{flag} {network.name}: the critic learned through this network, so its scores flatter the generator",
            f"{flag} of another network, such as offline",
        )


def real_features(
    images: ImageSet, num: int, network: FeatureNetwork, accelerator: Accelerator, cache: FeatureCache | None = None
) -> Rows:
    """Features of at most `num` real images, (n, dim), for `score_generator`; complete on the main process."""
    chosen = choose(images, num, seed=0)
    return FeaturePass(network, accelerator, cache=cache)(real_images(images, chosen)).features


def score_generator(
    pipe: ImageGenerator, network: FeatureNetwork, real: Rows, num: int, accelerator: Accelerator
) -> dict[str, float]:
    """The two scores that are quick enough to follow a training by, kernel and Frechet distance, by name.

    They are of the images of `num` seeds, the same every time, and of `real_features`. All processes call it, and all
    get the values.
    """
    generated = FeaturePass(network, accelerator)(generated_images(pipe, num, seed=0)).features
    formulas = {"kid": kernel_distance, "fid": frechet_distance}

    def compute() -> dict[str, float]:
        return {network.score_name(metric): formula(generated, real) for metric, formula in formulas.items()}

    return on_main(accelerator, compute)
