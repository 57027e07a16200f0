"""Encoding a data set, once, into a sealed latent store, or into one for each of several sizes.

An interrupted encoding continues with the missing shards. A damaged store is repaired by encoding its damaged shards
again.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from data.advice import Action, Advice, Done
from data.console import scan_progress, warn
from data.errors import UsageError
from data.files.atomic import lock
from data.images import ImageSet, open_images
from data.latents import LatentStore
from data.sizes import Size, as_size, height_width, size_text, to_json_size
from data.sources.locations import Location, redacted
from data.store.seal import SEAL, find_stores
from data.store.writer import LatentWriter, remove_journal
from data.suitability import warn_of_drawn, warn_of_unsuitable
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.default import DEFAULT
from stage1_autoencoder.encoding import Encoding, fill, keys_and_labels
from stage1_autoencoder.networks import Autoencoder, check_multiple, location
from stage1_autoencoder.repair import repair
from stage1_autoencoder.training.processes import make_accelerator, on_main, scan_share

# Ranks wait for each other when their shards are done. One may have a shard more, which takes hours on a slow CPU.
PATIENCE = timedelta(days=2)


def encode(config: EncodeConfig, is_trainable: Callable[[int, int], bool] = lambda height, width: True) -> Done:
    """Make, finish or repair the stores, but leave those as they are that the same command has sealed.

    A warning comes first for each size of latents (height, width) that is not `is_trainable`.

    Raises `UsageError` for flags that do not fit together, `LockedError` for a store in use, and whatever
    `Autoencoder.load`, `open_images` and `LatentWriter` raise.
    """
    _check(config)
    if config.repair:
        return repair(config, make_accelerator(patience=PATIENCE))
    if not config.data:
        raise UsageError("--data: is missing", "name a data set; only --repair finds it in the store")
    origin = config.autoencoder or Path(DEFAULT)
    autoencoder = Autoencoder.load(origin)
    for size in config.size:
        check_multiple(height_width(size), autoencoder.factor)
    accelerator = make_accelerator(patience=PATIENCE)
    if accelerator.is_main_process:
        _warn_of_untrainable(config.size, autoencoder.factor, is_trainable)
    stores = {size: config.out / size_text(size) if len(config.size) > 1 else config.out for size in config.size}
    with ExitStack() as stack:

        def hold() -> None:
            for path in stores.values():
                stack.enter_context(lock(path))

        on_main(accelerator, hold)  # first, since reading through the data may take hours
        images = open_images(
            config.data,
            max_skip=config.max_skip,
            on_progress=scan_progress(accelerator.is_main_process),
            allow_hosts=config.allow_host,
            share=scan_share(accelerator),
        )
        if accelerator.is_main_process:
            warn_of_drawn(config.data)
            warn_of_unsuitable(images, config.size)
        encoding = Encoding(images, autoencoder, config.flip, config.batch_size, config.precision, config.threads)
        writers = on_main(accelerator, lambda: _begin(config, encoding, stores))
        if writers:
            fill(writers, encoding, accelerator)
        if accelerator.is_main_process:
            _seal(writers, images, config, origin)
    if accelerator.is_main_process:
        _describe(stores)
    trainable = [store for size, store in stores.items() if is_trainable(*_code_sides(size, autoencoder.factor))]
    facts = {"store": trainable[0], "out": f"runs/{trainable[0].name}"} if trainable else None
    return Done(list(stores.values()), Advice(Action.TRAIN_GENERATOR, facts) if facts else None)


def _check(config: EncodeConfig) -> None:
    if not config.size:
        raise UsageError("--size: names no size", "give one, such as --size 256")
    if len(set(config.size)) < len(config.size):
        raise UsageError(f"--size {' '.join(map(size_text, config.size))}: names a size twice", "name each size once")
    if len(config.size) > 1 and (config.out.is_file() or config.out in find_stores(config.out)):
        raise UsageError(
            f"{config.out}: is a store or a file, and several stores need a folder",
            "choose another --out, or give one --size",
        )


def _code_sides(size: Size, factor: int) -> tuple[int, int]:
    """Height and width of the latents of images of a size."""
    height, width = height_width(size)
    return height // factor, width // factor


def _warn_of_untrainable(sizes: Sequence[Size], factor: int, is_trainable: Callable[[int, int], bool]) -> None:
    for size in sizes:
        height, width = _code_sides(size, factor)
        if not is_trainable(height, width):
            nearest = [_nearest_trainable(side, factor, is_trainable) for side in height_width(size)]
            warn(
                f"--size {size_text(size)}: makes latents of {height} x {width}, on which no generator can be trained",
                f"--size {size_text(as_size(nearest))}",
            )


def _nearest_trainable(side: int, factor: int, is_trainable: Callable[[int, int], bool]) -> int:
    sides = range(factor, 2 * side + 64 * factor, factor)
    return min(
        (other for other in sides if is_trainable(other // factor, other // factor)),
        key=lambda other: abs(other - side),
        default=side,
    )


def _begin(config: EncodeConfig, encoding: Encoding, stores: Mapping[Size, Location]) -> dict[Size, LatentWriter]:
    """Open writers, by size, for the stores that are not sealed yet."""
    images, autoencoder, writers = encoding.images, encoding.autoencoder, dict[Size, LatentWriter]()
    for size, path in stores.items():
        settings = {
            "fingerprint": autoencoder.fingerprint,
            "autoencoder": autoencoder.config,
            "data_fingerprint": images.fingerprint,
            "image_size": to_json_size(size),
            "flip": config.flip,
            "precision": config.precision,
            "skipped": [{"key": skip.key, "reason": skip.reason} for skip in images.skipped],
        }
        if _already_sealed(path, {**settings, "dtype": config.dtype}):
            remove_journal(path)  # an earlier encoding may have been killed just before this
            print(f"{path}: is complete already")
            continue
        height, width = (side // autoencoder.factor for side in height_width(size))
        shape, count = (autoencoder.code_channels, height, width), len(images) * encoding.copies
        writers[size] = LatentWriter(path, count, shape, config.dtype, settings, config.shard_rows)
    return writers


def _seal(writers: Mapping[Size, LatentWriter], images: ImageSet, config: EncodeConfig, origin: Path) -> None:
    """Seal the stores, with the locations of their data and autoencoder."""
    # Locations are only remarks: both may move, and fingerprints identify them.
    keys, labels = keys_and_labels(images, config.flip)
    for writer in writers.values():
        data = list(map(redacted, config.data))
        writer.seal(keys, labels, data=data, autoencoder_run=location(origin), batch_size=config.batch_size)


def _describe(stores: Mapping[Size, Location]) -> None:
    for path in stores.values():
        store = LatentStore.open(path)
        print(f"{path}: {len(store)} latents of {' x '.join(map(str, store.code_shape))}, {store.seal['dtype']}")


def _already_sealed(path: Location, settings: dict[str, Any]) -> bool:
    if not (path / SEAL).is_file():
        return False
    seal = LatentStore.open(path).seal
    return all(seal.get(name) == value for name, value in settings.items())
