"""`codegan score`: how far generated images are from real ones; and the scores of snapshots while training."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from data.console import finish, warn
from data.errors import UsageError
from data.files.atomic import write_json
from data.files.runs import versions
from data.images import ImageSet
from pipelines.scoring.config import ALONE, UNBIASED_FROM, ScoreConfig, asked_metrics, check_flags, compares_sets
from pipelines.scoring.coverage import FactorClassifier, train_classifier
from pipelines.scoring.entries import Entry, comparable_scores, entries_of, make_entries, scores_file, table
from pipelines.scoring.extraction import Extracted, FeatureCache, FeaturePass, extract
from pipelines.scoring.metrics import Rows, frechet_distance, kernel_distance
from pipelines.scoring.neighbours import find_neighbours, summary, write_neighbours
from pipelines.scoring.networks import FeatureNetwork, cache_folder, load_features
from pipelines.scoring.pairwise import PAIRS, LpipsPairs, diversity, sifid
from pipelines.scoring.protocols import PROTOCOLS, MetricName, departures
from pipelines.scoring.sets import Comparison, LazyImages, Sets, choose, generated_images, open_comparison, real_images
from stage1_autoencoder.training.processes import make_accelerator, on_main
from stage2_codegen.image_generator import ImageGenerator


def score(config: ScoreConfig) -> dict[str, Any]:
    """Compute the scores, print a table and write them; returns what the file holds, on every process.

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
        extracted = _extract_features(config, comparison, needed, classifier, accelerator)

    def conclude() -> dict[str, Any]:
        entries: dict[str, Entry] = {}
        for metric in metrics:
            if metric == "sifid":
                entries |= sifid(network, *comparison.one_by_one, comparison.sets.decoded, config.seed)
            elif pairs and metric == "lpips-diversity":
                entries[metric] = diversity(pairs, config.seed)
            elif extracted and metric == "modes":
                entries |= make_entries(metric, extracted, config.seed)
            elif extracted:
                found = make_entries(metric, extracted, config.seed)
                entries |= {network.score_name(name): entry for name, entry in found.items()}
        for factor, accuracy in (classifier.accuracy if classifier else {}).items():
            entries["modes"]["factors"][factor]["accuracy"] = accuracy
        scores = _with_earlier(entries, metrics, target, config, comparison, network)
        scores["wall_sec"] = round(time.monotonic() - started, 1)
        print("\n".join(table(entries_of(scores))))
        _print_remarks(config, metrics, network, comparison.sets, scores)
        _write(config, target, scores, comparison.sets, extracted)
        return scores

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


def _extract_features(
    config: ScoreConfig,
    comparison: Comparison,
    network: FeatureNetwork | None,
    classifier: FactorClassifier | None,
    accelerator: Accelerator,
) -> Sets[Extracted]:
    """Complete on the main process."""
    if network and accelerator.is_main_process:
        warn_of_flattery(network, comparison.frozen, "--features")
    cache = FeatureCache(None if config.no_cache else config.cache or cache_folder())
    features_of = FeaturePass(network, accelerator, config.batch_size, classifier, cache)
    _, real, decoded, mirrored = comparison.sets
    of_real = features_of(real)
    of_decoded = features_of(decoded) if decoded else None
    of_mirrored = replace(features_of, classifier=None)(mirrored) if mirrored and network else None
    return Sets(features_of(comparison.sets.generated), of_real, of_decoded, of_mirrored)


