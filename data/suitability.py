"""Warnings about data that is read, but is unlikely to train a generator well; they come before the hours of work."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data.console import warn
from data.drawn import is_drawn
from data.images import ImageSet
from data.limits import FEW_IMAGES
from data.sizes import Size, height_width, size_text
from data.sources.locations import scheme_of
from data.sources.raster import TRANSPARENT

MAX_ENLARGEMENT = 2.0
_USUAL_SIZE, _USUAL_SKIP = 256, 0.01  # what encoding does where it is told nothing


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


def warn_of_drawn(data: Iterable[str]) -> None:
    """Warn of data that codegan drew itself: whoever learns from it takes its faults for real."""
    for text in data:
        if scheme_of(text) is None and is_drawn(Path(text)):
            warn(f"{text}: holds samples that codegan drew", "pictures of your own, unless that is what you mean")


def facts_for_encoding(images: ImageSet, smallest: int = 64) -> dict[str, Any]:
    """What an `Action.ENCODE` has to say of a set, since the defaults do not suit it.

    `size`, in pixels, where most images are small: half of the usual one, or a quarter and so on, down to `smallest`.
    `max_skip`, where more files cannot be read than are usually left out.
    """
    facts: dict[str, Any] = {}
    shorter, size = float(np.median(images.sizes.min(axis=1))), _USUAL_SIZE
    while size > 1.25 * shorter and size // 2 >= smallest:
        size //= 2
    if size != _USUAL_SIZE:
        facts["size"] = size
    unreadable = len(images.skipped) / (len(images.skipped) + len(images))
    if unreadable > _USUAL_SKIP:
        facts["max_skip"] = math.ceil(100 * unreadable) / 100
    return facts
