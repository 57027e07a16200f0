"""Noise for a batch that is shared between ranks, and that each rank may compute in parts.

At every update, and again for each part, all ranks seed their generators with the same number. Each draws the rows of
the whole global batch and keeps its own, so a run sees the same noise with any number of processes and parts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from stage2_codegen.ranks import count_ranks, this_rank

_part, _parts = 0, 1
_shared = False


@contextmanager
def part_of_batch(part: int, parts: int) -> Iterator[None]:
    """Inside, rows are those of one of the equal parts into which this rank's share is divided."""
    global _part, _parts
    _part, _parts = part, parts
    try:
        yield
    finally:
        _part, _parts = 0, 1


_shared = False


@contextmanager
def shared_noise() -> Iterator[None]:
    """Inside, all rows of a batch have the same noise: that of a single sample."""
    global _shared
    _shared = True
    try:
        yield
    finally:
        _shared = False


def _local_rows(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    if _shared:
        one = draw(1)
        return one.expand(rows, *one.shape[1:])
    ranks = count_ranks()
    if ranks * _parts == 1:
        return draw(rows)
    start = (this_rank() * _parts + _part) * rows
    return draw(rows * ranks * _parts)[start : start + rows]


def normal_rows(rows: int, *shape: int, device: torch.device) -> Tensor:
    """Draw N(0, 1) for this rank's rows of the global batch, (rows, *shape)."""
    return _local_rows(lambda n: torch.randn(n, *shape, device=device), rows)


def uniform_rows(rows: int, *shape: int, device: torch.device) -> Tensor:
    """Draw U[0, 1) for this rank's rows of the global batch, (rows, *shape)."""
    return _local_rows(lambda n: torch.rand(n, *shape, device=device), rows)
