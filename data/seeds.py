"""Randomness as a pure function of what it is for.

Nothing in training draws from a generator that carries state from step to step: the order of the samples, their crops
and all noise are functions of (seed, position). A resumed run, and a run on another number of processes, therefore
sees exactly what an uninterrupted one would have seen.
"""

import numpy as np
from numpy.typing import NDArray

_COINS = 0xC014  # the stream of `coins`, apart from those of updates


def derive_seed(seed: int, *position: int) -> int:
    """A 63-bit seed for one purpose at one position; distinct tuples of one length give independent seeds.

    Zeros at the end do not count: (s,) and (s, 0) give the same seed.
    """
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def coins(seed: int, start: int, count: int) -> NDArray[np.bool_]:
    """Fair coins for positions start ... start + count - 1, (count,), each a function of (seed, position) alone.

    Philox hashes a counter into four words (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so that
    no position needs those before it.
    """
    generator = np.random.Philox(key=derive_seed(seed, _COINS), counter=start // 4)
    words = generator.random_raw(start % 4 + count)[start % 4 :]
    return words & np.uint64(1) == 1
