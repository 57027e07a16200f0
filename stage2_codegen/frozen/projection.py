"""Fixed random mixing of a backbone's features (Sauer et al., "Projected GANs Converge Faster", section 3.2).

A critic on raw features attends to few of them; random projections spread their information over all channels. Mixing
across channels is a 1 x 1 convolution for each scale, mixing across scales carries coarse features into the finer maps.
Neither is ever trained.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.seeds import FEATURE_PROJECTIONS

CHANNELS = 64  # of every mixed map


class Mixing(nn.Module):
    """Maps of several scales, fine to coarse -> as many maps of `CHANNELS` channels, of the same sides."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        # A resumed run must have the same projections, which no checkpoint holds. Philox's raw words are the same in
        # all versions of NumPy, unlike its samplers' numbers.
        words = np.random.Philox(key=FEATURE_PROJECTIONS)
        self.across_channels = nn.ParameterList(_random(words, width, 1) for width in widths)
        self.across_scales = nn.ParameterList(_random(words, CHANNELS, 3) for _ in widths[1:])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        mixed = [F.conv2d(x, weight) for x, weight in zip(maps, self.across_channels, strict=True)]
        for level in reversed(range(len(mixed) - 1)):
            coarser = F.conv2d(mixed[level + 1], self.across_scales[level], padding=1)
            coarser = F.interpolate(coarser, mixed[level].shape[2:], mode="bilinear")
            mixed[level] = (mixed[level] + coarser) / math.sqrt(2)  # keeps the variance of two independent maps
        return tuple(mixed)


def _random(words: np.random.Philox, inputs: int, kernel: int) -> nn.Parameter:
    """U(-b, b) with the variance that keeps that of the input, (CHANNELS, inputs, kernel, kernel)."""
    fan_in = inputs * kernel**2
    uniform = (words.random_raw(CHANNELS * fan_in) >> np.uint64(11)) * 2.0**-53  # as many bits as a double holds
    weight = torch.from_numpy((2 * uniform - 1) * math.sqrt(3 / fan_in)).float()
    return nn.Parameter(weight.view(CHANNELS, inputs, kernel, kernel), requires_grad=False)
