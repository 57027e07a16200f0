"""Randomness as a pure function of what it is for.

Nothing in training draws from a generator that carries state from step to step: the order of the samples, their crops
and all noise are functions of (seed, position). A resumed run, and a run on another number of processes, therefore
sees exactly what an uninterrupted one would have seen.
"""

import numpy as np


def derive_seed(seed: int, *position: int) -> int:
    """A 63-bit seed for one purpose at one position; distinct tuples of one length give independent seeds.

    Zeros at the end do not count: (s,) and (s, 0) give the same seed.
    """
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))
