"""Encoding images into latent stores, one for each size: an image is decoded once, and each shard has one writer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from data.console import ProgressReport
from data.errors import CorruptError
from data.images import ImageSet, to_float
from data.prefetch import prefetch
from data.sizes import Size
from data.store.writer import LatentWriter
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.tiles import pictures_at_once
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.precision import autocast


@dataclass(frozen=True)
class Encoding:
    """The images to encode, and how to encode them."""

    images: ImageSet
    autoencoder: Autoencoder
    flip: bool  # row 2 i + 1 is the mirror of image i
    batch_size: int
    precision: Precision
    threads: int  # that decode images

    @property
    def copies(self) -> int:
        """Rows for each image."""
        return 2 if self.flip else 1


def keys_and_labels(images: ImageSet, flip: bool) -> tuple[list[str], NDArray[np.int64] | None]:
    """Return the key and the label of every row; a mirrored copy has those of its image."""
    copies = 2 if flip else 1
    labels = None if images.labels is None else np.repeat(images.labels, copies)
    return np.repeat(images.keys, copies).tolist(), labels


def fill(writers: Mapping[Size, LatentWriter], encoding: Encoding, accelerator: Accelerator) -> None:
    """Write every missing shard of the stores, which are given by image size, and read all of them back.

    All processes must call it. Neither their number nor the other sizes change a byte. Raises `CorruptError` when
    shards read back differ from what was written, twice in a row.
    """
    rank, ranks = accelerator.process_index, accelerator.num_processes
    missing = _missing_shards(writers, accelerator)
    for _ in range(2):
        _write(writers, _share(writers, missing, rank, ranks), encoding, accelerator)
        accelerator.wait_for_everyone()
        for writer in writers.values():
            writer.drop_damaged(range(rank, writer.num_shards, ranks))
        missing = _missing_shards(writers, accelerator)
        if not any(missing.values()):
            return
    path = next(writers[size].path for size, shards in missing.items() if shards)
    raise CorruptError(f"{path}: files read back differ from what was written", "check the disk, or use another one")


def _missing_shards(writers: Mapping[Size, LatentWriter], accelerator: Accelerator) -> dict[Size, list[int]]:
    """The missing shards of each size, the same on all processes."""
    # No process may write while another looks.
    accelerator.wait_for_everyone()
    missing = {size: writer.missing_shards() for size, writer in writers.items()}
    accelerator.wait_for_everyone()
    return missing


def _share(
    writers: Mapping[Size, LatentWriter], missing: Mapping[Size, list[int]], rank: int, ranks: int
) -> dict[Size, set[int]]:
    """The missing shards of each size that this rank writes: those in every `ranks`-th block that lacks one."""
    # A block has as many rows as the largest shard: it holds whole shards of all sizes, and decodes their images once.
    block_rows = max(writer.shard_rows for writer in writers.values())
    block_of = {
        (size, shard): shard * writers[size].shard_rows // block_rows
        for size, shards in missing.items()
        for shard in shards
    }
    mine = set(sorted(set(block_of.values()))[rank::ranks])
    return {size: {shard for shard in shards if block_of[size, shard] in mine} for size, shards in missing.items()}


@torch.inference_mode()
def _write(
    writers: Mapping[Size, LatentWriter], shards: Mapping[Size, set[int]], encoding: Encoding, accelerator: Accelerator
) -> None:
    encode = _encoder(encoding, accelerator)
    stores = {size: _Filling(writer, shards[size], encode, encoding.batch_size) for size, writer in writers.items()}
    total = sum(len(writers[size].rows_of(shard)) for size in writers for shard in shards[size])

    def wanted() -> Iterator[tuple[int, list[Size]]]:
        for index in range(len(encoding.images)):
            rows = range(index * encoding.copies, (index + 1) * encoding.copies)
            if sizes := [size for size, store in stores.items() if any(map(store.takes, rows))]:
                yield index, sizes

    def load(task: tuple[int, list[Size]]) -> tuple[int, dict[Size, NDArray[np.uint8]]]:
        index, sizes = task
        return index, dict(zip(sizes, encoding.images.fitted(index, sizes), strict=True))

    loaded = prefetch(load, wanted(), max(encoding.batch_size, 2 * encoding.threads), encoding.threads)
    with ProgressReport("encode", total, "img", accelerator.is_main_process) as report:
        for index, images in loaded:
            for size, image in images.items():
                for copy in range(encoding.copies):
                    stores[size].add(index * encoding.copies + copy, image[:, :, ::-1] if copy else image)
            report.update(sum(store.done for store in stores.values()))


class _Filling:
    """The shards of one store that this process writes. Rows arrive in order and are encoded in batches."""

    def __init__(
        self,
        writer: LatentWriter,
        shards: set[int],
        encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        batch_size: int,
    ) -> None:
        self._writer, self._shards, self._encode, self._batch_size = writer, shards, encode, batch_size
        self._images: list[NDArray[np.uint8]] = []
        self._latents: list[NDArray[np.float32]] = []
        self.done = 0

    def takes(self, row: int) -> bool:
        """Return whether this process writes the shard of a row."""
        return row // self._writer.shard_rows in self._shards

    def add(self, row: int, image: NDArray[np.uint8]) -> None:
        """Take the image of a row, uint8 (3, H, W), if its shard is one of these."""
        if not self.takes(row):
            return
        shard = row // self._writer.shard_rows
        complete = row + 1 == self._writer.rows_of(shard).stop
        self._images.append(image)
        # A batch ends with its shard, so no latent depends on the images of another shard.
        if complete or len(self._images) == self._batch_size:
            self._latents.append(self._encode(np.stack(self._images)))
            self.done += len(self._images)
            self._images = []
        if complete:
            self._writer.write_shard(shard, np.concatenate(self._latents))
            self._latents = []


def _encoder(encoding: Encoding, accelerator: Accelerator) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Make the function that encodes images, uint8 (n, 3, H, W), to latents (n, C, h, w)."""
    autoencoder = encoding.autoencoder.to(accelerator.device).to(memory_format=torch.channels_last)

    def encode_together(images_u8: Tensor) -> Tensor:
        pixels = to_float(images_u8.to(accelerator.device))
        with autocast(accelerator, encoding.precision):
            latents = autoencoder.encode(pixels.contiguous(memory_format=torch.channels_last))
        return latents.float().cpu()

    def encode(images_u8: NDArray[np.uint8]) -> NDArray[np.float32]:
        count, _, *sides = images_u8.shape
        parts = torch.from_numpy(images_u8).split(pictures_at_once((sides[0], sides[1]), count))
        return np.asarray(torch.cat([encode_together(part) for part in parts]).numpy())

    return encode
