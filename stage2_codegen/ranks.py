"""The processes that train together: their number, the number of this one, and the rows that all of them hold."""

import torch
from torch import Tensor
from torch import distributed as dist


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def this_rank() -> int:
    """Return the number of this process, 0 if it trains alone."""
    return 0 if _alone() else dist.get_rank()


def count_ranks() -> int:
    """Return the number of processes that train together, 1 if this one trains alone."""
    return 1 if _alone() else dist.get_world_size()


def rows_of_all_ranks(x: Tensor) -> Tensor:
    """Gather the rows of every rank in their order, (N, ...) -> (ranks N, ...), without gradients.

    All ranks must call it, with equally many rows.
    """
    rows = x.detach()
    if count_ranks() == 1:
        return rows
    everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count_ranks())]
    dist.all_gather(everyone, rows.contiguous())
    return torch.cat(everyone)
