"""A vector for each training image that suggests to a generator what to draw (LRM GAN's "metadata", section 3.3).

A bank is a folder with one vector for each image of a store; without one, the store's own latents are pooled over
space. Either way a vector holds only what is global in an image, since its details are averaged away.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from data.advice import Action, Advice
from data.errors import CorruptError, InputError, MismatchError, UsageError
from data.files.checkpoints import check_weights, load_weights, save_weights
from data.latents import LatentStore
from data.spacing import spaced_rows

KIND = "metadata"
_ROWS_AT_A_TIME = 64
_SMALLEST_DEVIATION = 1e-6  # an entry with less is the same for all images


@dataclass(frozen=True)
class _Origin:
    """The shape of what a bank says of its images."""

    kind: Literal["metadata"]
    data_fingerprint: str


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
    check_weights(bank, _Origin, (KIND,), folder)
    if getattr(bank.tensors[KIND].get("vectors"), "ndim", 0) != 2:
        raise CorruptError(f"{folder}: holds no vectors", "make them again")
    return bank.tensors[KIND]["vectors"], bank.state


class Standardiser(nn.Module):
    """Vectors (N, length) -> (N, dim) as a generator takes them: standardised over its bank, then padded with zeros.

    They are as strong as vectors of `dim` entries would be: a layer with orthogonal weights spreads `length` entries of
    unit deviation over more outputs. Until `fit` has seen the bank, `length` is 0.
    """

    mean: Tensor  # (dim,)
    scale: Tensor  # (dim,)
    length: Tensor  # ()

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.zeros(dim))
        self.register_buffer("length", torch.tensor(0))
        self.register_load_state_dict_pre_hook(_fill_in)

    def fit(self, vectors: Tensor) -> None:
        """Take mean and deviation from vectors (rows, length); raises `UsageError` where they are longer than `dim`."""
        (dim,), length = self.mean.shape, vectors.shape[1]
        if length > dim:
            what = f"metadata_dim {dim}: is less than the {length} entries of a vector"
            raise UsageError(what, f"give --model.metadata-dim {length} or more")
        deviation, mean = torch.std_mean(vectors.double(), 0, correction=0)
        tells = deviation > _SMALLEST_DEVIATION
        self.mean[:length] = mean
        self.scale[:length] = torch.where(tells, math.sqrt(dim / length) / deviation, 0.0)
        self.length.fill_(length)

    def forward(self, vectors: Tensor) -> Tensor:
        padded = nn.functional.pad(vectors.double(), (0, len(self.mean) - vectors.shape[1]))
        return ((padded - self.mean) * self.scale).to(self.scale)


def _fill_in(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Weights of earlier versions hold no `Standardiser`, which then knows no bank."""
    for name, buffer in module.named_buffers():
        state.setdefault(prefix + name, torch.zeros_like(buffer))


def bank_rows(store: LatentStore, folder: str, rows: int) -> Tensor:
    """Return the vectors (rows, length) of evenly spaced images: from the bank in `folder`, or pooled latents.

    Images repeat when there are fewer than `rows`. Raises `MismatchError` for a bank of other images than the store's,
    and whatever `load_bank` raises.
    """
    return _vectors_of_bank(Path(folder), store, rows) if folder else _pooled_latents(store, rows)


def pooled(latents: Tensor) -> Tensor:
    """Return mean and deviation of each channel over space, (N, C, H, W) -> (N, 2 C)."""
    deviations, means = torch.std_mean(latents, (2, 3), correction=0)
    return torch.cat([means, deviations], 1)


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
    wanted, where = np.unique(spaced_rows(len(store), rows), return_inverse=True)
    parts = [pooled(torch.from_numpy(store.read(block))) for block in batched(wanted, _ROWS_AT_A_TIME)]
    return torch.cat(parts)[where]
