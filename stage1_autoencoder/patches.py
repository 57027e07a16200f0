"""The linear path of our autoencoders at its start: a patch of colours as its lowest frequencies."""

import math

import torch
from torch import Tensor


def frequencies(factor: int, code_channels: int) -> list[tuple[int, int, int]]:
    """Return the initial meaning of each channel: its colour (0 is grey), and half-waves down and across a patch."""
    # Colour counts as two half-waves more: photographs have less detail in colour than in brightness.
    order = sorted(
        ((u + v + 2 * (c > 0), c, u, v) for c in range(3) for u in range(factor) for v in range(factor)),
    )
    return [channel[1:] for channel in order[:code_channels]]


def patch_basis(factor: int, code_channels: int) -> tuple[Tensor, Tensor]:
    """Return weights that analyse a colour patch into its lowest frequencies, and those that put it together again.

    Both are (code_channels, 3, f, f): products of cosines (the basis of the DCT) times grey, blue-yellow or red-green.
    They are orthogonal, so synthesis undoes analysis on what they span. Channels beyond 3 f^2 are zero.
    """
    position = (torch.arange(factor) + 0.5) * math.pi / factor
    # A cosine has half the mean square of a constant; the root of 2 gives all waves a mean square of 1.
    waves = torch.stack([torch.cos(position * k) * (1.0 if k == 0 else math.sqrt(2)) for k in range(factor)])
    colours = torch.tensor([[1.0, 1.0, 1.0], [-0.5, -0.5, 1.0], [1.0, -1.0, 0.0]])
    # Grey becomes (1, 1, 1) / 3, so that channel 0 is a patch's mean, in [-1, 1] as the pixels are.
    colours = colours / colours.norm(dim=1, keepdim=True) / math.sqrt(3)
    analysis, synthesis = torch.zeros(2, code_channels, 3, factor, factor)
    for channel, (c, u, v) in enumerate(frequencies(factor, code_channels)):
        wave = torch.einsum("c,i,j->cij", colours[c], waves[u], waves[v])
        # The sum of wave^2 is f^2 / 3, which these two factors undo when analysis is followed by synthesis.
        analysis[channel], synthesis[channel] = wave / factor**2, wave * 3
    return analysis, synthesis
