"""What a critic or a loss may use that nobody trains: frozen networks, the autoencoder, and the scale of the codes.

It is opened once, before a run has a folder. It lies outside parameters, optimisers, checkpoints and averages; a run
records the identity of its frozen networks instead, and a resumed one compares them.
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

CODE_FACTOR = 4  # of the stand-in for an autoencoder


class Frozen(NamedTuple):
    """A pretrained network, and the SHA-256 of the file that its weights came from."""

    network: nn.Module
    sha256: str


@dataclass(frozen=True)
class Context:
    """Everything besides its own weights that a critic or a loss may need."""

    autoencoder: Autoencoder
    scale: CodeScale
    std: Tensor  # (C,), deviation of each channel of the codes
    examples: Tensor  # (N, C, S, S), a few of the codes
    frozen: Mapping[str, Frozen] = field(default_factory=dict)

    @classmethod
    def stand_in(cls, code_shape: tuple[int, int, int], frozen: Mapping[str, Frozen]) -> Self:
        """For networks that are built without a store: codes are latents, decoded by an untrained autoencoder.

        Its linear path already decodes a code as the lowest frequencies of a patch; three channels are pixels.
        """
        channels = code_shape[0]
        pixels = channels == 3
        with torch.random.fork_rng(devices=[]):  # its initial weights would move the caller's random numbers
            autoencoder = Autoencoder.built_in(PIXELS) if pixels else Autoencoder(CODE_FACTOR, channels, width=8)
            examples = torch.rand(2, *code_shape) * 2 - 1
        scale = CodeScale((0.0,) * channels, (1.0,) * channels)
        context = cls(autoencoder.eval().requires_grad_(False), scale, torch.ones(channels), examples, frozen)
        return context.to(torch.get_default_device())

    def to(self, device: torch.device) -> Self:
        """Moved there, where its networks stay in place of those it was made of."""
        for network in (self.autoencoder, *(frozen.network for frozen in self.frozen.values())):
            network.to(device).to(memory_format=torch.channels_last)
        return replace(self, std=self.std.to(device), examples=self.examples.to(device))

    @cached_property
    def linear_decoder(self) -> LinearDecoder:
        """An approximation of the autoencoder's decoder, fitted to the examples."""
        return LinearDecoder(self.autoencoder, self.scale.to_latents(self.examples))

    @property
    def identities(self) -> dict[str, str]:
        """SHA-256 of each frozen network, by name."""
        return {name: frozen.sha256 for name, frozen in self.frozen.items()}
