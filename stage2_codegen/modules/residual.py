"""Residual block without normalisation (He et al., "Identity mappings in deep residual networks", figure 4 e).

It is initialised as in Zhang, Dauphin, Ma, "Fixup initialization", section 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


class ResidualBlock(nn.Module):
    """x + conv2(act(conv1(act(x)))); (N, C, H, W) -> the same shape, the identity until trained.

    `depth` is the number of such blocks in the network.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        # Plain 3 x 3 convolutions: grouped ones need several times the maps for the same arithmetic, and on small maps
        # memory traffic is the limit.
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv1.weight, SLOPE)
        # Without normalisation every branch would add to the variance. With the last layer at zero and the first scaled
        # by the number L of branches, a network of any depth starts as a well-conditioned shallow one.
        with torch.no_grad():
            self.conv1.weight *= depth**-0.5  # Fixup's L^(-1 / (2 m - 2)) for branches of m = 2 layers
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))
