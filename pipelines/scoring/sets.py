"""The sets of images that a score compares, and what is seen of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from data.console import warn
from data.errors import DivergedError, InputError
from data.files.atomic import read_json
from data.images import ImageSet, open_images, to_float, to_uint8
from data.prefetch import prefetch
from data.seeds import SCORED_IMAGES
from pipelines.sample import load_generator
from pipelines.scoring.config import MIN_IMAGES, UNBIASED_FROM, ScoreConfig, asked_metrics, compares_sets
from pipelines.scoring.coverage import FactorClassifier
from pipelines.scoring.feature_cache import FeatureCache
from pipelines.scoring.feature_pass import Images, Rows, Source, View, look_at
from pipelines.scoring.features import Features
from pipelines.scoring.measures import Seen, distances
from pipelines.scoring.protocols import PROTOCOLS
from pipelines.scoring.sifid import check_pairs
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.processes import any_rank, on_main, scan_share
from stage2_codegen.image_generator import ImageGenerator

type Indices = NDArray[np.int64]

_MIN_DEFAULT, _MAX_DEFAULT = UNBIASED_FROM, 50_000
_DECODING_THREADS = min(8, torch.get_num_threads())


class Opened(NamedTuple):
    """The sets of one measurement, before anyone looked."""

    generated: Source
    real: Source
    decoded: Source | None
    mirrored: Source | None  # the real ones, where the generator was shown them in both orientations
    reference: ImageSet
    chosen: Indices  # of the reference
    singles: tuple[Source, Source]  # generated and real for `sifid`, each image in its own size
    autoencoder: Autoencoder | None
    nimg: int | None  # that the run's generator was trained on


def _open_set(config: ScoreConfig, data: str | Sequence[str], size: int | None, accelerator: Accelerator) -> ImageSet:
    share = scan_share(accelerator)
    return open_images(data, size, config.max_skip, allow_hosts=config.allow_host, share=share)


def open_run(config: ScoreConfig, run: Path, accelerator: Accelerator) -> Opened:
    asked = asked_metrics(config)
    pipe = load_generator(run, config.best)
    reference = _open_set(config, config.data, pipe.image_size, accelerator)
    by_default = min(max(len(reference), _MIN_DEFAULT), _MAX_DEFAULT)
    num = config.num or (PROTOCOLS[config.protocol].num if config.protocol else by_default)
    chosen = choose(reference, len(reference) if config.protocol else num, config.seed)
    if compares_sets(asked):
        check_count(reference.name, chosen)
    if "sifid" in asked:
        check_pairs(1, len(usable(reference)))  # a generated image has no partner
    generated, real = generated_source(pipe, num, config.seed), set_source(reference, chosen, "real images")
    decoded = decoded_source(pipe.autoencoder, real)
    mirrored = mirrored_source(real) if _knows_mirrored(run) else None
    singles = generated, real
    return Opened(generated, real, decoded, mirrored, reference, chosen, singles, pipe.autoencoder, pipe.nimg)


def _knows_mirrored(run: Path) -> bool:
    """Whether its generator was shown pictures in both orientations."""
    described = _described(run)
    return bool(described.get("mirror") or described.get("flip"))


def frozen_networks(run: Path) -> dict[str, str]:
    """SHA-256 of each frozen network it was trained with, by name."""
    return dict(_described(run).get("frozen", {}))


def _described(run: Path) -> dict[str, Any]:
    file = run / "weights" / "config.json"
    return dict(read_json(file)) if file.is_file() else {}


def warn_of_flattery(features: Features, frozen: Mapping[str, str], flag: str) -> None:
    """Say so where the network of `features`, which `flag` chose, is one of the `frozen` ones of a run."""
    if features.weights_sha256 in frozen.values():
        warn(
            f"{flag} {features.name}: the critic learned through this network, so its scores flatter the generator",
            f"{flag} of another network, such as offline",
        )


def open_sets(config: ScoreConfig, accelerator: Accelerator) -> Opened:
    asked = asked_metrics(config)
    own = _open_set(config, str(config.images), config.size, accelerator)
    given = own if config.size else _fit_to_median(own, show=accelerator.is_main_process and compares_sets(asked))
    reference = _open_set(config, config.data, given.size, accelerator)
    num = config.num or (PROTOCOLS[config.protocol].num if config.protocol else _MAX_DEFAULT)
    from_given = choose(given, num, config.seed)
    chosen = choose(reference, len(reference) if config.protocol else num, config.seed)
    for images, indices in ((given, from_given), (reference, chosen)):
        if compares_sets(asked):
            check_count(images.name, indices)
    if "lpips-diversity" in asked and len(from_given) < 2:
        raise InputError(f"{given.name}: has {len(from_given)} images, too few for a pair", "give some hundred images")
    generated, real = set_source(given, from_given, "given images"), set_source(reference, chosen, "real images")
    singles = (generated, real)
    if "sifid" in asked:
        partners = reference if config.size else _open_set(config, config.data, None, accelerator)
        singles = _in_pairs(own, partners, num)
    return Opened(generated, real, None, None, reference, chosen, singles, None, None)


def _in_pairs(given: ImageSet, real: ImageSet, num: int) -> tuple[Source, Source]:
    """The first `num` of each in their own order, as image i is compared with image i, or with the only one."""
    from_given, from_real = usable(given), usable(real)
    check_pairs(len(from_given), len(from_real))
    return set_source(given, from_given[:num], "given images"), set_source(real, from_real[:num], "real images")


def generated_source(pipe: ImageGenerator, num: int, seed: int) -> Source:
    """Image i of seed + i."""
    return Source("generated images", num, lambda positions: pipe(seeds=[seed + i for i in positions]))


def usable(images: ImageSet) -> Indices:
    """All but the overview that `codegan sample` adds, in the set's order."""
    return np.array([index for index, key in enumerate(images.keys) if key != "grid.png"], np.int64)


