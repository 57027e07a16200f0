"""The order in which samples are shown: a pure function of (seed, epoch) and of how a store is divided into shards.

It does not depend on the number of processes or the way a store is read, so training resumes anywhere and gives the
same on one rank as on many. A store of many shards is shuffled in windows: the shards are shuffled in every epoch and
taken a few at a time, and the rows of those few are shuffled together, so that only they need to be in memory.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.seeds import BALANCED_CLASSES, BALANCED_ROWS, ROW_ORDER, SHARD_ORDER, uniforms


class Window(NamedTuple):
    """A part of an epoch whose rows lie in a few shards."""

    start: int  # position of its first row in the endless sequence
    rows: NDArray[np.int64]  # in the order they are shown
    shards: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Position after its last row."""
        return self.start + len(self.rows)


@dataclass(frozen=True)
class SampleOrder:
    """The endless shuffled sequence of `num_items` rows; every epoch shows each row once.

    At most `window_shards` shards of `shard_rows` rows are shuffled as one.
    """

    num_items: int
    seed: int
    shard_rows: int
    window_shards: int = 32

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """Rows at positions start ... start + count - 1, (count,); they may span epochs."""
        parts = [np.empty(0, np.int64)]
        while count > 0:
            window = self.window(start)
            parts.append(window.rows[start - window.start :][:count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def shards(self, start: int, count: int) -> list[int]:
        """The shards of these positions, and those of the next window as far as they should be requested by then."""
        windows = [self.window(start)]
        while windows[-1].stop < start + count:
            windows.append(self.window(windows[-1].stop))
        done = (start + count - windows[-1].start) / len(windows[-1].rows)
        following = self.window(windows[-1].stop).shards
        due = following[: math.ceil(2 * done * len(following))]  # all of them by half of this window, spread evenly
        shards: list[int] = np.concatenate([*(window.shards for window in windows), due]).tolist()
        return shards

    def window(self, position: int) -> Window:
        """The window that holds a position."""
        epoch, offset = divmod(position, self.num_items)
        _, borders = _shards(self, epoch)
        return _window(self, epoch, int(np.searchsorted(borders, offset, side="right")) - 1)


class BalancedOrder:
    """An endless sequence in which every class is as frequent as any other: a class at random, then one of its rows.

    The draws are with replacement, and each is a function of (seed, position) alone.
    """

    def __init__(self, classes: NDArray[np.int64], seed: int, shard_rows: int) -> None:
        """`classes` (N,): the class of each row, 0 to K - 1, each of which has a row at least."""
        self.seed, self.shard_rows = seed, shard_rows
        self._sizes = np.bincount(classes)
        self._by_class = np.argsort(classes, kind="stable")
        self._firsts = np.cumsum(self._sizes) - self._sizes

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """Rows at positions start ... start + count - 1, (count,)."""
        chances = uniforms(self.seed, BALANCED_CLASSES, start, count), uniforms(self.seed, BALANCED_ROWS, start, count)
        classes = (chances[0] * len(self._sizes)).astype(np.int64)
        within = (chances[1] * self._sizes[classes]).astype(np.int64)
        return self._by_class[self._firsts[classes] + within]

    def shards(self, start: int, count: int) -> list[int]:
        """The shards of these positions."""
        shards: list[int] = np.unique(self.rows(start, count) // self.shard_rows).tolist()
        return shards


@lru_cache(maxsize=4)
def _shards(order: SampleOrder, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shards of an epoch in order, and the positions within it at which windows start."""
    shards = np.arange(-(-order.num_items // order.shard_rows))
    if len(shards) > order.window_shards:
        shards = np.random.default_rng([order.seed, epoch, SHARD_ORDER]).permutation(shards)
    sizes = np.minimum((shards + 1) * order.shard_rows, order.num_items) - shards * order.shard_rows
    return shards, (np.cumsum(sizes) - sizes)[:: order.window_shards]


@lru_cache(maxsize=4)
def _window(order: SampleOrder, epoch: int, index: int) -> Window:
    shards, borders = _shards(order, epoch)
    shards = shards[index * order.window_shards :][: order.window_shards]
    rows = (shards[:, None] * order.shard_rows + np.arange(order.shard_rows)).ravel()
    stream = SHARD_ORDER if len(borders) == 1 else ROW_ORDER + index
    rows = np.random.default_rng([order.seed, epoch, stream]).permutation(rows[rows < order.num_items])
    rows.setflags(write=False)
    return Window(epoch * order.num_items + int(borders[index]), rows, shards)
