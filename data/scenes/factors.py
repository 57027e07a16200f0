"""Procedural lit scenes, the default data set: a few solids on a textured ground under a coloured sky.

A scene is its factors, drawn from documented distributions, so that what a generator has learnt can be compared with
what there was to learn: every factor of image `i` can be asked for again.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.scenes.geometry import FOCAL, SOLIDS
from data.scenes.rendering import GROUNDS, SKIES, Scene, SceneObject, render
from data.scenes.textures import GROUND_TEXTURES, TEXTURES
from data.seeds import SCENE, derive_seed

KINDS: tuple[str, ...] = tuple(SOLIDS)
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.16, 0.18),
    "orange": (0.98, 0.52, 0.10),
    "yellow": (0.98, 0.80, 0.14),
    "green": (0.18, 0.66, 0.30),
    "teal": (0.06, 0.62, 0.64),
    "blue": (0.14, 0.36, 0.88),
    "violet": (0.52, 0.24, 0.78),
    "pink": (0.96, 0.40, 0.62),
}
MAX_OBJECTS = 4


def scene(seed: int, index: int) -> Scene:
    """Draw the factors of scene `index`; a pure function of both arguments.

    Uniform and independent: the number of objects in 1 ... MAX_OBJECTS; kind, colour and texture of each, its turn
    in [0, pi / 2) and its height in [1.5, 2.5] radii (a sphere's is 2); sky, ground, ground texture and its turn in
    [0, pi); horizon in [0.36, 0.46]; ground cell in [0.5, 0.9]; sun elevation in [30, 55] degrees and azimuth in
    [40, 110] degrees to either side. Radii and positions are not independent, see `_place`.
    """
    rng = np.random.default_rng(derive_seed(seed, index, SCENE))
    pick = rng.integers
    count = int(pick(1, MAX_OBJECTS + 1))
    objects = tuple(_object(rng, *place) for place in _place(rng, count))
    return Scene(
        horizon=float(rng.uniform(0.36, 0.46)),
        sky=tuple(SKIES)[pick(len(SKIES))],
        ground=tuple(GROUNDS)[pick(len(GROUNDS))],
        ground_texture=GROUND_TEXTURES[pick(len(GROUND_TEXTURES))],
        ground_turn=float(rng.uniform(0, math.pi)),
        ground_cell=float(rng.uniform(0.5, 0.9)),
        sun_azimuth=math.radians(rng.uniform(40, 110)) * (1 if pick(2) else -1),
        sun_elevation=math.radians(rng.uniform(30, 55)),
        objects=objects,
    )


def _object(rng: np.random.Generator, x: float, depth: float, radius: float) -> SceneObject:
    kind = KINDS[rng.integers(len(KINDS))]
    return SceneObject(
        kind=kind,
        colour=tuple(COLOURS.values())[rng.integers(len(COLOURS))],
        texture=TEXTURES[rng.integers(len(TEXTURES))],
        x=x,
        depth=depth,
        radius=radius,
        height=radius * (2.0 if kind == "sphere" else float(rng.uniform(1.5, 2.5))),
        turn=float(rng.uniform(0, math.pi / 2)),
    )


def _place(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Axis and size (x, depth, radius) of each object, from left to right.

    Radius is uniform in [0.42, 0.60] times 1.12 - 0.12 * count, depth in [2.6, 4.4], u in the middle 60 % of the
    object's share of [0.08, 0.92]; drawn together again until no two solids touch and none can hide another.
    """
    i, j = np.triu_indices(count, 1)
    while True:
        radius = rng.uniform(0.42, 0.60, count) * (1.12 - 0.12 * count)
        depth = rng.uniform(2.6, 4.4, count)
        u = 0.08 + 0.84 * (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count
        x, wide = (u - 0.5) / FOCAL * depth, FOCAL * radius / depth
        apart = np.hypot(x[i] - x[j], depth[i] - depth[j]) > 1.25 * (radius[i] + radius[j])
        seen = np.abs(u[i] - u[j]) > 0.7 * (wide[i] + wide[j])
        if bool((apart & seen).all()):
            return list(zip(x.tolist(), depth.tolist(), radius.tolist(), strict=True))


class Scenes:
    """`count` scenes, reproducible one by one: image `i` depends on (seed, i, size) alone."""

    def __init__(self, count: int, size: int = 128, seed: int = 0) -> None:
        self.count, self.size, self.seed = count, size, seed

    def __len__(self) -> int:
        return self.count

    def factors(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        return scene(self.seed, index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(3, size, size)"""
        return render(self.factors(index), self.size)


def parse_scenes(spec: str) -> tuple[int, int]:
    """(count, size) of `scenes:N` or `scenes:N@SIZE`; raises `UsageError` for anything else."""
    match = re.fullmatch(r"scenes:([0-9]{1,9})(?:@([0-9]{1,9}))?", spec)
    count, size = (int(match[1]), int(match[2] or 128)) if match else (0, 0)
    if count < 1 or not 16 <= size <= 4096:
        raise UsageError(
            f"{spec}: is not a number of scenes",
            "write scenes:N or scenes:N@SIZE with N at least 1 and SIZE from 16 to 4096, for example scenes:2000@128",
        )
    return count, size
