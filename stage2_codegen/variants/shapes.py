"""The maps between z and the codes: each has twice the sides of the one before."""

from typing import NamedTuple

BASE = 4  # side of the first map


def sides(size: int) -> list[int]:
    """Return 4, 8, ..., size."""
    return [BASE << level for level in range((size // BASE).bit_length())]


class Maps(NamedTuple):
    """The growth of maps to codes of H x W from a base of 4a x 4b, which is 4 x 4 for squares of a power of two.

    A map is named by the side that it would have if the base were 4 x 4, so the codes are the map of side `size`,
    whatever their shape.
    """

    channels: int  # of the codes
    size: int
    base: tuple[int, int]

    @classmethod
    def of(cls, code_shape: tuple[int, int, int]) -> "Maps":
        """Return the maps of codes (C, H, W), whose sides are multiples of 4."""
        channels, height, width = code_shape
        size = BASE * _powers_of_two(height // BASE, width // BASE)
        return cls(channels, size, (BASE * height // size, BASE * width // size))

    @property
    def stretch(self) -> int:
        """The power of two by which maps are larger than their names; to look up a map in a table, multiply by it."""
        return 1 << (min(self.base) // BASE).bit_length() - 1


def _powers_of_two(first: int, second: int) -> int:
    """Return the largest power of two that divides both."""
    both = first | second
    return both & -both
