"""Images of lit scenes: one ray per pixel in closed form, and sixteen where two surfaces meet.

World units are camera heights: the camera stands at (0, 1, 0), looks along +z without pitch, and the ground is y = 0.
Image units are sides of the square image, u to the right and v down; the ray through (u, v) has the direction
((u - 1/2) / FOCAL, (horizon - v) / FOCAL, 1), so a ray's parameter is its depth. Textures are averaged over each
ray's footprint and shadows are soft, hence the same scene looks the same at every size.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.scenes.geometry import FAR, FOCAL, SOLIDS, SceneObject, Solid
from data.scenes.textures import ground_texture, object_texture

type Colour = tuple[float, float, float]
type Floats = NDArray[np.floating]  # float32 throughout

SKIES: dict[str, tuple[Colour, Colour, Colour]] = {  # zenith, horizon, sunlight
    "day": ((0.20, 0.50, 0.92), (0.82, 0.93, 1.00), (1.00, 0.97, 0.90)),
    "dawn": ((0.42, 0.52, 0.88), (1.00, 0.82, 0.72), (1.00, 0.90, 0.80)),
    "sunset": ((0.34, 0.26, 0.58), (1.00, 0.62, 0.36), (1.00, 0.82, 0.62)),
    "mint": ((0.10, 0.62, 0.64), (0.86, 0.98, 0.88), (1.00, 0.98, 0.90)),
    "rose": ((0.70, 0.42, 0.74), (1.00, 0.86, 0.88), (1.00, 0.92, 0.90)),
    "dusk": ((0.08, 0.12, 0.38), (0.56, 0.54, 0.86), (0.86, 0.88, 1.00)),
}
GROUNDS: dict[str, tuple[Colour, Colour]] = {  # the two tones of its texture
    "sand": ((0.95, 0.84, 0.62), (0.80, 0.63, 0.40)),
    "grass": ((0.56, 0.80, 0.40), (0.34, 0.62, 0.30)),
    "marble": ((0.95, 0.95, 0.96), (0.48, 0.52, 0.62)),
    "terracotta": ((0.96, 0.82, 0.68), (0.82, 0.45, 0.32)),
    "slate": ((0.64, 0.70, 0.80), (0.36, 0.42, 0.54)),
    "heather": ((0.84, 0.74, 0.88), (0.58, 0.42, 0.66)),
}
_CREAM: Colour = (0.98, 0.95, 0.88)  # second tone of every object's texture
_SKY, _GROUND = np.int16(0), np.int16(1)  # surface numbers; object n has 8 * (n + 1) plus its face
_CHUNK = 1 << 14  # rays at a time: some tens of temporaries then stay in the processor's cache
_FINE = 4  # rays per side of a pixel on an edge


@dataclass(frozen=True)
class Scene:
    """Everything an image is made from."""

    horizon: float  # v of the horizon
    sky: str  # key of SKIES
    ground: str  # key of GROUNDS
    ground_texture: str  # one of GROUND_TEXTURES
    ground_turn: float  # of the texture, radians
    ground_cell: float  # width of one stripe or tile, camera heights
    sun_azimuth: float  # radians, 0 behind the camera, positive to the right
    sun_elevation: float  # radians above the ground, between 0 and pi / 2 exclusive
    objects: tuple[SceneObject, ...]

    @property
    def sun(self) -> Colour:
        """Unit vector (x, y, z) towards the sun."""
        level = math.cos(self.sun_elevation)
        return math.sin(self.sun_azimuth) * level, math.sin(self.sun_elevation), -math.cos(self.sun_azimuth) * level


def render(scene: Scene, size: int) -> NDArray[np.uint8]:
    """Image of a scene, (3, size, size)."""
    sun_x, sun_y, sun_z = scene.sun
    slide = -sun_x / sun_y, -sun_z / sun_y
    solids = [SOLIDS[o.kind](o, slide) for o in scene.objects]
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    v, u = (grid.ravel() for grid in np.meshgrid(centres, centres, indexing="ij"))
    image, surface = _shade_all(scene, solids, u, v, 1 / size)
    edges = _edges(surface.reshape(size, size))
    offsets = ((np.arange(_FINE, dtype=np.float32) + 0.5) / _FINE - 0.5) / size
    down, right = (grid.ravel() for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    fine_u, fine_v = u[edges, None] + right, v[edges, None] + down
    fine, _ = _shade_all(scene, solids, fine_u.ravel(), fine_v.ravel(), 1 / (_FINE * size))
    image[:, edges] = fine.reshape(3, len(edges), -1).mean(axis=2)
    return (image * 255 + 0.5).astype(np.uint8).reshape(3, size, size)


def _edges(surface: NDArray[np.int16]) -> NDArray[np.intp]:
    """Flat positions of the pixels beside or above another surface, and of those they touch."""
    edge = np.zeros(surface.shape, bool)
    across, down = surface[:, 1:] != surface[:, :-1], surface[1:] != surface[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return np.flatnonzero(edge)


def _shade_all(
    scene: Scene, solids: list[Solid], u: Floats, v: Floats, pixel: float
) -> tuple[Floats, NDArray[np.int16]]:
    """Colours (3, n) in [0, 1] and surface numbers (n,) seen at image points; `pixel` is the side of one sample."""
    image, surface = np.empty((3, u.size), np.float32), np.empty(u.size, np.int16)
    for start in range(0, u.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        image[:, part], surface[part] = _shade(scene, solids, u[part], v[part], pixel)
    return image, surface


def _shade(scene: Scene, solids: list[Solid], u: Floats, v: Floats, pixel: float) -> tuple[Floats, NDArray[np.int16]]:
    dx, dy = (u - 0.5) / FOCAL, (scene.horizon - v) / FOCAL
    image, surface = np.empty((3, u.size), np.float32), np.where(dy < 0, _GROUND, _SKY)
    nearest = np.full(u.size, np.inf, np.float32)
    for number, (thing, solid) in enumerate(zip(scene.objects, solids, strict=True)):
        around = _around(thing, dx, dy)
        t, face = solid.trace(dx[around], dy[around])
        hit = (t < FAR) & (t < nearest[around])
        seen, t, face = around[hit], t[hit], face[hit]
        nearest[seen], surface[seen] = t, 8 * (number + 1) + face
        _paint(image, seen, _object(scene, solids, number, dx[seen], dy[seen], t, face, pixel))
    sky, ground = np.flatnonzero(surface == _SKY), np.flatnonzero(surface == _GROUND)
    _paint(image, sky, _sky(scene, u[sky], v[sky]))
    _paint(image, ground, _ground(scene, solids, dx[ground], dy[ground], pixel))
    return np.clip(image, 0, 1, out=image), surface


def _paint(image: Floats, where: NDArray[np.intp], colours: Floats) -> None:
    for channel, values in zip(image, colours, strict=True):  # three times as fast as image[:, where] = colours
        channel[where] = values


def _around(thing: SceneObject, dx: Floats, dy: Floats) -> NDArray[np.intp]:
    """Positions of the rays that can meet an object: those through the rectangle around its bounding box."""
    wide = 1.25 * thing.radius
    near, far = thing.depth - wide, thing.depth + wide
    left, right, top = thing.x - wide, thing.x + wide, thing.height - 1
    inside = (dx > min(left / near, left / far)) & (dx < max(right / near, right / far))
    return np.flatnonzero(inside & (dy > -1 / near) & (dy < max(top / near, top / far)))


def _sky(scene: Scene, u: Floats, v: Floats) -> Floats:
    zenith, haze, sunlight = (np.array(tone, np.float32)[:, None] for tone in SKIES[scene.sky])
    up = (scene.horizon - v) / scene.horizon
    image = haze + (zenith - haze) * np.sqrt(up) * (1.4 - 0.4 * up)
    side = u - 0.5 - 0.5 * math.copysign(1, scene.sun_azimuth)
    glow = 0.45 * np.exp(-4 * (side * side + (v - scene.horizon) ** 2))
    return image + (sunlight - image) * glow


def _ground(scene: Scene, solids: list[Solid], dx: Floats, dy: Floats, pixel: float) -> Floats:
    z = -1 / np.minimum(dy, -1e-4)
    x = dx * z
    first, second = (np.array(tone, np.float32)[:, None] for tone in GROUNDS[scene.ground])
    _, haze, sunlight = (np.array(tone, np.float32)[:, None] for tone in SKIES[scene.sky])
    albedo = first + (second - first) * ground_texture(
        scene.ground_texture, scene.ground_turn, scene.ground_cell, x, z, pixel / FOCAL
    )
    zero = np.zeros_like(x)
    sun = scene.sun[1] * _sunlit(scene, solids, None, x, zero, z)
    sky = np.ones_like(x)
    for thing in scene.objects:  # what stands on a point's horizon takes away some of its skylight
        sky *= 1 - 0.6 * np.exp(-((x - thing.x) ** 2 + (z - thing.depth) ** 2) / thing.radius**2)
    lit = albedo * (sunlight * (0.85 * sun) + (0.5 + 0.1 * haze) * 0.75 * sky)
    fog = 0.75 * (1 - np.exp(-((z / 14) ** 2)))
    return lit + (haze - lit) * fog


def _sunlit(scene: Scene, solids: list[Solid], itself: int | None, x: Floats, y: Floats, z: Floats) -> Floats:
    """Share of the sun seen from points, which are first slid along its light to the ground: 0 in full shadow."""
    sun_x, sun_y, sun_z = scene.sun
    slide_x, slide_z = -sun_x / sun_y, -sun_z / sun_y
    length = math.hypot(slide_x, slide_z)
    lit = np.ones_like(x)
    for number, (thing, solid) in enumerate(zip(scene.objects, solids, strict=True)):
        if number == itself:
            continue
        from_x, from_z = x - thing.x, z - thing.depth
        behind = (from_x * slide_x + from_z * slide_z) / length
        beside = np.abs(from_x * slide_z - from_z * slide_x) / length
        reach = thing.radius + thing.height * length
        near = np.flatnonzero((behind > -1.3 * thing.radius) & (behind < 1.3 * reach) & (beside < 0.2 + 1.3 * reach))
        soft = 0.03 + 0.10 * np.maximum(behind[near], 0)  # half-shadow widens with the distance from what casts it
        gx, gz = from_x[near] + slide_x * y[near], from_z[near] + slide_z * y[near]
        share = np.clip(0.5 + 0.5 * solid.shadow(gx, gz) / soft, 0, 1)
        lit[near] *= share * share * (3 - 2 * share)
    return lit


def _object(
    scene: Scene,
    solids: list[Solid],
    number: int,
    dx: Floats,
    dy: Floats,
    t: Floats,
    face: NDArray[np.int16],
    pixel: float,
) -> Floats:
    thing = scene.objects[number]
    x, y, z = t * dx, 1 + t * dy, t
    (nx, ny, nz), a, b = solids[number].surface(x - thing.x, y, z - thing.depth, face)
    scale = 3 / (math.pi * thing.radius)  # six cells around
    mix = object_texture(thing.texture, a * scale + 0.5, b * scale, t * (1.5 * scale * pixel / FOCAL))
    base, cream = (np.array(tone, np.float32)[:, None] for tone in (thing.colour, _CREAM))
    albedo = base + (cream - base) * mix
    _, haze, sunlight = (np.array(tone, np.float32)[:, None] for tone in SKIES[scene.sky])
    ground = np.array(GROUNDS[scene.ground][0], np.float32)[:, None]
    sun_x, sun_y, sun_z = scene.sun
    sunlit = _sunlit(scene, solids, number, x, y, z)
    diffuse = np.maximum(nx * sun_x + ny * sun_y + nz * sun_z, 0) * sunlit
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    hx, hy, hz = sun_x - dx * norm, sun_y - dy * norm, sun_z - norm
    shine = np.maximum((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz), 0)
    for _ in range(5):
        shine = shine * shine
    open_sky = 0.5 + 0.5 * ny
    near_ground = 0.65 + 0.35 * np.clip(y / thing.radius, 0, 1)
    ambient = (ground * 0.3 * (1 - open_sky) + (0.36 + 0.25 * haze) * open_sky + 0.08) * near_ground
    ambient = ambient + 0.10 * np.maximum(-nz, 0)  # a weak light at the camera
    return albedo * (ambient + sunlight * (0.85 * diffuse)) + sunlight * (0.45 * shine * sunlit)
