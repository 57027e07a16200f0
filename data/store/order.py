"""The order in which samples are shown: a pure function of (seed, epoch) and of how a store is divided into shards.

It does not depend on the number of processes or the way a store is read, so training resumes anywhere and gives the
same on one rank as on many. A store of many shards is shuffled in windows: the shards are shuffled in every epoch and
taken a few at a time, and the rows of those few are shuffled together, so that only they need to be in memory.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.seeds import ROW_ORDER, SHARD_ORDER


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

    def window(self, position: int) -> Window:
        """The window that holds a position."""
        epoch, offset = divmod(position, self.num_items)
        _, borders = _shards(self, epoch)
        return _window(self, epoch, int(np.searchsorted(borders, offset, side="right")) - 1)


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