def choose(images: ImageSet, num: int, seed: int) -> Indices:
    """At most `num` of the usable images, a seeded subset in the set's order."""
    return np.sort(np.random.default_rng([seed, SCORED_IMAGES]).permutation(usable(images))[:num])


def set_source(images: ImageSet, chosen: Indices, label: str) -> Source:
    """Of a set without a size only one image can be had at a time, since they may differ."""

    def read(positions: Sequence[int]) -> Images:
        return np.stack(list(prefetch(images.image, chosen[list(positions)].tolist(), threads=_DECODING_THREADS)))

    return Source(label, len(chosen), read)


def mirrored_source(images: Source) -> Source:
    """Each from right to left."""
    return Source("mirrored images", images.count, lambda positions: np.flip(images.images(positions), -1).copy())


def decoded_source(autoencoder: Autoencoder, real: Source) -> Source:
    """What the autoencoder makes of the real images; raises `DivergedError` where that is not finite."""
    return Source("decoded images", real.count, lambda positions: _reconstruct(autoencoder, real.images(positions)))


@torch.inference_mode()
def _reconstruct(autoencoder: Autoencoder, images_u8: Images) -> Images:
    decoded = autoencoder.decode(autoencoder.encode(to_float(torch.from_numpy(images_u8).to(autoencoder.device))))
    if not decoded.isfinite().all():
        raise DivergedError("the run's autoencoder: decodes to NaN or infinity", "train the autoencoder again")
    images: Images = to_uint8(decoded).cpu().numpy()
    return images


@dataclass(frozen=True)
class Looking:
    """What all sets of one measurement are looked at with."""

    features: Features | None
    classifier: FactorClassifier | None
    batch_size: int
    accelerator: Accelerator
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(None))

    def see(self, source: Source, key: dict[str, Any] | None = None) -> Seen:
        """What the views see of a set; with a key, features are kept, and then only the main process has them all."""
        features = self._kept(source, key) if self.features and key else None
        missing: dict[str, View] = {}
        if self.features and features is None:
            missing["features"] = self.features
        if self.classifier:
            missing["factors"] = self.classifier
        seen = look_at(source, list(missing.values()), self.batch_size, self.accelerator) if missing else []
        rows = dict(zip(missing, seen, strict=True))
        if "features" in rows and key and self.accelerator.is_main_process:
            self.cache.write(key, rows["features"])
        empty = np.zeros((source.count, 0), np.float32)
        features = rows.get("features", empty) if features is None else features
        dim = self.features.dim if self.features else 0
        return Seen(features[:, :dim], features[:, dim:], rows.get("factors", empty))

    def _kept(self, source: Source, key: dict[str, Any]) -> Rows | None:
        """The array of the cache on the main process and an empty one on others, None on all when there is none."""
        rows = self.cache.read(key) if self.accelerator.is_main_process else None
        if not any_rank(self.accelerator, rows is not None):
            return None
        if self.accelerator.is_main_process:
            print(f"{source.label}: features of {source.count} from the cache", flush=True)
        return np.zeros((source.count, 0), np.float32) if rows is None else rows


def cache_key(images: ImageSet, chosen: Indices, features: Features) -> dict[str, Any]:
    """All that the features of real images depend on; the pixels of the first stand for how files are decoded."""
    first = images.image(int(chosen[0]))
    return {
        "reference": images.fingerprint,
        "chosen": hashlib.blake2b(chosen.tobytes(), digest_size=16).hexdigest(),
        "first_image": hashlib.blake2b(first.tobytes(), digest_size=16).hexdigest(),
        "size": images.size,
        "features": features.name,
        "weights_sha256": features.weights_sha256,
        "resize": features.resize,
    }


def _fit_to_median(given: ImageSet, show: bool) -> ImageSet:
    """The set fitted to the median of its shorter sides; says so where they differ, if `show`."""
    sides = given.sizes.min(axis=1)
    size = int(np.median(sides))
    if show and (sides.min() != sides.max() or (given.sizes[:, 0] != given.sizes[:, 1]).any()):
        spread = f"{sides.min()} to {sides.max()} pixels on the shorter side"
        print(f"{given.name}: images have {spread}; all are cropped and fitted to {size} x {size}, see --size")
    return replace(given, size=size)


def check_count(name: str, chosen: Indices) -> None:
    if len(chosen) < MIN_IMAGES:
        raise InputError(f"{name}: has {len(chosen)} images, too few to compare", "give some hundred images")


def real_features(
    images: ImageSet,
    num: int,
    features: Features,
    accelerator: Accelerator,
    batch_size: int = 16,
    seed: int = 0,
    cache: FeatureCache | None = None,
) -> Rows:
    """Features of at most `num` real images, (n, dim), for `score_generator`; complete on the main process."""
    chosen = choose(images, num, seed)
    looking = Looking(features, None, batch_size, accelerator, cache or FeatureCache(None))
    return looking.see(set_source(images, chosen, "real images"), cache_key(images, chosen, features)).features


def score_generator(
    pipe: ImageGenerator,
    features: Features,
    real: Rows,
    num: int,
    accelerator: Accelerator,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, float]:
    """Kernel and Frechet distance, under their names, of the images of `num` seeds from `seed` on to `real_features`.

    For use in training, with the same seeds every time. All processes call it, and all get the values.
    """
    seen = Looking(features, None, batch_size, accelerator).see(generated_source(pipe, num, seed))
    found = on_main(accelerator, lambda: distances(seen.features, real))
    return {features.score_name(metric): value for metric, value in found.items()}
