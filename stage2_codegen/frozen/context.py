"""The untrained surroundings of a critic or a loss: frozen networks, the autoencoder, and the scale of the codes.

They are opened once, before a run has a folder. They are not part of parameters, optimisers, checkpoints or averages; a
run records the identity of its frozen networks instead, and a resumed run compares it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from stage1_autoencoder.networks import PIXELS, Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.frozen.linear_decoder import LinearDecoder

CODE_FACTOR = 4  # pixels per side for each code, of the autoencoder that stands in for a store's


class Frozen(NamedTuple):
    """A pretrained network, and the SHA-256 of the file that its weights came from."""

    network: nn.Module
    sha256: str


@dataclass(frozen=True)
class Context:
    """Everything that a critic or a loss may need besides its own weights."""

    autoencoder: Autoencoder
    scale: CodeScale
    std: Tensor  # (C,), deviation of each channel of the codes
    examples: Tensor  # (N, C, S, S), some of the codes
    frozen: Mapping[str, Frozen] = field(default_factory=dict)

    @classmethod
    def stand_in(cls, code_shape: tuple[int, int, int], frozen: Mapping[str, Frozen]) -> Self:
        """Make a context for networks that are built without a store, for codes of `code_shape` (C, S, S).

        Codes are then latents, decoded by an untrained autoencoder, or pixels where they have three channels.
        """
        channels = code_shape[0]
        pixels = channels == 3
        with torch.random.fork_rng(devices=[]):  # its initial weights would move the caller's random numbers
            # Untrained will do: its linear path already decodes a code as the lowest frequencies of a patch.
            autoencoder = Autoencoder.built_in(PIXELS) if pixels else Autoencoder(CODE_FACTOR, channels, width=8)
            examples = torch.rand(2, *code_shape) * 2 - 1
        scale = CodeScale((0.0,) * channels, (1.0,) * channels)
        context = cls(autoencoder.eval().requires_grad_(False), scale, torch.ones(channels), examples, frozen)
        return context.to(torch.get_default_device())

    def to(self, device: torch.device) -> Self:
        """Return the context on a device; the networks themselves move there."""
        for network in (self.autoencoder, *(frozen.network for frozen in self.frozen.values())):
            network.to(device).to(memory_format=torch.channels_last)
        return replace(self, std=self.std.to(device), examples=self.examples.to(device))

    @cached_property
    def linear_decoder(self) -> LinearDecoder:
        """A linear approximation of the autoencoder's decoder, fitted to the examples."""
        return LinearDecoder(self.autoencoder, self.scale.to_latents(self.examples))

    @property
    def identities(self) -> dict[str, str]:
        """SHA-256 of each frozen network, by name."""
        return {name: frozen.sha256 for name, frozen in self.frozen.items()}
