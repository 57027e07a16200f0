"""Evenly spaced choices among many things, and equal shares of them."""

import numpy as np
from numpy.typing import NDArray


def spaced_rows(total: int, count: int) -> NDArray[np.int64]:
    """`count` sorted indices below `total`, each standing for an equal part; repeated where `count` is larger."""
    return np.arange(count) * total // count


def share_of(total: int, part: int, parts: int) -> range:
    """The consecutive indices below `total` that fall to one of about equal parts."""
    return range(total * part // parts, total * (part + 1) // parts)


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` of the indices below `total`, the first and the last among them."""
    return [int(index) for index in np.unique(np.linspace(0, max(0, total - 1), count).round())] if total else []
