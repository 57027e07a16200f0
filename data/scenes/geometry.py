"""Closed-form geometry of a scene's solids: where a ray meets one, its surface, the outline of its shadow.

Camera, world and image units are those of `rendering`. Points handed to `surface` and `shadow` are relative to the
foot of the solid's vertical axis.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating]  # float32 throughout
type Faces = NDArray[np.int16]
type Vector = tuple[Floats, Floats, Floats]
type Slide = tuple[float, float]

FOCAL = 1.2  # focal length in sides of the image
FAR = np.float32(1e9)  # stands for "missed": finite, so that no arithmetic on it warns


@dataclass(frozen=True)
class SceneObject:
    """A solid on the ground; lengths in camera heights."""

    kind: str  # key of SOLIDS
    colour: tuple[float, float, float]  # red, green, blue in [0, 1]
    texture: str  # one of data.scenes.textures.TEXTURES
    x: float  # of the vertical axis, to the right
    depth: float  # of the vertical axis, from the camera
    radius: float  # about half the width
    height: float  # 2 * radius for spheres
    turn: float  # about the vertical axis, radians; shows in boxes and pyramids only


class Solid(Protocol):
    def __init__(self, thing: SceneObject, slide: Slide) -> None:
        """`slide` is how far (x, z) the sun throws the shadow of a point of height 1."""

    def trace(self, dx: Floats, dy: Floats) -> tuple[Floats, Faces]:
        """Depth at which the rays (dx, dy, 1) first meet the solid, FAR for a miss, and which face."""

    def surface(self, x: Floats, y: Floats, z: Floats, face: Faces) -> tuple[Vector, Floats, Floats]:
        """Unit normals at points of the surface, and two texture coordinates in world units."""

    def shadow(self, x: Floats, z: Floats) -> Floats:
        """Signed distance of points of the ground to the outline of the cast shadow, negative inside."""


class Sphere:
    def __init__(self, thing: SceneObject, slide: Slide) -> None:
        self.x, self.depth, self.radius, self.slide = thing.x, thing.depth, thing.radius, slide

    def trace(self, dx: Floats, dy: Floats) -> tuple[Floats, Faces]:
        up = self.radius - 1
        a, b = dx * dx + dy * dy + 1, dx * self.x + dy * up + self.depth
        root = b * b - a * (self.x**2 + up**2 + self.depth**2 - self.radius**2)
        t = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, FAR)
        return t, np.zeros(t.shape, np.int16)

    def surface(self, x: Floats, y: Floats, z: Floats, face: Faces) -> tuple[Vector, Floats, Floats]:
        nx, ny, nz = x / self.radius, np.clip(y / self.radius - 1, -1, 1), z / self.radius
        return (nx, ny, nz), self.radius * np.arctan2(nx, -nz), self.radius * np.arcsin(ny)

    def shadow(self, x: Floats, z: Floats) -> Floats:
        sx, sz = self.slide
        norm = 1 / math.sqrt(sx * sx + sz * sz + 1)
        along = (-sx * x - sz * z - self.radius) * norm  # towards the sun, from the centre
        return np.sqrt(np.maximum(x * x + z * z + self.radius**2 - along * along, 0)) - self.radius


class Round:
    """A cylinder (`taper` 0) or a cone (`taper` 1)."""

    taper = 0.0

    def __init__(self, thing: SceneObject, slide: Slide) -> None:
        self.x, self.depth, self.radius, self.height = thing.x, thing.depth, thing.radius, thing.height
        self.slope, self.slide = self.taper * thing.radius / thing.height, slide

    def trace(self, dx: Floats, dy: Floats) -> tuple[Floats, Faces]:
        k = self.slope
        reach = self.radius - k  # radius of the (extended) solid at the height of the camera
        a, b = dx * dx + 1 - (k * k) * dy * dy, dx * self.x + self.depth - (k * reach) * dy
        root = b * b - a * (self.x**2 + self.depth**2 - reach**2)
        t = (b - np.sqrt(np.maximum(root, 0))) / a
        y = 1 + t * dy
        t = np.where((root > 0) & (y >= 0) & (y <= self.height), t, FAR)
        lid = (self.height - 1) / np.minimum(dy, -1e-6)  # seen from above only
        on_lid = (lid > 0) & (np.hypot(lid * dx - self.x, lid - self.depth) < self.radius * (1 - self.taper))
        return np.where(on_lid, lid, t), on_lid.astype(np.int16)

    def surface(self, x: Floats, y: Floats, z: Floats, face: Faces) -> tuple[Vector, Floats, Floats]:
        lid, norm = face == 1, 1 / math.sqrt(1 + self.slope**2)
        out = norm / np.maximum(np.hypot(x, z), 1e-6)
        normal = (
            np.where(lid, 0, x * out),
            np.where(lid, np.float32(1), np.float32(self.slope * norm)),
            np.where(lid, 0, z * out),
        )
        return normal, np.where(lid, x, self.radius * np.arctan2(x, -z)), np.where(lid, z, y)

    def shadow(self, x: Floats, z: Floats) -> Floats:
        """The hull of the base and of the top, slid: two discs and their common tangents."""
        length = self.height * math.hypot(*self.slide)
        ex, ez = (s * self.height / length for s in self.slide)
        top = self.radius * (1 - self.taper)
        sin = min((self.radius - top) / length, 1.0)
        cos = math.sqrt(1 - sin * sin)
        along, across = x * ex + z * ez, np.abs(x * ez - z * ex)
        tangent = along * cos - across * sin
        side = across * cos + along * sin - self.radius
        tip = np.hypot(along - length, across) - top
        return np.where(tangent < 0, np.hypot(x, z) - self.radius, np.where(tangent > length * cos, tip, side))


class Cone(Round):
    taper = 1.0


class Faceted:
    """A box (`taper` 0) or a pyramid (`taper` 1) on a square base whose sides are 1.7 radii long."""

    taper = 0.0

    def __init__(self, thing: SceneObject, slide: Slide) -> None:
        self.x, self.depth = thing.x, thing.depth
        half = 0.85 * thing.radius
        corner = np.arange(4) * (math.pi / 2) + thing.turn
        tilt = math.atan2(self.taper * half, thing.height)
        sides = np.stack([np.cos(corner), np.full(4, math.tan(tilt)), np.sin(corner)], axis=1) * math.cos(tilt)
        self.normals = np.concatenate([sides, [[0, 1, 0]]]).astype(np.float32)
        self.offsets = np.array([half * math.cos(tilt)] * 4 + [thing.height], np.float32)
        base = half * math.sqrt(2) * np.stack([np.cos(corner + math.pi / 4), np.sin(corner + math.pi / 4)], axis=1)
        top = (1 - self.taper) * base + thing.height * np.array(slide)
        self.outline = _hull(np.concatenate([base, top]))

    def trace(self, dx: Floats, dy: Floats) -> tuple[Floats, Faces]:
        enter, leave = np.zeros_like(dx), np.full_like(dx, FAR)
        face = np.zeros(dx.shape, np.int16)
        for k, ((nx, ny, nz), offset) in enumerate(zip(self.normals, self.offsets, strict=True)):
            speed = nx * dx + ny * dy + nz
            speed = np.where(np.abs(speed) < 1e-7, np.float32(1e-7), speed)
            t = (offset + nx * self.x - ny + nz * self.depth) / speed
            inward = speed < 0
            later = inward & (t > enter)
            enter, face = np.where(later, t, enter), np.where(later, np.int16(k), face)
            leave = np.where(inward, leave, np.minimum(leave, t))
        return np.where((enter < leave) & (1 + enter * dy >= 0), enter, FAR), face

    def surface(self, x: Floats, y: Floats, z: Floats, face: Faces) -> tuple[Vector, Floats, Floats]:
        nx, ny, nz = self.normals[face].T
        ax, az = self.normals[0, 0], self.normals[0, 2]
        norm = 1 / np.hypot(ax, az)
        first, second = (x * ax + z * az) * norm, (z * ax - x * az) * norm  # along the two pairs of sides
        lid = face == 4
        return (nx, ny, nz), np.where(lid | (face % 2 == 1), first, second), np.where(lid, second, y)

    def shadow(self, x: Floats, z: Floats) -> Floats:
        nx, nz, offset = (column[:, None] for column in self.outline.T)
        return np.max(nx * x + nz * z - offset, axis=0)


class Pyramid(Faceted):
    taper = 1.0


def _hull(points: NDArray[np.float64]) -> Floats:
    """Half-planes n . p <= offset around points (n, 2), one row (n_x, n_z, offset) per pair on the hull."""
    step = points[None] - points[:, None]
    length = np.hypot(step[..., 0], step[..., 1])
    normal = np.stack([step[..., 1], -step[..., 0]], axis=-1) / np.maximum(length, 1e-9)[..., None]
    offset = (normal * points[:, None]).sum(axis=-1)
    outermost = (normal @ points.T).max(axis=-1) <= offset + 1e-9
    keep = outermost & (length > 1e-6)
    return np.concatenate([normal[keep], offset[keep, None]], axis=1).astype(np.float32)


SOLIDS: dict[str, type[Solid]] = {
    "sphere": Sphere,
    "cylinder": Round,
    "cone": Cone,
    "box": Faceted,
    "pyramid": Pyramid,
}
