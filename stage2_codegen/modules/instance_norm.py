"""Instance normalisation (Ulyanov et al., "Instance normalization: the missing ingredient for fast stylization")."""

import torch
from torch import Tensor, nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d`, also with the right gradient for a single sample; (N, C, H, W) -> the same shape."""

    def forward(self, input: Tensor) -> Tensor:
        # On a CPU, torch 2.15 misreads the memory layout of a single sample's gradient that arrives in channels_last
        # order. With two samples it does not, and samples do not influence each other. Without a gradient `len` is not
        # asked for, since that would fix the number of samples of an exported program.
        if not input.requires_grad or len(input) > 1:
            return super().forward(input)
        return super().forward(torch.cat([input, input]))[:1]
