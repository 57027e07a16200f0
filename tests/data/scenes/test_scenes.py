import hashlib
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from data.errors import UsageError
from data.scenes import rendering
from data.scenes.factors import COLOURS, KINDS, MAX_OBJECTS, Scenes, parse_scenes, scene
from data.scenes.geometry import FAR, FOCAL, SOLIDS
from data.scenes.rendering import GROUNDS, SKIES, Scene, SceneObject, render
from data.scenes.textures import GROUND_TEXTURES, TEXTURES, object_texture, square_wave

type Points = NDArray[np.floating]

THING = SceneObject("sphere", COLOURS["red"], "plain", x=0.1, depth=3.5, radius=0.5, height=1.0, turn=0.4)
BARE = Scene(0.4, "day", "sand", "plain", 0.0, 0.7, math.radians(80), math.radians(35), ())


def with_objects(*things: SceneObject) -> Scene:
    return replace(BARE, objects=things)


def shaped(kind: str) -> SceneObject:
    return replace(THING, kind=kind, height=1.0 if kind == "sphere" else 1.2)


def is_inside(thing: SceneObject, x: Points, y: Points, z: Points) -> NDArray[np.bool_]:
    """Membership in the solid, for points relative to its foot: the definitions, written as inequalities."""
    if thing.kind == "sphere":
        return x**2 + (y - thing.radius) ** 2 + z**2 <= thing.radius**2
    share = 1 - y / thing.height if thing.kind in ("cone", "pyramid") else 1.0  # of the base's width, at height y
    standing = (y >= 0) & (y <= thing.height)
    if thing.kind in ("cone", "cylinder"):
        return standing & (np.hypot(x, z) <= thing.radius * share)
    cos, sin = math.cos(thing.turn), math.sin(thing.turn)
    return standing & (np.maximum(abs(x * cos + z * sin), abs(z * cos - x * sin)) <= 0.85 * thing.radius * share)


