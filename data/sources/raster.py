"""An image as its file holds it, and its way from there to RGB of 8 bits in sRGB over white."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.sources.colour import Misfit, to_srgb
from data.sources.kinds import Unreadable

MISFIT = "its colour profile does not fit and is ignored"
TRANSPARENT = "transparent in places, shown over white"


class Raster(NamedTuple):
    """Samples of an image, its opacity and its colour space."""

    samples: NDArray[Any]  # (H, W, 1 grey, 3 RGB or 4 CMYK), uint8 or uint16; with CMYK the maximum is all ink
    opacity: NDArray[np.float32] | None = None  # (H, W), from 0 to 1
    profile: bytes | None = None  # ICC


def to_rgb(raster: Raster, notes: list[str]) -> NDArray[np.uint8]:
    """(H, W, 3) in sRGB, blended with white where it is transparent."""
    try:
        colours = to_srgb(raster.samples, raster.profile)
    except Misfit:
        notes.append(MISFIT)
        colours = to_srgb(raster.samples, None)
    if raster.opacity is None or raster.opacity.min() == 1:
        return colours
    notes.append(TRANSPARENT)
    blended = np.empty(colours.shape, np.uint8)
    for channel in range(3):
        # 255 * (1 - opacity) + colour * opacity, as browsers blend: by samples, not by light
        blended[..., channel] = np.rint(255 - raster.opacity * (np.float32(255) - colours[..., channel]))
    return blended


def rescaled(samples: NDArray[Any], white: int, to: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """Unsigned samples from 0 to `white`, which is at most 65535, as uint8 or uint16 with its maximum for white."""
    top = np.iinfo(to).max
    if white == top:
        return samples.astype(to, copy=False)
    return ((samples.astype(np.uint32) * top + white // 2) // white).astype(to)


def stretched(samples: NDArray[Any], notes: list[str], to: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """Samples of a kind that has no usual white: floats, and integers that are signed or of more than 16 bits.

    If all lie in [0, 1], that is from black to white. Otherwise their finite minimum ... maximum is, which is noted.
    NaN becomes the minimum. Raises `Unreadable` if no sample is finite.
    """
    finite = samples[np.isfinite(samples)]
    if not finite.size:
        raise Unreadable("no pixel has a finite value")
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        notes.append(f"values {low:g} ... {high:g} stretched to 0 ... 255")
    top = np.iinfo(to).max
    scaled = np.empty(samples.shape, to)
    for channel in range(samples.shape[2]):  # one by one, since float64 takes much memory
        values = np.nan_to_num(samples[..., channel].astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled[..., channel] = np.rint(top * ((values - low) / max(high - low, 1e-30)))
    return scaled
