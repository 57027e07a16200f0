"""Differentiable augmentation of what the critic sees, by the same policy for real and fake codes.

Color, translation and cutout are those of Zhao et al., "Differentiable augmentation for data-efficient GAN training".
Colour has a meaning only where the three channels are pixels; for codes `jitter` takes its place. Every sample has
random numbers of its own, and the output has the shape and type of the input.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from data.errors import UsageError
from stage2_codegen.rank_noise import uniform_rows

# What a critic judges: codes, several scales of them from coarse to fine, or what a view makes of them.
Judged = Tensor | tuple[Tensor, ...]


def _uniform(codes: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    """U[low, high), (N, channels, 1, 1)."""
    return (low + (high - low) * uniform_rows(len(codes), channels, 1, 1, device=codes.device)).to(codes.dtype)


def _integers(codes: Tensor, count: int) -> Tensor:
    """Uniform among 0, ..., count - 1, (N, 1)."""
    # A product with a number just below 1 may round up to `count` itself.
    return (count * uniform_rows(len(codes), 1, device=codes.device)).long().clamp(max=count - 1)


def color(images: Tensor) -> Tensor:
    """Change brightness by U(-0.5, 0.5), saturation around each pixel's mean, and contrast around the image's.

    `images` is (N, 3, H, W) in [-1, 1].
    """
    images = images + _uniform(images, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * _uniform(images, 0, 2)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * _uniform(images, 0.5, 1.5)


def translation(codes: Tensor) -> Tensor:
    """Shift codes (N, C, H, W) by whole cells, up to an eighth of each side, and fill up with zeros."""
    height, width = codes.shape[2:]
    most_y, most_x = round(height / 8), round(width / 8)
    # One gather from padded maps shifts every sample by its own distance, and is differentiable twice.
    padded = F.pad(codes, (most_x, most_x, most_y, most_y))
    rows = _integers(codes, 2 * most_y + 1) + torch.arange(height, device=codes.device)  # (N, H), into the padded map
    columns = _integers(codes, 2 * most_x + 1) + torch.arange(width, device=codes.device)  # (N, W)
    cells = rows[:, :, None] * padded.shape[3] + columns[:, None]  # (N, H, W)
    cells = cells.flatten(1)[:, None].expand(-1, codes.shape[1], -1)  # (N, C, H W)
    return padded.flatten(2).gather(2, cells).unflatten(2, (height, width))


def cutout(codes: Tensor) -> Tensor:
    """Set a box of half the height and width to zero, centred anywhere on the map and clipped at its borders."""
    inside = [_interval(codes, side) for side in codes.shape[2:]]
    return codes.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0)


def _interval(codes: Tensor, side: int) -> Tensor:
    """Whether each cell lies in an interval of half the side with a random centre, (N, side)."""
    length = side // 2
    start = _integers(codes, side + 1 - length % 2) - length // 2  # an even length is centred between two cells
    cells = torch.arange(side, device=codes.device)
    return (start <= cells) & (cells < start + length)


def jitter(codes: Tensor, std: Tensor) -> Tensor:
    """Return x (1 + 0.2 u) + 0.2 std v with u, v ~ U(-1, 1) for every sample and channel; std (C,) is the codes'."""
    # In place of color: codes have no brightness or saturation, but a gain and an offset along each channel.
    channels = codes.shape[1]
    gain = 1 + 0.2 * _uniform(codes, -1, 1, channels)
    return codes * gain + 0.2 * std.to(codes)[:, None, None] * _uniform(codes, -1, 1, channels)


def augmentation(policy: str, std: Tensor) -> Callable[[Judged], Judged]:
    """Make the function that augments codes (N, C, S, S), or several scales of them, each with its own numbers.

    `policy` names operations in order, separated by commas; empty is the identity. `std` (C,) is the deviation of each
    channel of the codes. Raises `UsageError` for an unknown name, and for color where codes are not RGB.
    """
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "color": color,
        "translation": translation,
        "cutout": cutout,
        "jitter": partial(jitter, std=std),
    }
    names = [name.strip() for name in policy.split(",")] if policy.strip() else []
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"augment {policy}: does not know {', '.join(unknown)}", f"choose among {', '.join(known)}")
    if "color" in names and len(std) != 3:
        raise UsageError(f"augment {policy}: color needs 3 channels, codes have {len(std)}", "use jitter instead")

    def augment(judged: Judged) -> Judged:
        if isinstance(judged, tuple):
            return tuple(_apply(codes) for codes in judged)
        return _apply(judged)

    def _apply(codes: Tensor) -> Tensor:
        for name in names:
            codes = known[name](codes)
        return codes

    return augment if names else lambda judged: judged
