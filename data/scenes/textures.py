"""Two-tone textures for `rendering`: the share of the second tone in [0, 1], averaged over each ray's footprint.

The average over a pixel, and not the value at its centre, keeps distant tiles from aliasing and makes an image agree
with its own reduction.
"""

import math

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating]  # float32 throughout

TEXTURES = ("plain", "bands", "stripes", "checker", "dots")
GROUND_TEXTURES = ("plain", "checker", "stripes", "ripples")


def object_texture(name: str, a: Floats, b: Floats, width: Floats) -> Floats:
    """`name` of TEXTURES at coordinates in cells, b upwards."""
    match name:
        case "bands":
            return 0.5 + 0.5 * square_wave(b, width)
        case "stripes":
            return 0.5 + 0.5 * square_wave(a, width)
        case "checker":
            return 0.5 + 0.5 * square_wave(a, width) * square_wave(b, width)
        case "dots":
            off = np.hypot(a - np.floor(a) - 0.5, b - np.floor(b) - 0.5)
            return np.clip((0.3 - off) / np.maximum(width, 1e-3) + 0.5, 0, 1)
        case _:
            return np.zeros_like(a)


def ground_texture(name: str, turn: float, cell: float, x: Floats, z: Floats, angle: float) -> Floats:
    """`name` of GROUND_TEXTURES at ground points seen by rays `angle` apart from a camera of height 1 above (0, 0)."""
    cos, sin = math.cos(turn) / cell, math.sin(turn) / cell
    a, b = x * cos + z * sin, z * cos - x * sin
    wide, deep = z * angle, z * z * angle
    wide_a, wide_b = wide * abs(cos) + deep * abs(sin), wide * abs(sin) + deep * abs(cos)
    match name:
        case "checker":
            return 0.5 + 0.5 * square_wave(a, wide_a) * square_wave(b, wide_b)
        case "stripes":
            return 0.5 + 0.5 * square_wave(a, wide_a)
        case "ripples":
            wave = np.sin(2.1 * a + 1.2 * np.sin(1.3 * b)) + 0.6 * np.sin(3.7 * b + 1.5 * np.sin(1.9 * a))
            return 0.5 + 0.3 * wave * np.exp(-((wide_a + wide_b) ** 2))
        case _:
            return np.full_like(x, 0.25)


def square_wave(x: Floats, width: Floats) -> Floats:
    """+1 on [0, 1), -1 on [1, 2) and so on, averaged over `width` around x: a difference of its integral."""
    width = np.maximum(width, 1e-3)
    return (_triangle(x + width / 2) - _triangle(x - width / 2)) / width


def _triangle(x: Floats) -> Floats:
    return 1 - np.abs(x - 2 * np.floor(x / 2) - 1)