def picture_point(thing: SceneObject, x: float, y: float, z: float, size: int) -> tuple[int, int]:
    """Row and column of the pixel that shows a point given relative to the foot of `thing`."""
    depth = thing.depth + z
    v, u = BARE.horizon - FOCAL * (y - 1) / depth, 0.5 + FOCAL * (thing.x + x) / depth
    return int(v * size), int(u * size)


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    few, many = Scenes(5, size=32, seed=7), Scenes(1000, size=32, seed=7)
    forwards = [few.image(i) for i in range(5)]
    with ThreadPoolExecutor(3) as pool:
        backwards = list(pool.map(many.image, reversed(range(5))))
    assert all(np.array_equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert few.factors(3) == many.factors(3) == scene(7, 3)
    assert scene(8, 3) != scene(7, 3)


def test_another_process_draws_the_same_picture() -> None:
    code = "import hashlib; from data.scenes.factors import Scenes; s = Scenes(9, 48, 5); s.image(8)"
    code += "; print(hashlib.sha256(s.image(2).tobytes()).hexdigest())"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == hashlib.sha256(Scenes(3, 48, 5).image(2).tobytes()).hexdigest()


@pytest.mark.parametrize("size", [16, 33, 128])
def test_pictures_are_bytes_of_the_asked_size(size: int) -> None:
    image = Scenes(1, size).image(0)
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8


def test_pictures_differ_and_are_bright_and_colourful() -> None:
    scenes = Scenes(64, size=32)
    images = [scenes.image(i) for i in range(len(scenes))]
    assert len({image.tobytes() for image in images}) == len(scenes)
    chroma = [np.ptp(image.astype(int), axis=0).mean() for image in images]
    assert min(np.ptp(image) for image in images) > 100
    assert np.mean(chroma) > 40
    assert 90 < np.mean(images) < 190


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_set_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        Scenes(4).image(index)


@pytest.mark.parametrize("size", [64, 128])
def test_a_scene_looks_the_same_at_every_size(size: int) -> None:
    for index in range(12):
        small, large = (render(scene(0, index), s).astype(float) for s in (size, 2 * size))
        reduced = large.reshape(3, size, 2, size, 2).mean(axis=(2, 4))
        assert np.abs(small - reduced).mean() < 1.0
        assert np.sqrt(np.square(small - reduced).mean()) < 3.0


def test_the_picture_does_not_depend_on_how_many_rays_are_shaded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(scene(1, 1), 64)
    monkeypatch.setattr(rendering, "_CHUNK", 1000)
    assert np.array_equal(render(scene(1, 1), 64), whole)


def test_categories_are_drawn_uniformly() -> None:
    scenes = [scene(3, i) for i in range(1500)]
    things = [thing for s in scenes for thing in s.objects]
    names = {colour: name for name, colour in COLOURS.items()}
    drawings: list[tuple[Sequence[Hashable], Collection[Hashable]]] = [
        ([len(s.objects) for s in scenes], range(1, MAX_OBJECTS + 1)),
        ([s.sky for s in scenes], SKIES),
        ([s.ground for s in scenes], GROUNDS),
        ([s.ground_texture for s in scenes], GROUND_TEXTURES),
        ([s.sun_azimuth > 0 for s in scenes], (False, True)),
        ([t.kind for t in things], KINDS),
        ([t.texture for t in things], TEXTURES),
        ([names[t.colour] for t in things], COLOURS),
    ]
    for drawn, choices in drawings:
        counts = Counter(drawn)
        assert set(counts) == set(choices)
        assert chisquare([counts[c] for c in choices]).pvalue > 1e-3


def test_numbers_fill_their_documented_ranges() -> None:
    scenes = [scene(4, i) for i in range(800)]
    things = [thing for s in scenes for thing in s.objects]
    for values, low, high in [
        ([s.horizon for s in scenes], 0.36, 0.46),
        ([s.ground_turn for s in scenes], 0, math.pi),
        ([s.ground_cell for s in scenes], 0.5, 0.9),
        ([abs(s.sun_azimuth) for s in scenes], math.radians(40), math.radians(110)),
        ([s.sun_elevation for s in scenes], math.radians(30), math.radians(55)),
        ([t.turn for t in things], 0, math.pi / 2),
        ([t.depth for t in things], 2.6, 4.4),
        ([t.height / t.radius for t in things if t.kind != "sphere"], 1.5, 2.5),
        ([s.objects[0].radius for s in scenes if len(s.objects) == 1], 0.42, 0.60),
    ]:
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert {t.height / t.radius for t in things if t.kind == "sphere"} == {2.0}


def test_solids_of_a_scene_do_not_touch() -> None:
    for s in (scene(5, i) for i in range(300)):
        for k, a in enumerate(s.objects):
            for b in s.objects[k + 1 :]:
                corners = [t.radius * (1.2021 if t.kind in ("box", "pyramid") else 1) for t in (a, b)]
                assert math.hypot(a.x - b.x, a.depth - b.depth) > sum(corners)


@pytest.mark.parametrize("kind", KINDS)
def test_rays_meet_a_solid_where_marching_does(kind: str) -> None:
    thing = shaped(kind)
    rng = np.random.default_rng(0)
    dx, dy = rng.uniform(-0.25, 0.3, 400), rng.uniform(-0.36, 0.12, 400)
    steps = np.arange(2.5, 4.5, 1e-3)
    inside = is_inside(thing, dx[:, None] * steps - thing.x, 1 + dy[:, None] * steps, steps - thing.depth)
    met = inside.sum(axis=1) > 10  # leaves out rays that only graze
    expected = steps[inside.argmax(axis=1)]
    t, _ = SOLIDS[kind](thing, (0.5, 0.5)).trace(dx.astype(np.float32), dy.astype(np.float32))
    assert 50 < met.sum() < 350
    np.testing.assert_allclose(t[met], expected[met], atol=3e-3)
    assert (t[~inside.any(axis=1)] >= FAR).mean() > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_normals_have_unit_length_and_point_out_of_the_surface(kind: str) -> None:
    thing = shaped(kind)
    solid = SOLIDS[kind](thing, (0.5, 0.5))
    dx, dy = (g.ravel().astype(np.float32) for g in np.meshgrid(np.linspace(-0.2, 0.2, 40), np.linspace(-0.3, 0.1, 40)))
    t, face = solid.trace(dx, dy)
    hit = t < FAR
    point = (t * dx)[hit] - thing.x, (1 + t * dy)[hit], t[hit] - thing.depth
    normal, _, _ = solid.surface(*point, face[hit])
    np.testing.assert_allclose(sum(n**2 for n in normal), 1, atol=1e-4)
    out, back = ([p + step * n for p, n in zip(point, normal, strict=True)] for step in (0.01, -0.01))
    assert not is_inside(thing, *out).any()
    assert is_inside(thing, *back).mean() > 0.97  # all but points within a hundredth of an edge


@pytest.mark.parametrize("kind", KINDS)
def test_a_shadow_is_where_the_way_to_the_sun_is_blocked(kind: str) -> None:
    thing, slide = shaped(kind), (-0.9, 0.6)
    x, z = (g.ravel() for g in np.meshgrid(np.linspace(-1.8, 1.0, 50), np.linspace(-1.0, 1.6, 50)))
    height = np.linspace(0, thing.height, 300)[:, None]
    blocked = is_inside(thing, x - slide[0] * height, height, z - slide[1] * height).any(axis=0)
    distance = SOLIDS[kind](thing, slide).shadow(x.astype(np.float32), z.astype(np.float32))
    clear = np.abs(distance) > 0.01
    assert clear.mean() > 0.9
    assert np.array_equal((distance < 0)[clear], blocked[clear])
    assert 100 < blocked.sum() < 2000


def test_a_sphere_covers_the_area_of_its_outline() -> None:
    """An object's colour changes its own pixels only; the outline of a sphere in perspective is an ellipse."""
    size, z, r = 512, THING.depth, THING.radius
    red, blue = (render(with_objects(replace(THING, colour=COLOURS[c])), size).astype(int) for c in ("red", "blue"))
    covered = (np.abs(red - blue).sum(axis=0) > 0).sum()
    far = THING.x**2 + (r - 1) ** 2 + z**2
    area = math.pi * (FOCAL * size * r) ** 2 * math.sqrt(far - r**2) / (z**2 - r**2) ** 1.5
    assert covered == pytest.approx(area + 0.5 * 2 * math.sqrt(math.pi * area), rel=0.02)  # and half of its edge pixels


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_shows_where_its_factors_say(kind: str) -> None:
    size, thing = 128, shaped(kind)
    bare, image = (render(s, size).astype(int) for s in (BARE, with_objects(thing)))
    row, column = picture_point(thing, 0, 0.4, 0, size)
    red, green, blue = image[:, row, column]
    assert red > 1.8 * max(green, blue)
    assert np.abs(image - bare)[:, row, column].max() > 40
    assert np.array_equal(image[:, : size // 5], bare[:, : size // 5])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shadow_darkens_the_ground_away_from_the_sun(kind: str) -> None:
    size, thing = 128, shaped(kind)
    bare, image = (render(s, size).sum(axis=0) / 3 for s in (BARE, with_objects(thing)))
    sun_x, sun_y, sun_z = BARE.sun
    shaded = picture_point(thing, -0.75 * sun_x / sun_y, 0, -0.75 * sun_z / sun_y, size)
    sunny = picture_point(thing, 0.75 * sun_x / sun_y, 0, 0.75 * sun_z / sun_y, size)
    assert image[shaded] < 0.75 * bare[shaded]
    assert image[sunny] > 0.97 * bare[sunny]


def test_an_object_in_the_shadow_of_another_is_darker() -> None:
    size, far = 64, replace(THING, x=-0.6, depth=3.6, radius=0.3, height=0.6)
    near_sun = replace(THING, kind="box", x=0.4, depth=3.6, height=1.3, turn=0.0)
    row, column = picture_point(far, 0.05, 0.4, -0.27, size)
    alone, together = (render(with_objects(*things), size).astype(int) for things in ((far,), (far, near_sun)))
    assert together[0, row, column] < 0.8 * alone[0, row, column]


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_object_hides_the_farther_in_either_order(order: int) -> None:
    near, far = replace(THING, depth=2.8), replace(THING, kind="box", colour=COLOURS["blue"], depth=4.2)
    row, column = picture_point(near, 0, 0.5, 0, 64)
    red, _, blue = render(with_objects(*(near, far)[::order]), 64)[:, row, column].astype(int)
    assert red > 2 * blue


def test_square_wave_is_an_average_over_its_width() -> None:
    x, width = np.linspace(-3, 3, 41), np.linspace(0.05, 2.7, 41)
    fine = x + width * ((np.arange(4000)[:, None] + 0.5) / 4000 - 0.5)
    naive = np.where(np.floor(fine) % 2 == 0, 1.0, -1.0).mean(axis=0)
    np.testing.assert_allclose(square_wave(x, width), naive, atol=2e-3)


@pytest.mark.parametrize("width", [0.01, 0.1])
def test_the_second_tone_has_its_share_of_every_texture(width: float) -> None:
    """Half of stripes and tiles, the area of a disc of radius 0.3 in each cell of dots."""
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(0, 4, 0.01) + 0.005, np.arange(0, 4, 0.01) + 0.005))
    shares = {name: object_texture(name, a, b, np.full_like(a, width)).mean() for name in TEXTURES}
    halves = dict.fromkeys(("bands", "stripes", "checker"), 0.5)
    assert shares == pytest.approx({"plain": 0.0, "dots": math.pi * 0.3**2, **halves}, abs=0.005)


@pytest.mark.parametrize(
    ("spec", "expected"), [("scenes:1", (1, 128)), ("scenes:2000@256", (2000, 256)), ("scenes:7@16", (7, 16))]
)
def test_a_spec_names_count_and_size(spec: str, expected: tuple[int, int]) -> None:
    assert parse_scenes(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "scenes",
        "scenes:",
        "scenes:0",
        "scenes:-3",
        "scenes:x",
        "scenes:5@",
        "scenes:5@15",
        "scenes:5@4097",
        "scenes:5@8@9",
        " scenes:5",
        "scenes:5\n",
        "scenes:1e3",
        "scenes:٣",
        "scenes:" + "9" * 5000,
        "pictures",
    ],
)
def test_any_other_spec_is_a_usage_error_with_a_fix(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_scenes(spec)
    assert caught.value.exit_code == 2
    assert "scenes:N" in caught.value.fix
