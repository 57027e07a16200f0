"""The sets of images that a score compares: those of a run or given ones, and the real ones."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from data.errors import DivergedError, InputError
from data.images import ImageSet, open_images, to_float, to_uint8
from data.prefetch import prefetch
from data.seeds import DRAWN_ORDER, SCORED_IMAGES
from data.shared import RunName
from data.sizes import Size
from pipelines.sample import load_generator
from pipelines.scoring.config import MIN_IMAGES, UNBIASED_FROM, ScoreConfig, asked_metrics, compares_sets
from pipelines.scoring.metrics import Indices
from pipelines.scoring.protocols import PROTOCOLS
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.processes import scan_share
from stage2_codegen.image_generator import ImageGenerator

type Images = NDArray[np.uint8]

_MIN_DEFAULT, _MAX_DEFAULT = UNBIASED_FROM, 50_000
_DECODING_THREADS = min(8, torch.get_num_threads())


@dataclass(frozen=True)
class LazyImages:
    """Images by position, 0 ... count - 1, made when they are needed: read, decoded or drawn from seeds."""

    label: str
    count: int
    at: Callable[[Sequence[int]], Images]  # positions (n) -> images (n, 3, H, W)
    identity: Mapping[str, Any] | None = None  # all that the pixels depend on, where features may be cached

    def drawn(self, count: int, seed: int) -> "LazyImages":
        """At most `count` of the images, in random order."""
        order = np.random.default_rng([seed, DRAWN_ORDER]).permutation(self.count)[:count]
        return LazyImages(self.label, len(order), lambda positions: self.at(order[list(positions)].tolist()))


class Sets[Content](NamedTuple):
    """The same of every set that a score compares: its images, or what was extracted from them."""

    generated: Content
    real: Content
    decoded: Content | None = None  # the real images through the autoencoder
    mirrored: Content | None = None  # the real images, where the generator was shown them in both orientations


class Comparison(NamedTuple):
    sets: Sets[LazyImages]
    one_by_one: tuple[LazyImages, LazyImages]  # generated and real for `sifid`, each image in its own size
    reference: ImageSet  # that the real images are from
    nimg: int | None = None  # that the run's generator was trained on
    frozen: Mapping[str, str] = {}  # SHA-256 of each frozen network that the generator was trained with, by name


def open_comparison(config: ScoreConfig, accelerator: Accelerator) -> Comparison:
    """The images of --run or --images, and those of --data, before any is made; all processes call it.

    Raises `InputError` for sets too small to compare.
    """
    if config.run:
        return _compare_run(config, config.run, accelerator)
    return _compare_given(config, accelerator)


def _compare_run(config: ScoreConfig, run: RunName, accelerator: Accelerator) -> Comparison:
    loaded = load_generator(run, config.best, config.allow_host)
    pipe = loaded.drawing(config.class_name, config.truncation)
    reference = _open_set(config, config.data, pipe.image_size, accelerator)
    num = _number(config, min(max(len(reference), _MIN_DEFAULT), _MAX_DEFAULT))
    real = _real_images(config, reference, num)
    if "sifid" in asked_metrics(config):
        check_pairs(1, len(usable(reference)))  # no generated image belongs to any one of several real images
    generated = generated_images(pipe, num, config.seed)
    is_mirrored = pipe.described.get("mirror") or pipe.described.get("flip")
    sets = Sets(generated, real, decoded_images(pipe.autoencoder, real), mirrored_images(real) if is_mirrored else None)
    return Comparison(sets, (generated, real), reference, pipe.nimg, pipe.described.get("frozen", {}))


def _compare_given(config: ScoreConfig, accelerator: Accelerator) -> Comparison:
    asked = asked_metrics(config)
    unfitted = _open_set(config, str(config.images), config.size, accelerator)
    show = accelerator.is_main_process and compares_sets(asked)
    given = unfitted if config.size else _fit_to_median(unfitted, show)
    reference = _open_set(config, config.data, given.size, accelerator)
    num = _number(config, _MAX_DEFAULT)
    chosen = choose(given, num, config.seed)
    if compares_sets(asked):
        check_count(given.name, chosen)
    real = _real_images(config, reference, num)
    if "lpips-diversity" in asked and len(chosen) < 2:
        raise InputError(f"{given.name}: has {len(chosen)} images, too few for a pair", "give some hundred images")
    generated = chosen_images(given, chosen, "given images")
    one_by_one = generated, real
    if "sifid" in asked:
        partners = reference if config.size else _open_set(config, config.data, None, accelerator)
        one_by_one = _in_pairs(unfitted, partners, num)
    return Comparison(Sets(generated, real), one_by_one, reference)


def _open_set(config: ScoreConfig, data: str | Sequence[str], size: Size | None, accelerator: Accelerator) -> ImageSet:
    share = scan_share(accelerator)
    return open_images(data, size, config.max_skip, allow_hosts=config.allow_host, share=share)


def _fit_to_median(given: ImageSet, show: bool) -> ImageSet:
    """The set fitted to the median of its shorter sides; says so where the sides differ, if `show`."""
    sides = given.sizes.min(axis=1)
    size = int(np.median(sides))
    if show and (sides.min() != sides.max() or (given.sizes[:, 0] != given.sizes[:, 1]).any()):
        sizes = f"{sides.min()} to {sides.max()} pixels on the shorter side"
        print(f"{given.name}: images have {sizes}; all are cropped and fitted to {size} x {size}, see --size")
    return replace(given, size=size)


def _number(config: ScoreConfig, default: int) -> int:
    """How many images to score."""
    return config.num or (PROTOCOLS[config.protocol].num if config.protocol else default)


def _real_images(config: ScoreConfig, reference: ImageSet, num: int) -> LazyImages:
    """At most `num` images of the reference; a protocol compares with all of them."""
    chosen = choose(reference, len(reference) if config.protocol else num, config.seed)
    if compares_sets(asked_metrics(config)):
        check_count(reference.name, chosen)
    return real_images(reference, chosen)


def usable(images: ImageSet) -> Indices:
    """All but the overview that `codegan sample` adds, in the set's order."""
    return np.array([index for index, key in enumerate(images.keys) if key != "grid.png"], np.int64)


