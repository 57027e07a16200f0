"""A vector for each training image that suggests to a generator what to draw (LRM GAN's "metadata", section 3.3).

A bank is a folder with one vector for each image of a store; without one, the store's own latents are pooled over
space. Either way a vector holds only what is global in an image, since its details are averaged away.
"""

from collections.abc import Mapping
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.advice import Action, Advice
from data.errors import InputError, MismatchError, UsageError
from data.files.checkpoints import load_weights, save_weights
from data.latents import LatentStore
from data.spacing import spaced_rows

KIND = "metadata"
_ROWS_AT_A_TIME = 64
_SMALLEST_DEVIATION = 1e-6  # an entry with less is the same for all images


def save_bank(folder: Path, vectors: Tensor, origin: Mapping[str, Any]) -> None:
    """Save vectors (n, dim); `origin` describes them and must hold the `data_fingerprint` of their images."""
    save_weights(folder, {KIND: {"vectors": vectors}}, {"kind": KIND, **origin})


def load_bank(folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """Load vectors and their origin, as `save_bank` wrote them.

    Raises `InputError` without a folder, `MismatchError` for a folder of another kind, `CorruptError` on damage.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there are no vectors here", "make them", Advice(Action.DESCRIBE_IMAGES))
    if not (folder / f"{KIND}.safetensors").is_file():
        raise MismatchError(f"{folder}: is not a bank of vectors", "make one", Advice(Action.DESCRIBE_IMAGES))
    bank = load_weights(folder)
    return bank.tensors[KIND]["vectors"], bank.state


def bank_rows(store: LatentStore, folder: str, rows: int, dim: int) -> Tensor:
    """Return metadata (rows, dim) for a generator: standardised vectors of evenly spaced images, padded with zeros.

    Images repeat when there are fewer than `rows`. Raises `MismatchError` for a bank of other images than the store's,
    `UsageError` for vectors longer than `dim`, and whatever `load_bank` raises.
    """
    vectors = _vectors_of_bank(Path(folder), store, rows) if folder else _pooled_latents(store, rows)
    if vectors.shape[1] > dim:
        raise UsageError(
            f"metadata_dim {dim}: is less than the {vectors.shape[1]} entries of a vector",
            f"give --model.metadata-dim {vectors.shape[1]} or more",
        )
    vectors = vectors.double()
    deviation, mean = torch.std_mean(vectors, 0, correction=0)
    standardised = (vectors - mean) / deviation.clamp(min=_SMALLEST_DEVIATION)
    return torch.nn.functional.pad(standardised, (0, dim - vectors.shape[1])).float()


def _vectors_of_bank(folder: Path, store: LatentStore, rows: int) -> Tensor:
    vectors, origin = load_bank(folder)
    if origin["data_fingerprint"] != store.seal.get("data_fingerprint"):
        raise MismatchError(
            f"{folder}: describes other images than those of {store.path}",
            "describe them",
            Advice(Action.DESCRIBE_IMAGES, {"store": store.path}),
        )
    return vectors[spaced_rows(len(vectors), rows)]


def _pooled_latents(store: LatentStore, rows: int) -> Tensor:
    """Mean and deviation of each channel over space, (rows, 2 C)."""
    wanted, where = np.unique(spaced_rows(len(store), rows), return_inverse=True)
    pooled = []
    for block in batched(wanted, _ROWS_AT_A_TIME):
        latents = store.read(block)
        pooled.append(np.concatenate([latents.mean((2, 3)), latents.std((2, 3))], 1))
    return torch.from_numpy(np.concatenate(pooled)[where])
