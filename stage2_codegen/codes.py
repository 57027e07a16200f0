"""Latents as stored <-> codes as the GAN sees them; one object owns both directions."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from data.latents import LatentStore

EXAMPLES, PLACES = 8, 2**14  # at the least: codes, and places in all of them


@dataclass(frozen=True)
class CodeScale:
    """codes = (latents - mean) / std, one mean and deviation a channel.

    It travels with the generator's weights: the same numbers must undo what they did.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, store: LatentStore, standardise: bool) -> Self:
        """The store's statistics, or the identity (the encoder's tanh range, what the acceleration paper trains on)."""
        channels = store.code_shape[0]
        if not standardise:
            return cls((0.0,) * channels, (1.0,) * channels)
        return cls(tuple(store.mean.tolist()), tuple(max(std, 1e-6) for std in store.std.tolist()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(tuple(value["mean"]), tuple(value["std"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def std_of_codes(self, store: LatentStore) -> Tensor:
        """Deviation of each channel of the codes, (C,)."""
        return torch.from_numpy(store.std).float() / torch.tensor(self.std)

    def examples(self, store: LatentStore) -> Tensor:
        """Some codes of the store, evenly spaced, (N, C, S, S)."""
        count = max(EXAMPLES, PLACES // store.code_shape[1] ** 2)
        return self.to_codes(torch.from_numpy(store.read_spaced(count)))

    def to_codes(self, latents: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return (latents - _column_like(latents, self.mean)) / _column_like(latents, self.std)

    def to_latents(self, codes: Tensor) -> Tensor:
        """Inverse of `to_codes`, clamped to the encoder's range [-1, 1]."""
        return (codes * _column_like(codes, self.std) + _column_like(codes, self.mean)).clamp(-1, 1)


def _column_like(x: Tensor, values: tuple[float, ...]) -> Tensor:
    return _column(values, x.dtype, x.device)


@lru_cache(maxsize=16)  # every training step asks for the same two, and a copy to a GPU would make it wait
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(C, 1, 1)."""
    with torch.inference_mode(False):  # autograd takes no tensor that was made in inference, and both share this one
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
