"""Pixel normalisation (Karras et al., "Progressive Growing of GANs", section 4.2)."""

import torch
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + 1e-8) at each position; (N, C, ...) -> the same shape, no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        # The root of 1e-8 is far below any usual activation, and keeps a vector of zeros at zero.
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
