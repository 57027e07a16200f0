"""Warnings about data that is read, but is unlikely to train a generator well; they come before the hours of work."""

from collections.abc import Iterable

import numpy as np

from data.console import warn
from data.images import ImageSet
from data.limits import FEW_IMAGES
from data.sizes import Size, height_width, size_text
from data.sources.raster import TRANSPARENT

MAX_ENLARGEMENT = 2.0


def warn_of_unsuitable(images: ImageSet, sizes: Iterable[Size]) -> None:
    """Warn of a set of few images, of transparent ones, and of those that the largest of `sizes` enlarges more than
    twice.
    """
    if len(images) < FEW_IMAGES:
        warn(f"{images.name}: holds only {len(images)} images, which most generators memorise", "add more images")
    transparent = sum(TRANSPARENT in note for note in images.notes.values())
    if transparent:
        what = f"{transparent} of {len(images)} images are transparent in places, where they are shown over white"
        warn(what, "put them on the background that samples should have")
    height, width = max(map(height_width, sizes), key=lambda sides: sides[0] * sides[1])
    enlargement = (np.array([height, width]) / images.sizes).max(axis=1)  # to cover both sides
    enlarged = int((enlargement > MAX_ENLARGEMENT).sum())
    if enlarged and images.draw is None:  # what is drawn is as sharp at every size
        warn(
            f"{enlarged} of {len(images)} images will be enlarged more than twice, up to {enlargement.max():.3g} times",
            f"choose a --size below {size_text((height, width))}, or leave small images out",
        )
