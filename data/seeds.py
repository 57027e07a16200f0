"""Randomness as a pure function of what it is for, and the register of all its streams.

Nothing in training draws from a generator that carries state from step to step: the order of the samples, their crops
and all noise are functions of (seed, position). A resumed run, and a run on another number of processes, therefore
sees exactly what an uninterrupted one would have seen.

A stream is named by a tuple that starts with a seed and ends in one of the numbers below, which must differ under each
heading. A number in use never changes, since runs could then not resume as they were started. A zero at the end of a
tuple does not count: streams that end in 0 are the same one where the rest of their tuples is equal.
"""

import numpy as np
from numpy.typing import NDArray

# (seed of a run, _)
INITIAL_WEIGHTS = 0  # of the networks of either stage
MIRROR_COINS = 0xC014  # which latents are mirrored
BALANCED_CLASSES = 0xC1A5  # the class at each position where classes are shown equally often
BALANCED_ROWS = 0xC1A6  # and which of its rows

# (seed of a run, position of a sample, _): stage one
CROP = 0  # where an image is cropped, whether the crop is mirrored, and how its colours are changed
CODE_NOISE = 1  # what is added to the latents of a crop

# (seed of a run, images in the data set, _): stage one
HELD_OUT = 0  # which images are not trained on

# (seed of a run, images seen, _): stage two
UPDATES = 1  # all noise in the first update of the critic; each of its later ones, and then G's, takes the next number

# (seed of a run, epoch, _): stage two and, as if all images were one shard, stage one
SHARD_ORDER = 0  # and the order of the rows where one window holds all shards
ROW_ORDER = 1  # in the first window; each later one takes the next number

# (seed of an image, _): generated images
IMAGE_Z = 0
IMAGE_CLASS = 1  # of which class it is, where none is asked for
IMAGE_NOISE = 2  # what generators draw besides z

# (seed of a data set, index of an image, _): procedural scenes
SCENE = 0

# (seed of a score, _)
SCORED_IMAGES = 0  # which images of a larger set are scored
REAL_HALVES = 1  # how the real images are divided, for the score that no generator can beat
INTERVAL_HALVES = 2  # the subsets behind intervals
NEIGHBOUR_QUERIES = 3  # which images are looked up among the real ones
DRAWN_ORDER = 4  # of images that are taken at random from a source

# (step, _): training of the classifier of scenes
CLASSIFIER_BATCH = 0

# (_,): what is the same in all runs
INCEPTION_SPLITS = 0
OFFLINE_FEATURES = 0  # Philox: weights of the random network that scores work with offline
FEATURE_PROJECTIONS = 1  # Philox: weights of the projections before the critics of `projected`


def derive_seed(seed: int, *position: int) -> int:
    """A 63-bit seed for one purpose at one position; distinct tuples of one length give independent seeds."""
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def coins(seed: int, start: int, count: int) -> NDArray[np.bool_]:
    """Fair coins for positions start ... start + count - 1, (count,), each a function of (seed, position) alone."""
    return _words(seed, MIRROR_COINS, start, count) & np.uint64(1) == 1


def uniforms(seed: int, stream: int, start: int, count: int) -> NDArray[np.float64]:
    """U[0, 1) for positions start ... start + count - 1, (count,), functions of (seed, stream, position) alone."""
    return (_words(seed, stream, start, count) >> np.uint64(11)) / 2**53


def _words(seed: int, stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """64 random bits for each position, (count,).

    Philox hashes a counter into four words (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so that
    no position needs those before it.
    """
    generator = np.random.Philox(key=derive_seed(seed, stream), counter=start // 4)
    return generator.random_raw(start % 4 + count)[start % 4 :]
