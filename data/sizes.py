"""Sizes of pictures in pixels: the side of a square, or height and width."""

import re
from typing import Annotated

from data.errors import UsageError
from data.limits import Limit

MAX_SIDE = 1 << 14  # pixels; a picture of this square takes 3 GB as the numbers of a network

type Size = int | tuple[int, int]  # (height, width) where these differ

_Side = Annotated[int, Limit(least=1, most=MAX_SIDE)]
type StoredSize = _Side | tuple[_Side, _Side]  # the shape of a size in JSON
type StoredShape = tuple[Annotated[int, Limit(least=1, most=1 << 12)], _Side, _Side]  # and that of latents: (C, H, W)


def parse_size(text: str) -> Size:
    """Parse "256", or "512x384", which is width x height; raises `UsageError` for anything else."""
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    width_height = [int(part) for part in match.groups() if part] if match else [0]
    if not 1 <= min(width_height) <= max(width_height) <= MAX_SIDE:
        fix = f"give a side of 1 to {MAX_SIDE} pixels, or width x height, as in --size 256 or --size 512x384"
        raise UsageError(f"--size {text}: is not a size", fix)
    return as_size(width_height[::-1])


def as_size(sides: "list[int] | tuple[int, ...] | int") -> Size:
    """The size of one side, or of height and width, as JSON may hold it."""
    if isinstance(sides, int):
        return sides
    height, width = sides[0], sides[-1]
    return height if height == width else (height, width)


def height_width(size: Size) -> tuple[int, int]:
    """Both sides."""
    return (size, size) if isinstance(size, int) else size


def size_text(size: Size) -> str:
    """The size as it is typed: "256", or width x height."""
    height, width = height_width(size)
    return str(height) if height == width else f"{width}x{height}"


def to_json_size(size: Size) -> int | list[int]:
    """A size for JSON: a number, or height and width."""
    return size if isinstance(size, int) else list(size)
