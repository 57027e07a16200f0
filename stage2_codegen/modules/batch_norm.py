"""Batch normalisation whose training moments are those of the global batch (Ioffe and Szegedy, algorithm 1).

The layers replace torch's, and are exactly torch's on one process. When several processes share a batch, moments and
gradients are taken over all of them, so that a run does not depend on the number of ranks. Every rank must hold equally
many samples, as for `stage2_codegen.rank_noise`, and must call the layer when the others do.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from data.errors import UsageError
from stage2_codegen.fp32 import at_least_fp32
from stage2_codegen.ranks import count_ranks, this_rank


# Unlike `torch.nn.SyncBatchNorm` this works on the CPU, and can be differentiated twice, as a gradient penalty needs.
class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all ranks. Its gradient is a sum as well, since the losses of all ranks depend on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOverRanks.apply(grad.contiguous())


def _of_all_ranks(x: Tensor) -> Tensor:
    """Every rank's `x`, (ranks, *x.shape)."""
    # A sum of stacks that are zero outside each rank's own place, since only the sum has a gradient here.
    others = torch.zeros_like(x)
    return _SumOverRanks.apply(torch.stack([x if rank == this_rank() else others for rank in range(count_ranks())]))


def batch_moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, int]:
    """Return mean and biased variance over `dims` and all ranks, in fp32 at least, and how many values each is of."""
    variance, mean = torch.var_mean(at_least_fp32(x), dims, correction=0)
    count = x.numel() // mean.numel() * count_ranks()
    if count_ranks() > 1:
        # The parts are equal, so the variance is the mean of theirs plus the variance of their means. Sums of squares
        # would be simpler, but lose a small variance beside a large mean.
        means, variances = _of_all_ranks(torch.stack([mean, variance])).unbind(1)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
    return mean, variance, count


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Reshape values (C,) so that they broadcast over the channels of x (N, C, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """The code that the layers below share."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or count_ranks() == 1:
            return super().forward(input)  # torch's own kernel: faster, and bit for bit what one process computes
        return self.affine_map(self.standardise(input)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Also refuse a single value in each channel, which is its own mean and would always give 0."""
        super()._check_input_dim(input)
        if self.training and input.numel() * count_ranks() == input.shape[1]:
            raise UsageError(
                "batch norm: needs more than one value per channel", "give a larger --batch-size, or less --accumulate"
            )

    def affine_map(self, x: Tensor) -> Tensor:
        """Multiply each channel by its weight and add its bias, where the layer has them; same shape."""
        return x * per_channel(self.weight, x) + per_channel(self.bias, x) if self.affine else x

    def standardise(self, x: Tensor) -> Tensor:
        """Return (x - E) / sqrt(Var + eps), without the affine map, in fp32 at least.

        In training E and Var are those of the batch, and also enter the running estimates; in evaluation they are those
        estimates. Raises `UsageError` for a single value in each channel.
        """
        self._check_input_dim(x)
        mean, variance = self.running_mean, self.running_var
        if self.training or mean is None or variance is None:
            mean, variance, count = batch_moments(x, [0, *range(2, x.dim())])
            if self.training and self.track_running_stats:
                self._track(mean, variance * count / max(count - 1, 1))  # torch tracks the unbiased variance
        return (x - per_channel(mean, x)) * per_channel((variance + self.eps).rsqrt(), x)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over all ranks; (N, C) or (N, C, L) -> the same shape."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over all ranks; (N, C, H, W) -> the same shape."""
