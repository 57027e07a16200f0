"""Noise for a batch that is shared between ranks.

At every step all ranks seed their generators alike. Each draws the rows of the whole global batch and keeps its own,
so a run sees the same noise on one process or on many.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist


def _local_rows(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return draw(rows)
    start = dist.get_rank() * rows
    return draw(rows * dist.get_world_size())[start : start + rows]


def normal_rows(rows: int, *shape: int, device: torch.device) -> Tensor:
    """N(0, 1), this rank's (rows, *shape) of the global batch."""
    return _local_rows(lambda n: torch.randn(n, *shape, device=device), rows)


def uniform_rows(rows: int, *shape: int, device: torch.device) -> Tensor:
    """U[0, 1), this rank's (rows, *shape) of the global batch."""
    return _local_rows(lambda n: torch.rand(n, *shape, device=device), rows)
