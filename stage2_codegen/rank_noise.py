"""Noise for a batch that is shared between ranks, and that each rank may compute in parts.

At every update, and again for each part, all ranks seed their generators with the same number. Each draws the rows of
the whole global batch and keeps its own, so a run sees the same noise with any number of processes and parts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stage2_codegen.ranks import count_ranks, this_rank

Draw = Callable[[int], Tensor]  # a number of rows -> their noise

_part, _parts = 0, 1
_single: Callable[[Draw], Tensor] | None = None  # makes the noise that all rows share, (1, ...), where they share it


@contextmanager
def part_of_batch(part: int, parts: int) -> Iterator[None]:
    """Inside, rows are those of one of the equal parts into which this rank's share is divided."""
    global _part, _parts
    _part, _parts = part, parts
    try:
        yield
    finally:
        _part, _parts = 0, 1


@contextmanager
def _sharing(single: Callable[[Draw], Tensor]) -> Iterator[None]:
    global _single
    before, _single = _single, single
    try:
        yield
    finally:
        _single = before


@contextmanager
def shared_noise() -> Iterator[None]:
    """Inside, all rows of a batch have the same noise: that of a single sample."""
    with _sharing(lambda draw: draw(1)):
        yield


@contextmanager
def recorded_noise() -> Iterator[list[Tensor]]:
    """Inside, all rows of a batch have the same noise, and the list collects it, (1, ...) each, as it is drawn."""
    drawn: list[Tensor] = []

    def single(draw: Draw) -> Tensor:
        drawn.append(draw(1))
        return drawn[-1]

    with _sharing(single):
        yield drawn


@contextmanager
def given_noise(drawn: Sequence[Tensor]) -> Iterator[None]:
    """Inside, all rows of a batch have the noise that `recorded_noise` collected from the same calls."""
    noise = iter(drawn)
    with _sharing(lambda draw: next(noise)):
        yield


def _local_rows(draw: Draw, rows: int) -> Tensor:
    if _single:
        one = _single(draw)
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
