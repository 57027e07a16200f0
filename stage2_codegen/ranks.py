"""Which of the processes that train together this is, and the rows that all of them hold."""

import torch
from torch import Tensor
from torch import distributed as dist


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def this_rank() -> int:
    """This process's number, 0 where it trains alone."""
    return 0 if _alone() else dist.get_rank()


def count_ranks() -> int:
    """How many processes train together, 1 where this one trains alone."""
    return 1 if _alone() else dist.get_world_size()


def rows_of_all_ranks(x: Tensor) -> Tensor:
    """The rows of every rank in their order, (N, ...) -> (ranks N, ...), without gradients; all hold equally many."""
    rows = x.detach()
    if count_ranks() == 1:
        return rows
    everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count_ranks())]
    dist.all_gather(everyone, rows.contiguous())
    return torch.cat(everyone)