def choose(images: ImageSet, num: int, seed: int) -> Indices:
    """At most `num` of the usable images, a seeded subset in the set's order."""
    return np.sort(np.random.default_rng([seed, SCORED_IMAGES]).permutation(usable(images))[:num])


def check_count(name: str, chosen: Indices) -> None:
    if len(chosen) < MIN_IMAGES:
        raise InputError(f"{name}: has {len(chosen)} images, too few to compare", "give some hundred images")


def check_pairs(generated: int, real: int) -> None:
    """Raises `InputError` where so many images cannot be compared one by one."""
    if real not in (1, generated):
        partners = f", or {generated:,} in the same order" if generated > 1 else " of the training"
        problem = f"sifid: compares images one by one, and there are {real:,} real images"
        raise InputError(problem, f"give the one real image{partners}")


def _in_pairs(given: ImageSet, real: ImageSet, num: int) -> tuple[LazyImages, LazyImages]:
    """The first `num` of each in their own order, as image i is compared with image i, or with the only one."""
    from_given, from_real = usable(given), usable(real)
    check_pairs(len(from_given), len(from_real))
    return chosen_images(given, from_given[:num], "given images"), chosen_images(real, from_real[:num], "real images")


def chosen_images(images: ImageSet, chosen: Indices, label: str) -> LazyImages:
    """Some images of a set. If it has no size, images may differ in theirs, and only one can be had at a time."""

    def read(positions: Sequence[int]) -> Images:
        return np.stack(list(prefetch(images.image, chosen[list(positions)].tolist(), threads=_DECODING_THREADS)))

    return LazyImages(label, len(chosen), read)


def real_images(images: ImageSet, chosen: Indices) -> LazyImages:
    """Some images of a set, with their identity; the pixels of the first stand for how files are decoded."""
    first = [images.image(int(index)).tobytes() for index in chosen[:1]]
    identity = {
        "reference": images.fingerprint,
        "chosen": _digest(chosen.tobytes()),
        "first_image": _digest(b"".join(first)),
        "size": images.size,
    }
    return replace(chosen_images(images, chosen, "real images"), identity=identity)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def generated_images(pipe: ImageGenerator, num: int, seed: int) -> LazyImages:
    """Image i is that of seed + i."""
    return LazyImages("generated images", num, lambda positions: pipe(seeds=[seed + i for i in positions]))


def mirrored_images(real: LazyImages) -> LazyImages:
    """Each from right to left."""
    identity = real.identity and {**real.identity, "mirrored": True}
    return LazyImages("mirrored images", real.count, lambda positions: np.flip(real.at(positions), -1).copy(), identity)


def decoded_images(autoencoder: Autoencoder, real: LazyImages) -> LazyImages:
    """The real images through the autoencoder; raises `DivergedError` where its images are not finite."""

    @torch.inference_mode()
    def reconstruct(positions: Sequence[int]) -> Images:
        images = to_float(torch.from_numpy(real.at(positions)).to(autoencoder.device))
        decoded = autoencoder.decode(autoencoder.encode(images))
        if not decoded.isfinite().all():
            raise DivergedError("the run's autoencoder: decodes to NaN or infinity", "train the autoencoder again")
        images_u8: Images = to_uint8(decoded).cpu().numpy()
        return images_u8

    identity = real.identity and {**real.identity, "autoencoder": autoencoder.fingerprint}
    return LazyImages("decoded images", real.count, reconstruct, identity)
