"""Latents as stored <-> codes as the GAN sees them; one object owns both directions."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from data.latents import LatentStore

EXAMPLES, PLACES = 8, 2**14  # the least number of example codes, and of places in all of them together


@dataclass(frozen=True)
class CodeScale:
    """codes = (latents - mean) / std, with a mean and a deviation for each channel.

    It is saved with the generator's weights, since generated codes must be scaled back by the same numbers.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, store: LatentStore, standardise: bool) -> Self:
        """Take the store's statistics, or the identity: the acceleration framework trains on the encoder's range."""
        channels = store.code_shape[0]
        if not standardise:
            return cls((0.0,) * channels, (1.0,) * channels)
        # A channel that is constant in the data has no deviation to divide by.
        return cls(tuple(store.mean.tolist()), tuple(max(std, 1e-6) for std in store.std.tolist()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        return cls(tuple(value["mean"]), tuple(value["std"]))

    def to_json(self) -> dict[str, Any]:
        """Return mean and std as JSON can hold them."""
        return asdict(self)

    def std_of_codes(self, store: LatentStore) -> Tensor:
        """Return the deviation of each channel of the store's codes, (C,)."""
        return torch.from_numpy(store.std).float() / torch.tensor(self.std)

    def examples(self, store: LatentStore) -> Tensor:
        """Return some codes of the store, evenly spaced, (N, C, S, S)."""
        count = max(EXAMPLES, PLACES // store.code_shape[1] ** 2)
        return self.to_codes(torch.from_numpy(store.read_spaced(count)))

    def to_codes(self, latents: Tensor) -> Tensor:
        """Scale latents (N, C, H, W) to codes of the same shape."""
        return (latents - _column_like(latents, self.mean)) / _column_like(latents, self.std)

    def to_latents(self, codes: Tensor) -> Tensor:
        """Undo `to_codes`, and clamp to the encoder's range [-1, 1]."""
        return (codes * _column_like(codes, self.std) + _column_like(codes, self.mean)).clamp(-1, 1)


def _column_like(x: Tensor, values: tuple[float, ...]) -> Tensor:
    # What is made while a program is exported has no values yet, so it is not for others.
    make = _column.__wrapped__ if torch.compiler.is_exporting() else _column
    return make(values, x.dtype, x.device)


@lru_cache(maxsize=16)  # every training step asks for the same two, and a copy to a GPU would make it wait
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(C, 1, 1)."""
    with torch.inference_mode(False):  # autograd takes no tensor that was made in inference, and both share this one
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
