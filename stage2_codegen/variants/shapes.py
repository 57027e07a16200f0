"""The sides of the maps between z and the codes."""

BASE = 4  # side of the first map


def sides(size: int) -> list[int]:
    """Return 4, 8, ..., size."""
    return [BASE << level for level in range((size // BASE).bit_length())]
