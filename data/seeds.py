"""Randomness as a pure function of what it is for.

Nothing in training draws from a generator that carries state from step to step: the order of the samples, their crops
and all noise are functions of (seed, position). A resumed run, and a run on another number of processes, therefore
sees exactly what an uninterrupted one would have seen.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def derive_seed(seed: int, *position: int) -> int:
    """A 63-bit seed for one purpose at one position; distinct tuples of one length give independent seeds.

    Zeros at the end do not count: (s,) and (s, 0) give the same seed.
    """
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def epoch_order(num_items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of all items in one epoch, (num_items,)."""
    order = np.random.default_rng([seed, epoch]).permutation(num_items)
    order.setflags(write=False)
    return order


def batch_indices(num_items: int, seed: int, start: int, count: int) -> NDArray[np.int64]:
    """Items at positions start ... start + count - 1 of the endless shuffled sequence, (count,).

    Every epoch shows each item once; a batch may span two epochs.
    """
    positions = np.arange(start, start + count)
    epochs, offsets = positions // num_items, positions % num_items
    return np.array([epoch_order(num_items, seed, int(e))[o] for e, o in zip(epochs, offsets, strict=True)], np.int64)
