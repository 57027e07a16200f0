"""Encoding an image collection, once, into a sealed latent store.

Every process takes whole shards, so a shard has one writer and its bytes do not depend on how many processes there
are. An interrupted run goes on with the shards that are missing.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from numpy.typing import NDArray

from data.console import ProgressReport, finish, scan_progress
from data.errors import UsageError
from data.images import ImageSet, open_images, to_float
from data.latents import DType, LatentStore, LatentWriter
from data.prefetch import prefetch
from data.storage import lock
from stage1_autoencoder.loop import Precision, autocast, make_accelerator
from stage1_autoencoder.networks import PIXELS, Autoencoder, check_multiple, stands_for_pixels


@dataclass(frozen=True)
class EncodeConfig:
    """Encode a data set into a latent store, once, at any size the autoencoder's factor divides.

    Example: codegan encode --data photos/ --autoencoder runs/ae --out stores/photos256 --size 256
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA")]
    """A folder, a .zip, .tar shards, or scenes:N."""
    autoencoder: Path
    """Run folder of `codegan train-ae`; or pixels, to store the pixels themselves, unless a run here has that name."""
    out: Path
    """The store to make; the same command goes on with an interrupted one."""
    size: int = 256
    """Side in pixels that every image is fitted to (centre crop, Lanczos)."""
    dtype: DType = "float16"
    """Numbers in the store: float32, float16 or int8 (steps of 1/127)."""
    flip: bool = False
    """Also encode each image mirrored; the mirror of image i is row 2 i + 1."""
    batch_size: int = 16
    """Images a forward pass, on each process."""
    precision: Precision = "fp32"
    """bf16 is about twice as fast where the hardware has it; latents differ in the third digit."""
    max_skip: float = 0.01
    """Part of the files that may be unreadable."""
    shard_rows: int | None = None
    """Latents a shard file, the unit that a process writes and a crash can cost; about 32 MB when left out."""
    threads: int = 4
    """Threads that decode images."""


def encode(config: EncodeConfig) -> None:
    """Make, or finish, the store; a sealed one made by the same command is left as it is."""
    if config.batch_size < 1 or config.size < 1 or (config.shard_rows is not None and config.shard_rows < 1):
        raise UsageError("--batch-size, --size and --shard-rows: must be positive", "see `codegan encode --help`")
    autoencoder = Autoencoder.load(config.autoencoder)
    check_multiple((config.size,), autoencoder.factor)
    accelerator = make_accelerator()
    main = accelerator.is_main_process
    origin = PIXELS if stands_for_pixels(config.autoencoder) else str(config.autoencoder.resolve())
    images = open_images(config.data, config.size, config.max_skip, on_progress=scan_progress(main))
    copies = 2 if config.flip else 1
    side = config.size // autoencoder.factor
    metadata = {
        "fingerprint": autoencoder.fingerprint,
        "autoencoder": autoencoder.config,
        "data": list(config.data),
        "data_fingerprint": images.fingerprint,
        "image_size": config.size,
        "flip": config.flip,
        "precision": config.precision,
        "skipped": [{"key": skip.key, "reason": skip.reason} for skip in images.skipped],
    }
    with ExitStack() as stack:
        if main:
            stack.enter_context(lock(config.out))
        if _already_sealed(config.out, {**metadata, "dtype": config.dtype}):
            print(f"{config.out}: is complete already")
            return
        shape = (autoencoder.code_channels, side, side)
        with accelerator.main_process_first():  # it starts or mends the journal
            writer = LatentWriter(config.out, len(images) * copies, shape, config.dtype, metadata, config.shard_rows)
        _write_shards(config, writer, images, autoencoder, accelerator)
        accelerator.wait_for_everyone()
        if main:
            labels = None if images.labels is None else np.repeat(images.labels, copies)
            writer.seal(list(np.repeat(images.keys, copies)), labels, autoencoder_run=origin)
    if main:
        store = LatentStore.open(config.out)
        print(f"{len(store)} latents of {' x '.join(map(str, store.code_shape))}, {config.dtype}")
        finish([config.out], ["codegan", "train", "accel", "--store", str(config.out), "--out", "runs/accel"])


def _already_sealed(path: Path, metadata: dict[str, object]) -> bool:
    if not (path / "zarr.json").is_file():
        return False
    seal = LatentStore.open(path).metadata
    return all(seal.get(name) == value for name, value in metadata.items())


@torch.inference_mode()
def _write_shards(
    config: EncodeConfig, writer: LatentWriter, images: ImageSet, autoencoder: Autoencoder, accelerator: Accelerator
) -> None:
    autoencoder.to(accelerator.device).to(memory_format=torch.channels_last)
    shards = writer.missing_shards()[accelerator.process_index :: accelerator.num_processes]
    batches = [(shard, rows) for shard in shards for rows in _batches(writer.rows_of(shard), config.batch_size)]
    total = sum(len(rows) for _, rows in batches)
    done, parts = 0, []

    def load(batch: tuple[int, range]) -> NDArray[np.uint8]:
        return np.stack([_row(images, row, config.flip) for row in batch[1]])

    loaded = prefetch(load, batches, 2 * config.threads, config.threads)
    with ProgressReport("encode", total, "img", accelerator.is_main_process) as report:
        for (shard, rows), images_u8 in zip(batches, loaded, strict=True):
            pixels = to_float(torch.from_numpy(images_u8).to(accelerator.device))
            with autocast(accelerator, config.precision):
                latents = autoencoder.encode(pixels.contiguous(memory_format=torch.channels_last))
            parts.append(latents.float().cpu().numpy())
            done += len(rows)
            report.update(done)
            if rows.stop == writer.rows_of(shard).stop:
                writer.write_shard(shard, np.concatenate(parts))
                parts = []


def _batches(rows: range, batch_size: int) -> Iterator[range]:
    for start in range(rows.start, rows.stop, batch_size):
        yield range(start, min(start + batch_size, rows.stop))


def _row(images: ImageSet, row: int, flip: bool) -> NDArray[np.uint8]:
    """The picture behind a row of the store, (3, size, size)."""
    if not flip:
        return images.image(row)
    pixels = images.image(row // 2)
    return pixels[:, :, ::-1] if row % 2 else pixels
