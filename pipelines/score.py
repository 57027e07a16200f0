"""`codegan score`: how far generated images are from real ones, beside two floors that say what is attainable.

The autoencoder floor is the distance of decode(encode(real)) to real: a generator of latents can hardly get below it. The
real floor is the distance between two random halves of the real images: what chance alone gives at half the count.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data.console import ProgressReport, finish
from data.errors import CorruptError, DivergedError, InputError, UsageError
from data.images import open_images, to_float, to_uint8
from data.runs import versions
from data.storage import write_json
from pipelines.features import FeatureName, Features, load_features
from pipelines.metrics import frechet_distance, kernel_distance
from pipelines.sample import Pipeline, load_generator
from stage1_autoencoder.networks import Autoencoder

type Images = NDArray[np.uint8]
type Vectors = NDArray[np.float32]

_DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}
_MIN_DEFAULT, _MAX_DEFAULT = 2048, 50_000
_MIN_REAL = 4  # two halves of two


@dataclass(frozen=True)
class ScoreConfig:
    """Measure generated images against real ones.

    Example: codegan score --run runs/flowers --data flowers.zip
    """

    data: str
    """Real images: a folder, .zip, .tar shards, or scenes:N."""
    run: Path | None = None
    """Folder of a trained generator; its images are drawn in memory."""
    images: str | None = None
    """Images to score instead of a run: like --data."""
    num: int | None = None
    """Images drawn from the run, and the most taken from each set. Default: as many as DATA has, 2,048 to 50,000."""
    metrics: tuple[Literal["fid", "kid"], ...] = ("fid", "kid")
    """fid: Frechet distance; kid: kernel distance, the one to trust below some thousand images."""
    features: FeatureName = "inception"
    """Network that sees the images; only inception's scores are called FID and KID."""
    feature_weights: Path | None = None
    """Its weights. Inception finds its own: cached, else downloaded once (96 MB)."""
    size: int | None = None
    """Pixels a side both sets are fitted to, with --images; a run has its own."""
    batch_size: int = 16
    """Images at a time."""
    seed: int = 0
    """First seed of the generated images; also which images and halves are taken."""
    max_skip: float = 0.01
    """Fraction of unreadable files in a set that is tolerated."""
    out: Path | None = None
    """File for the scores. Default: RUN/scores.json, none with --images."""
