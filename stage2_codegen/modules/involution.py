"""Involution (Li et al., CVPR 2021; Tian et al., "GIU-GANs", eqs. 3 to 6)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError
from stage2_codegen.modules.batch_norm import BatchNorm2d


def involve(x: Tensor, kernel: Tensor) -> Tensor:
    """Apply every position's own kernel to its zero-padded neighbourhood (eq. 3).

    y[n, c, i, j] = sum over a, b of kernel[n, c // (C / G), a, b, i, j] x[n, c, i + a - K // 2, j + b - K // 2]

    x is (N, C, H, W) and y of the same shape; kernel is (N, G, K, K, H, W) with K odd.
    """
    groups, size = kernel.shape[1:3]
    height, width = x.shape[2:]
    dtype = torch.promote_types(x.dtype, kernel.dtype)
    padded = F.pad(x.to(dtype), [size // 2] * 4).unflatten(1, (groups, -1))  # (N, G, C / G, H + K - 1, W + K - 1)
    # The K^2 shifts are added up one by one: unfolding x would take K^2 times its memory, while autograd keeps no more
    # than a view of each shift.
    shifts = [padded[..., a : a + height, b : b + width] for a in range(size) for b in range(size)]
    taps = kernel.to(dtype).flatten(2, 3).unsqueeze(2).unbind(3)  # K^2 times (N, G, 1, H, W)
    y = taps[0] * shifts[0]
    for tap, shift in zip(taps[1:], shifts[1:], strict=True):
        y.addcmul_(tap, shift)
    return y.flatten(1, 2)


class Involution(nn.Module):
    """Convolution by kernels that each position makes from its own vector, and that groups of channels share.

    forward(x) maps x (N, C, H, W) to the same shape; forward(x, kernel_source=y) makes the kernels from y and applies
    them to x. Critics whose scores must not depend on the rest of the batch take it without `norm`. Raises `UsageError`
    for sizes that do not fit together.
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, group_channels: int = 16, reduction: int = 4, norm: bool = True
    ) -> None:
        super().__init__()
        _check(channels, kernel_size, group_channels, reduction)
        groups, hidden = channels // group_channels, max(channels // reduction, 1)
        self.kernel_shape = (groups, kernel_size, kernel_size)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=not norm)  # W_0; a norm would cancel its bias
        self.norm = BatchNorm2d(hidden) if norm else nn.Identity()
        self.expand = nn.Conv2d(hidden, math.prod(self.kernel_shape), 1)  # W_1; by group, then row, then column

    def forward(self, x: Tensor, kernel_source: Tensor | None = None) -> Tensor:
        source = x if kernel_source is None else kernel_source
        kernel = self.expand(F.relu(self.norm(self.reduce(source))))  # eq. 5; no softmax, so weights may be negative
        return involve(x, kernel.unflatten(1, self.kernel_shape))


def _check(channels: int, kernel_size: int, group_channels: int, reduction: int) -> None:
    if min(kernel_size, group_channels, reduction) < 1:
        raise UsageError("involution: kernel_size, group_channels and reduction must be positive", "give 1 or more")
    if kernel_size % 2 == 0:
        raise UsageError(f"involution: a kernel of side {kernel_size} has no middle", "use an odd side")
    if channels % group_channels:
        raise UsageError(
            f"involution of {channels} channels in groups of {group_channels}: has a remainder",
            f"use groups of a size that divides {channels}, such as {math.gcd(channels, group_channels)}, or a width "
            f"that is a multiple of {group_channels}",
        )
