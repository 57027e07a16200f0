"""Features are extracted from every image of a set once, by all processes together; those of real images are cached."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from data.console import ProgressReport, warn
from data.errors import CorruptError
from data.files.atomic import write_bytes
from data.files.checksums import crc32c
from data.prefetch import prefetch
from data.spacing import share_of
from pipelines.scoring.coverage import FactorClassifier
from pipelines.scoring.metrics import Rows
from pipelines.scoring.networks import FeatureNetwork, repeatable
from pipelines.scoring.sets import Images, LazyImages
from stage1_autoencoder.training.processes import any_rank

type Key = Mapping[str, Any]

CACHE_VERSION = 1  # of the files' layout, and of all preprocessing between decoded images and features
_BATCHES_AHEAD = 2


class Extractor(Protocol):
    """Turns images into rows of numbers."""

    @property
    def name(self) -> str: ...

    def prepare(self, images_u8: Images) -> Tensor:
        """Work on the CPU, done in a thread that runs ahead."""

    def extract(self, prepared: Tensor) -> Rows:
        """(n, columns)"""


def extract(
    images: LazyImages, extractors: Sequence[Extractor], batch_size: int, accelerator: Accelerator
) -> list[Rows]:
    """The rows of each extractor, (rows, columns), in the order of the images and the same on every process.

    The batches do not depend on the number of processes, each of which takes some consecutive ones: nor do the numbers.
    Raises `CorruptError` for NaN or infinity.
    """
    batches = list(batched(range(images.count), batch_size))
    mine = share_of(len(batches), accelerator.process_index, accelerator.num_processes)
    share = batches[mine.start : mine.stop]
    parts = gather_object(list(_extract_share(images, extractors, share, accelerator.is_main_process)))
    extracted = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
    for extractor, rows in zip(extractors, extracted, strict=True):
        if not np.isfinite(rows).all():
            what = f"{extractor.name} features: are not finite on the {images.label}"
            raise CorruptError(what, "use other --feature-weights")
    return extracted


def _extract_share(
    images: LazyImages, extractors: Sequence[Extractor], share: Sequence[tuple[int, ...]], show: bool
) -> Iterator[tuple[Rows, ...]]:
    """The rows of each extractor, a batch at a time; the next batches are made meanwhile."""

    def prepare(positions: tuple[int, ...]) -> list[Tensor]:
        images_u8 = images.at(positions)
        return [extractor.prepare(images_u8) for extractor in extractors]

    done, total = 0, sum(map(len, share))
    # The flags are the process's, not the thread's: they hold for the generator that runs ahead, too.
    with repeatable(), ProgressReport(images.label, total, "images", show) as progress:
        prepared = prefetch(prepare, share, ahead=_BATCHES_AHEAD, threads=1)
        for positions, inputs in zip(share, prepared, strict=True):
            yield tuple(extractor.extract(batch) for extractor, batch in zip(extractors, inputs, strict=True))
            done += len(positions)
            progress.update(done)


class FeatureCache:
    """Arrays by key in a folder.

    FOLDER/features/DIGEST.safetensors holds one array; its header repeats the whole key and a crc32c of the array. A
    file that is damaged, of another version or of another key is never used: it is made again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "features"

    def read(self, key: Key) -> Rows | None:
        """The array that was written for this key, or None; says so when a file cannot be used."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="np") as file:
                header, rows = file.metadata() or {}, file.get_tensor("rows")
            if header.get("key") != _canonical(key):
                problem = "is of another version"
            elif header.get("crc32c") != _checksum(rows):
                problem = "is damaged"
            else:
                return np.asarray(rows)
        except (OSError, SafetensorError, ValueError) as error:
            problem = f"cannot be read ({type(error).__name__})"
        print(f"{path}: {problem}; its features are computed again")
        return None

    def write(self, key: Key, rows: Rows) -> None:
        """Keep an array; warns where the folder cannot be written to, which costs nothing but time."""
        path = self._path(key)
        header = {"key": _canonical(key), "crc32c": _checksum(rows)}
        try:
            write_bytes(path, save({"rows": rows}, header))
        except OSError as error:
            warn(f"{path}: {error.strerror}; features are not kept", "give another folder with --cache")

    def _path(self, key: Key) -> Path:
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self._folder / f"{digest[:32]}.safetensors"


def _canonical(key: Key) -> str:
    return json.dumps({"version": CACHE_VERSION, **key}, sort_keys=True)


def _checksum(rows: Rows) -> str:
    return f"{crc32c(rows.tobytes()):08x}"


class Extracted(NamedTuple):
    """What was extracted from a set of images: one row an image, no columns where nothing was asked for."""

    features: Rows
    probabilities: Rows
    factors: Rows

    def part(self, chosen: Any) -> "Extracted":
        return Extracted(*(rows[chosen] for rows in self))


@dataclass(frozen=True)
class FeaturePass:
    """The networks of one scoring, and how they go through the images of a set."""

    network: FeatureNetwork | None
    accelerator: Accelerator
    batch_size: int = 16
    classifier: FactorClassifier | None = None
    cache: FeatureCache | None = None

    def __call__(self, images: LazyImages) -> Extracted:
        """Features of images with an identity are cached; those from the cache only the main process has."""
        key = self._key(images)
        cached = self._read_cached(images, key) if key else None
        extractors: dict[str, Extractor] = {}
        if self.network and cached is None:
            extractors["features"] = self.network
        if self.classifier:
            extractors["factors"] = self.classifier
        found = extract(images, list(extractors.values()), self.batch_size, self.accelerator) if extractors else []
        rows = dict(zip(extractors, found, strict=True))
        if self.cache and key and "features" in rows and self.accelerator.is_main_process:
            self.cache.write(key, rows["features"])
        nothing = np.zeros((images.count, 0), np.float32)
        features = rows.get("features", nothing) if cached is None else cached
        dim = self.network.dim if self.network else 0
        return Extracted(features[:, :dim], features[:, dim:], rows.get("factors", nothing))

    def _key(self, images: LazyImages) -> Key | None:
        if self.network is None or images.identity is None:
            return None
        network = self.network
        settings = {"features": network.name, "weights_sha256": network.weights_sha256, "resize": network.resize}
        return {**images.identity, **settings}

    def _read_cached(self, images: LazyImages, key: Key) -> Rows | None:
        """The array of the cache on the main process and an empty one on others, None on all when there is none."""
        rows = self.cache.read(key) if self.cache and self.accelerator.is_main_process else None
        if not any_rank(self.accelerator, rows is not None):
            return None
        if self.accelerator.is_main_process:
            print(f"{images.label}: features of {images.count} from the cache", flush=True)
        return np.zeros((images.count, 0), np.float32) if rows is None else rows
