"""Large pictures by parts: memory stays bounded, and what comes out is that of the whole picture, up to rounding."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.sizes import Size, height_width

WHOLE = 2048  # pixels of the longer side; pictures up to here are not divided
TILE = 1024  # pixels of a side of each part


def pictures_at_once(size: Size, count: int) -> int:
    """Return how many of `count` pictures go through a network together: large ones do so one by one."""
    return 1 if max(height_width(size)) > WHOLE else count


class Part(NamedTuple):
    """Rows or columns, counted in latents: those that a part gives, inside those that it is computed from."""

    given: slice
    seen: slice


def parts_of(count: int, side: int, reach: int) -> Iterator[Part]:
    """Divide `count` latents into parts of `side`, each seen with `reach` more at both ends where there are as many."""
    for start in range(0, count, side):
        stop = min(start + side, count)
        yield Part(slice(start, stop), slice(max(0, start - reach), min(count, stop + reach)))


def is_divided(network: nn.Module, x: Tensor, pixels: int) -> bool:
    """Return whether a picture of so many pixels a side is computed in tiles.

    Gradients of it, and a program that is traced, need the whole.
    """
    trains = x.requires_grad or any(parameter.requires_grad for parameter in network.parameters())
    return pixels > WHOLE and not torch.compiler.is_exporting() and not (torch.is_grad_enabled() and trains)


def in_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, factor: int, reach: int, inside: int, outside: int
) -> Tensor:
    """Apply a convolutional network to (N, C, H, W), tile by tile.

    A latent is `factor` pixels wide, `inside` entries of x and `outside` entries of the result. What the network makes
    of a latent must not depend on others more than `reach` away. At the sides of the picture tiles are padded as it is.
    """
    side = TILE // factor
    height, width = x.shape[-2] // inside, x.shape[-1] // inside
    whole: Tensor | None = None
    for rows in parts_of(height, side, reach):
        for columns in parts_of(width, side, reach):
            seen = x[..., _scaled(rows.seen, inside), _scaled(columns.seen, inside)]
            made = network(seen)[..., _within(rows, outside), _within(columns, outside)]
            if whole is None:
                whole = made.new_empty(*made.shape[:2], height * outside, width * outside)
            whole[..., _scaled(rows.given, outside), _scaled(columns.given, outside)] = made
    assert whole is not None
    return whole


def _scaled(part: slice, width: int) -> slice:
    return slice(part.start * width, part.stop * width)


def _within(part: Part, width: int) -> slice:
    """The given latents, counted from the first that is seen."""
    start = part.given.start - part.seen.start
    return slice(start * width, (start + part.given.stop - part.given.start) * width)
