"""Encoding an image collection, once, into a sealed latent store, or into one for each of several sizes.

An interrupted run goes on with the shards that are missing, and a damaged store is mended by encoding just what is
damaged.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import tyro

from data.console import finish, scan_progress
from data.errors import UsageError
from data.files.atomic import lock
from data.images import ImageSet, open_images
from data.latents import DType, LatentStore
from data.sources.locations import Place, PlaceArg, shown
from data.store.seal import SEAL, find_stores
from data.store.writer import LatentWriter, remove_journal
from stage1_autoencoder.default import DEFAULT
from stage1_autoencoder.encoding import Encoding, fill, keys_and_labels
from stage1_autoencoder.networks import Autoencoder, check_multiple, is_built_in
from stage1_autoencoder.repair import Sources, repair
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.processes import make_accelerator, on_main, scan_share

# Ranks meet when their shards are done, and one may have a shard more than another: hours, for large ones on a CPU.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode a data set into a latent store, once, at any size the autoencoder's factor divides.

    Example: codegan encode --data photos/ --out stores/photos256 --size 256
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA")] = ()
    """A folder, a .zip, .tar shards, or scenes:N."""
    autoencoder: Path | None = None
    """Run folder of `codegan train-ae`. Unless a run here has that name: default, the one that comes with codegan and
    is taken when this is left out; default:F for another factor F; or pixels, to store the pixels themselves."""
    out: PlaceArg
    """The store to make, or the folder for one store a size; the same command goes on with an interrupted one.
    s3://BUCKET/STORE works too."""
    size: tuple[int, ...] = (256,)
    """Sides in pixels that every image is fitted to (centre crop, Lanczos); several make the stores OUT/SIZE."""
    dtype: DType = "float16"
    """Numbers in the store: float32, float16, or int8 with a scale for each channel of each latent."""
    flip: bool = False
    """Also encode each image mirrored; the mirror of image i is row 2 i + 1."""
    batch_size: int = 16
    """Images a forward pass, on each process."""
    precision: Precision = "fp32"
    """bf16 is about twice as fast where the hardware has it; latents differ in the third digit."""
    max_skip: float = 0.01
    """Part of the files that may be unreadable."""
    shard_rows: int | None = None
    """Latents a shard file, the unit that a process writes and a crash can cost; at most 32 MB when left out."""
    allow_host: Annotated[tuple[str, ...], tyro.conf.arg(metavar="HOST")] = ()
    """Web servers that DATA, and their redirects, may be read from."""
    threads: int = 4
    """Threads that decode images."""
    repair: bool = False
    """Mend the damaged files of the store at --out; data and autoencoder are those it names, unless given."""


def encode(config: EncodeConfig) -> None:
    """Make, finish or repair the stores; sealed ones made by the same command are left as they are."""
    _check(config)
    if config.repair:
        sources = Sources(config.data, config.autoencoder, config.allow_host, config.threads)
        repair(config.out, sources, make_accelerator(patience=PATIENCE))
        return
    if not config.data:
        raise UsageError("--data: is needed", "give it; only --repair finds it in the store")
    origin = config.autoencoder or Path(DEFAULT)
    autoencoder = Autoencoder.load(origin)
    check_multiple(config.size, autoencoder.factor)
    accelerator = make_accelerator(patience=PATIENCE)
    stores = {size: config.out / str(size) if len(config.size) > 1 else config.out for size in config.size}
    with ExitStack() as stack:

        def hold() -> None:
            for path in stores.values():
                stack.enter_context(lock(path))

        on_main(accelerator, hold)  # first, for looking through the data may take hours
        images = open_images(
            config.data,
            max_skip=config.max_skip,
            on_progress=scan_progress(accelerator.is_main_process),
            allow_hosts=config.allow_host,
            share=scan_share(accelerator),
        )
        encoding = Encoding(images, autoencoder, config.flip, config.batch_size, config.precision, config.threads)
        writers = on_main(accelerator, lambda: _begin(config, encoding, stores))
        if writers:
            fill(writers, encoding, accelerator)
        if accelerator.is_main_process:
            _seal(writers, images, config, origin)
    if accelerator.is_main_process:
        _show(config, stores)


def _check(config: EncodeConfig) -> None:
    numbers = (*config.size, config.batch_size, config.threads, config.shard_rows or 1)
    if min(numbers) < 1 or not config.size or config.shard_rows == 0:
        raise UsageError(
            "--size, --batch-size, --shard-rows and --threads: must be positive", "see `codegan encode --help`"
        )
    if len(set(config.size)) < len(config.size):
        raise UsageError(f"--size {' '.join(map(str, config.size))}: names a size twice", "name each size once")
    if len(config.size) > 1 and (config.out.is_file() or config.out in find_stores(config.out)):
        raise UsageError(f"{config.out}: is no folder for several stores", "choose another --out, or give one --size")


def _begin(config: EncodeConfig, encoding: Encoding, stores: Mapping[int, Place]) -> dict[int, LatentWriter]:
    """Writers of the stores that are not sealed yet, by size."""
    images, autoencoder, writers = encoding.images, encoding.autoencoder, {}
    for size, path in stores.items():
        metadata = {
            "fingerprint": autoencoder.fingerprint,
            "autoencoder": autoencoder.config,
            "data_fingerprint": images.fingerprint,
            "image_size": size,
            "flip": config.flip,
            "precision": config.precision,
            "skipped": [{"key": skip.key, "reason": skip.reason} for skip in images.skipped],
        }
        if _already_sealed(path, {**metadata, "dtype": config.dtype}):
            remove_journal(path)  # a crash may have come between the seal and its end
            print(f"{path}: is complete already")
            continue
        side = size // autoencoder.factor
        shape, count = (autoencoder.code_channels, side, side), len(images) * encoding.copies
        writers[size] = LatentWriter(path, count, shape, config.dtype, metadata, config.shard_rows)
    return writers


def _seal(writers: Mapping[int, LatentWriter], images: ImageSet, config: EncodeConfig, origin: Path) -> None:
    """Where the data and the autoencoder lie is recorded, but they may move: their fingerprints tell what they are."""
    keys, labels = keys_and_labels(images, config.flip)
    run = str(origin if is_built_in(origin) else origin.resolve())
    for writer in writers.values():
        data = list(map(shown, config.data))
        writer.seal(keys, labels, data=data, autoencoder_run=run, batch_size=config.batch_size)


def _show(config: EncodeConfig, stores: Mapping[int, Place]) -> None:
    for path in stores.values():
        store = LatentStore.open(path)
        print(f"{path}: {len(store)} latents of {' x '.join(map(str, store.code_shape))}, {config.dtype}")
    first = stores[config.size[0]]
    finish(list(stores.values()), ["codegan", "train", "--store", str(first), "--out", f"runs/{first.name}"])


def _already_sealed(path: Place, metadata: dict[str, Any]) -> bool:
    if not (path / SEAL).is_file():
        return False
    seal = LatentStore.open(path).seal
    return all(seal.get(name) == value for name, value in metadata.items())