def _with_earlier(
    entries: dict[str, Entry],
    metrics: Sequence[MetricName],
    target: Path | None,
    config: ScoreConfig,
    comparison: Comparison,
    network: FeatureNetwork,
) -> dict[str, Any]:
    """All that is known of the scores, with earlier ones of the same settings in the run's own file."""
    settings = {  # scores that differ in any of these cannot stand in one file
        "nimg": comparison.nimg,
        "best": config.best,
        "num": comparison.sets.generated.count,
        "features": network.name,
        "weights_sha256": network.weights_sha256,
        "resize": network.resize,
        "protocol": config.protocol,
        "reference_fingerprint": comparison.reference.fingerprint,
        "size": comparison.reference.size,
        "seed": config.seed,
    }
    earlier = comparable_scores(target, settings) if target and not config.out else {}
    if kept := {name: entry for name, entry in entries_of(earlier).items() if name not in entries}:
        print(f"{', '.join(kept)}: scored before, with the same settings")
    computed = list(dict.fromkeys([*metrics, *earlier.get("metrics", [])]))
    snapshot = "the given images" if config.images else f"the {'best by kid' if config.best else 'newest'} snapshot"
    return {
        **entries,
        **kept,
        **settings,
        "metrics": computed,
        "protocol_departures": departures(settings, computed, snapshot) if config.protocol else [],
        "reference": comparison.reference.name,
        "versions": versions() | {"clean-fid": version("clean-fid")},
    }


def _print_remarks(
    config: ScoreConfig,
    metrics: Sequence[MetricName],
    network: FeatureNetwork,
    sets: Sets[LazyImages],
    scores: Mapping[str, Any],
) -> None:
    """Where the numbers are not what they may seem. A Frechet distance falls as the count grows, most steeply below the
    number of features."""
    count = min(sets.generated.count, sets.real.count)
    frechet, kernel = network.score_name("fid"), network.score_name("kid")
    if config.protocol and scores["protocol_departures"]:
        print(f"protocol {config.protocol}, but {', '.join(scores['protocol_departures'])}")
    elif config.protocol:
        print(f"protocol {config.protocol}, as in {PROTOCOLS[config.protocol].source}")
    if "modes" in metrics:
        factors = scores["modes"]["factors"].items()
        accuracies = ", ".join(f"{factor} {numbers['accuracy']:.0%}" for factor, numbers in factors)
        print(f"modes: accuracy of its classifier on held-out scenes: {accuracies}")
    if "fid" in metrics and count <= network.dim:
        print(f"warning: {count} images for {network.dim} features: the covariances behind {frechet} are singular")
    if "fid" in metrics and count < UNBIASED_FROM:
        print(
            f"warning: below {UNBIASED_FROM:,} images {frechet} is biased upward, and so are its floors; "
            f"{kernel} is the one to trust"
        )


def _write(
    config: ScoreConfig,
    target: Path | None,
    scores: Mapping[str, Any],
    sets: Sets[LazyImages],
    extracted: Sets[Extracted] | None,
) -> None:
    wrote = []
    if target:
        write_json(target, scores)
        wrote.append(target)
    if target and extracted and extracted.generated.features.shape[1]:
        decoded, mirrored = (of and of.features for of in (extracted.decoded, extracted.mirrored))
        found = find_neighbours(extracted.generated.features, extracted.real.features, decoded, config.seed, mirrored)
        path = target.with_name("neighbours-best" if config.best else "neighbours")
        described = {name: scores[name] for name in ("nimg", "best", "features")}
        described["mirrored_too"] = mirrored is not None
        wrote += write_neighbours(path, found, sets.generated, sets.real, described)
        if summary(found)["nearer_than_real"]:
            print("warning: generated images are nearer to training images than those are to each other: memorisation?")
    finish(wrote, ["codegan", "report", "--run", str(config.run)] if config.run else None)


def warn_of_flattery(network: FeatureNetwork, frozen: Mapping[str, str], flag: str) -> None:
    """Say so where the network that `flag` chose is one of the `frozen` ones of a run, given by SHA-256."""
    if network.weights_sha256 in frozen.values():
        warn(
            f"{flag} {network.name}: the critic learned through this network, so its scores flatter the generator",
            f"{flag} of another network, such as offline",
        )


def real_features(
    images: ImageSet, num: int, network: FeatureNetwork, accelerator: Accelerator, cache: FeatureCache
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
