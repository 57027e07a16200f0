"""Convolutions whose kernel is as large as the whole map, computed as the matrix products that they are.

Their parameters are those of the convolutions. On a CPU these spend most of their time in copying the weight into a
layout that would only pay for many positions.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class VectorToMap(nn.ConvTranspose2d):
    """A transposed convolution that is only given a single position; (N, C, 1, 1) -> (N, C', *kernel_size)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (C, h w C'), which is how channels-last memory has it
        maps = F.linear(input.flatten(1), weight.T).unflatten(1, (*self.kernel_size, -1))
        return (maps if self.bias is None else maps + self.bias).permute(0, 3, 1, 2)


class MapToVector(nn.Conv2d):
    """A convolution that is only given maps of its kernel's size; (N, C, *kernel_size) -> (N, C', 1, 1)."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (C', h w C), which is how channels-last memory has it
        return F.linear(input.permute(0, 2, 3, 1).flatten(1), weight, self.bias)[:, :, None, None]
