"""Every format x depth x layout x byte order x transparency x colour space: pixels are those worked out with numpy.

TIFF is written by tifffile and PNG by hand. What is expected is computed from the source array in closed form.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile

from data.sources.decoding import decode, probe
from data.sources.raster import TRANSPARENT
from tests.data.sources.written import (
    P3_D50,
    SRGB_D50,
    Pixels,
    any_png,
    any_tiff,
    blended,
    chunk,
    grey_profile,
    rgb_profile,
    seen_in_srgb,
    srgb_light,
)

HEIGHT, WIDTH = 18, 21
RNG = np.random.default_rng(0)
UNIT = RNG.random((HEIGHT, WIDTH, 6))  # RGB or CMYK, and alpha
UNIT[0, :2] = 0
UNIT[0, 2:4] = 1

type Colours = Callable[[Pixels], Pixels]  # (H, W, 1 or 3) from 0 to 1 -> sRGB from 0 to 255


class Cell(NamedTuple):
    content: bytes
    expected: Pixels  # (H, W, 3), not rounded
    tolerance: float = 0.51
    notes: int = 0


def plain(unit: Pixels) -> Pixels:
    return np.broadcast_to(255 * unit, (HEIGHT, WIDTH, 3))


def space(columns: Pixels, exponent: float) -> Colours:
    return lambda unit: seen_in_srgb(np.broadcast_to(unit, (HEIGHT, WIDTH, 3)), columns, exponent)


SPACES: dict[str, tuple[bytes | None, Colours]] = {
    "none": (None, plain),
    "linear": (rgb_profile(SRGB_D50, 1), space(SRGB_D50, 1)),
    "called-sRGB": (rgb_profile(SRGB_D50, 1, b"sRGB built-in"), space(SRGB_D50, 1)),
    "p3": (rgb_profile(P3_D50, 2.2, b"sRGB IEC61966-2.1"), space(P3_D50, 563 / 256)),
    "grey": (grey_profile(1.75), space(SRGB_D50, 1.75)),
}


# --- TIFF ---

LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
    "deflate-tiles": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "lzw-strips": {"rowsperstrip": 5, "compression": "lzw", "predictor": True},
}
WHOLE = {"u1": 8, "u2": 16}
WHITE_IS_ZERO, BLACK_IS_ZERO, TIFF_RGB = 0, 1, 2
WIDE = ("u4", "i1", "i2", "i4", "f2", "f4", "f8")


def tiff(values: Pixels, planar: bool = False, **options: Any) -> bytes:
    file = io.BytesIO()
    if planar:
        values, options = values.transpose(2, 0, 1), options | {"planarconfig": "separate"}
    elif values.shape[2] == 1:
        values = values[..., 0]
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def quantised(unit: Pixels, bits: int) -> Pixels:
    return np.rint(unit * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def opacities(alpha: str | None) -> bool:
    return alpha in ("unassalpha", "assocalpha")


def with_alpha(values: Pixels, alpha: str | None, alphas: Pixels, top: float) -> tuple[Pixels, Pixels]:
    """Samples as the file holds them, and the colours from 0 to 1 that they stand for."""
    if alpha == "assocalpha":
        scaled = values * (alphas[..., None] / top)
        values = (scaled if values.dtype.kind == "f" else np.rint(scaled)).astype(values.dtype)
        return np.dstack([values, alphas]), np.minimum(values / np.maximum(alphas, 1e-9)[..., None], 1)
    return (np.dstack([values, alphas]) if alpha else values), values / top


def unsigned_tiffs(kind: str) -> Iterator[tuple[str, Cell]]:
    grey = ("minisblack", 1, ("none", "grey", "linear"))
    white = ("miniswhite", 1, ("none", "grey"))
    rgb = ("rgb", 3, ("none", "called-sRGB", "p3"))
    top = (1 << WHOLE[kind]) - 1
    alphas = quantised(UNIT[..., 5], WHOLE[kind])
    for (photometric, count, names), layout, order, alpha, planar in itertools.product(
        (grey, white, rgb), LAYOUTS, "<>", (None, "unassalpha", "assocalpha", "unspecified"), (False, True)
    ):
        if photometric == "miniswhite" and alpha == "assocalpha":
            continue  # no specification says what that is
        if planar and photometric != "rgb":
            continue  # there is one plane
        if alpha and layout in ("strips", "deflate-tiles"):
            continue  # the two other layouts have strips, tiles and compression as well
        values, seen = with_alpha(quantised(UNIT[..., :count], WHOLE[kind]), alpha, alphas, top)
        options = LAYOUTS[layout] | {"byteorder": order, "photometric": photometric}
        for name in names:
            profile, convert = SPACES[name]
            expected = convert(1 - seen if photometric == "miniswhite" else seen)
            if opacities(alpha):
                expected = blended(expected, alphas / top)
            content = tiff(values, planar, extrasamples=alpha and [alpha], iccprofile=profile, **options)
            tolerance = 0.51 + 0.5 * opacities(alpha) + (profile is not None)
            cell = Cell(content, expected, tolerance, int(alpha == "unspecified"))
            yield f"{order} {photometric} {layout} {alpha} {name} {'planar' if planar else ''}", cell


def wide_tiffs(kind: str) -> Iterator[tuple[str, Cell]]:
    """Floats from 0 to 1 are that; all else is stretched from its minimum to its maximum."""
    for (photometric, count), layout, order, alpha, planar, stretch in itertools.product(
        (("minisblack", 1), ("miniswhite", 1), ("rgb", 3)),
        LAYOUTS,
        "<>",
        (None, "unassalpha"),
        (False, True),
        (False, True),
    ):
        is_float = kind[0] == "f"
        if (
            (planar and photometric != "rgb")
            or (not is_float and not stretch)
            or (not is_float and alpha and kind != "u4")
        ):
            continue  # one plane; integers are always stretched; opacity of signed integers is not specified
        values, alphas = UNIT[..., :count], UNIT[..., 5]
        if is_float:
            values = (values * 40 - 12 if stretch else values).astype(kind)
            alphas = alphas.astype(kind)
        else:
            limits = np.iinfo(kind)
            values = np.rint(values * (limits.max / 2 - limits.min / 4) + limits.min / 4).astype(kind)
            alphas = np.rint(alphas * limits.max).astype(kind)
        exact = values.astype(float)
        if stretch:
            exact = (exact - exact.min()) / (exact.max() - exact.min())
        expected = plain(1 - exact if photometric == "miniswhite" else exact)
        if alpha:
            expected = blended(expected, alphas.astype(float) / (1 if is_float else np.iinfo(kind).max))
            values = np.dstack([values, alphas])
        options = LAYOUTS[layout] | {"byteorder": order, "photometric": photometric}
        if is_float and "predictor" in options:
            options["predictor"] = 3
        content = tiff(values, planar, extrasamples=alpha and [alpha], **options)
        cell = Cell(content, expected, 0.51 + 0.5 * bool(alpha), int(stretch))
        yield (
            f"{order} {photometric} {layout} {alpha} {'planar' if planar else ''} {'stretched' if stretch else ''}",
            cell,
        )


def packed_tiffs() -> Iterator[tuple[str, Cell]]:
    """By hand, since tifffile packs in the wrong order where the highest byte comes first."""
    for bits, (photometric, count), order, name in itertools.product(
        (1, 2, 4, 6, 10, 12, 14), ((WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 1), (TIFF_RGB, 3)), "<>", ("none", "linear")
    ):
        profile, convert = SPACES[name]
        values = quantised(UNIT[..., :count], bits)
        seen = values / ((1 << bits) - 1)
        expected = convert(1 - seen if photometric == WHITE_IS_ZERO else seen)
        content = any_tiff(values, bits, order, photometric, profile)
        yield f"{bits} bits {order} {photometric} {name}", Cell(content, expected, 0.51 + (profile is not None))


def palette_tiffs() -> Iterator[tuple[str, Cell]]:
    """Without opacity, which tifffile does not write beside a palette."""
    for kind, layout, order, name in itertools.product(WHOLE, LAYOUTS, "<>", ("none", "p3")):
        profile, convert = SPACES[name]
        indices = quantised(UNIT[..., :1], WHOLE[kind])
        palette = RNG.integers(0, 65536, (3, 1 << WHOLE[kind]), np.uint16)
        expected = convert(palette[:, indices[..., 0]].transpose(1, 2, 0) / 65535)
        options = LAYOUTS[layout] | {"byteorder": order, "colormap": palette, "photometric": "palette"}
        content = tiff(indices, iccprofile=profile, **options)
        yield f"{kind} {layout} {order} {name}", Cell(content, expected, 0.51 + (profile is not None))


def lab_tiffs() -> Iterator[tuple[str, Cell]]:
    """Colours of sRGB in CIELAB, which lie in its gamut and come back."""
    coded = UNIT[..., :3]
    ratio = srgb_light(coded) @ SRGB_D50.T / SRGB_D50.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    for layout, order, planar in itertools.product(LAYOUTS, "<>", (False, True)):
        lightness = np.rint(lab[..., :1] * 655.35)
        chroma = np.rint(lab[..., 1:] * 256).astype(np.int16).view(np.uint16)
        values = np.concatenate([lightness, chroma], axis=-1).astype(np.uint16)
        content = tiff(values, planar, photometric="cielab", byteorder=order, **LAYOUTS[layout])
        yield f"16 bits {layout} {order} {planar}", Cell(content, 255 * coded, 1.5)  # of another matrix
        if "predictor" not in LAYOUTS[layout]:
            rough = np.concatenate([np.rint(lab[..., :1] * 2.55), np.rint(lab[..., 1:])], axis=-1)
            content = tiff(
                rough.astype(np.int16).astype(np.uint8),
                planar,
                photometric="cielab",
                byteorder=order,
                **LAYOUTS[layout],
            )
            yield f"8 bits {layout} {order} {planar}", Cell(content, 255 * coded, 14)  # its steps are coarse


def jpeg_tiffs() -> Iterator[tuple[str, Cell]]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([columns * 9, rows * 12, 255 - 5 * columns - 5 * rows], axis=-1).astype(np.uint8)
    layouts: tuple[dict[str, Any], ...] = ({"rowsperstrip": 16}, {"rowsperstrip": HEIGHT}, {"tile": (16, 16)})
    kinds: tuple[dict[str, Any], ...] = (
        {"photometric": "minisblack"},
        {"photometric": "rgb", "subsampling": (1, 1)},  # written as YCbCr
        {"photometric": "rgb", "subsampling": (2, 2)},
    )
    for layout, order, kind in itertools.product(layouts, "<>", kinds):
        if "tile" in layout and kind.get("subsampling") == (2, 2):
            continue  # tifffile fills tiles with black, which bleeds into the last colours
        values = smooth[..., :1] if kind["photometric"] == "minisblack" else smooth
        options = {"byteorder": order, "compression": "jpeg", "compressionargs": {"level": 100}}
        content = tiff(values, **options, **layout, **kind)
        tolerance = 12 if kind.get("subsampling") == (2, 2) else 4
        yield f"{order} {layout} {kind}", Cell(content, plain(values / 255), tolerance)


def cmyk_tiffs() -> Iterator[tuple[str, Cell]]:
    for kind, layout, order, planar, alpha in itertools.product(
        WHOLE, LAYOUTS, "<>", (False, True), (None, "unassalpha", "unspecified")
    ):
        top = (1 << WHOLE[kind]) - 1
        inks, alphas = quantised(UNIT[..., :4], WHOLE[kind]), quantised(UNIT[..., 5], WHOLE[kind])
        values, _ = with_alpha(inks, alpha, alphas, top)
        expected = 255 * (1 - inks[..., :3] / top) * (1 - inks[..., 3:] / top)
        if opacities(alpha):
            expected = blended(expected, alphas / top)
        options = LAYOUTS[layout] | {"byteorder": order, "photometric": "separated"}
        content = tiff(values, planar, extrasamples=alpha and [alpha], **options)
        yield f"{kind} {layout} {order} {planar} {alpha}", Cell(content, expected, 1.01, int(alpha == "unspecified"))


# --- PNG ---

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}


def numbers(kind: bytes, *values: float) -> bytes:
    return chunk(kind, struct.pack(f">{len(values)}I", *(round(value * 100000) for value in values)))


def iccp(profile: bytes | None) -> bytes:
    return chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile or b""))


LINEAR, SRGB_CHUNK = numbers(b"gAMA", 1), chunk(b"sRGB", b"\0")
P3_POINTS = numbers(b"cHRM", 0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB_POINTS = numbers(b"cHRM", 0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
STATED: dict[str, tuple[bytes, Colours]] = {
    "nothing": (b"", plain),
    "sRGB before gAMA": (SRGB_CHUNK + LINEAR + P3_POINTS, plain),
    "gAMA 1": (LINEAR, space(SRGB_D50, 1)),
    "gAMA 1/2.2": (numbers(b"gAMA", 0.45455) + SRGB_POINTS, plain),
    "gAMA 1/1.8": (numbers(b"gAMA", 1 / 1.8), space(SRGB_D50, 1.8)),
    "gAMA and cHRM": (LINEAR + P3_POINTS, space(P3_D50, 1)),
    "iCCP before gAMA": (iccp(SPACES["p3"][0]) + LINEAR, SPACES["p3"][1]),
    "iCCP called sRGB": (iccp(SPACES["called-sRGB"][0]), SPACES["called-sRGB"][1]),
    "cICP before iCCP": (chunk(b"cICP", bytes([12, 8, 0, 1])) + iccp(SPACES["linear"][0]), space(P3_D50, 1)),
    "cICP sRGB": (chunk(b"cICP", bytes([1, 13, 0, 1])) + LINEAR, plain),
}


def pngs(colour_type: int) -> Iterator[tuple[str, Cell]]:
    for depth, interlaced, keyed, (name, (stated, convert)) in itertools.product(
        DEPTHS[colour_type], (False, True), (False, True), STATED.items()
    ):
        if keyed and colour_type in (GREY_ALPHA, RGB_ALPHA):
            continue  # PNG forbids tRNS beside an alpha channel
        top = (1 << depth) - 1
        values = quantised(UNIT[..., : CHANNELS[colour_type]], depth)
        channels = CHANNELS[colour_type] - (colour_type in (GREY_ALPHA, RGB_ALPHA))
        unit, alpha = values[..., :channels] / top, np.ones((HEIGHT, WIDTH))
        extra = stated
        if colour_type in (GREY_ALPHA, RGB_ALPHA):
            alpha = values[..., channels] / top
        elif colour_type == PALETTE:
            palette, alphas = (
                RNG.integers(0, 256, (1 << depth, 3), np.uint8),
                RNG.integers(0, 256, 1 << depth, np.uint8),
            )
            unit = palette[values[..., 0]] / 255
            extra += chunk(b"PLTE", palette.tobytes())
            if keyed:
                extra, alpha = extra + chunk(b"tRNS", alphas.tobytes()), alphas[values[..., 0]] / 255
        elif keyed:
            key = values[5, 6]
            extra += chunk(b"tRNS", key.astype(">u2").tobytes())
            alpha = 1.0 - (values == key).all(-1)
        expected = blended(convert(unit), alpha)
        tolerance = 0.51 + 0.5 * (alpha.min() < 1) + (convert is not plain)
        cell = Cell(any_png(values, depth, colour_type, extra, interlaced), expected, tolerance)
        yield f"{depth} bits {name} {'interlaced' if interlaced else ''} {'tRNS' if keyed else ''}", cell


GROUPS: dict[str, Callable[[], Iterator[tuple[str, Cell]]]] = {
    **{f"tiff-{kind}": partial(unsigned_tiffs, kind) for kind in WHOLE},
    **{f"tiff-{kind}": partial(wide_tiffs, kind) for kind in WIDE},
    "tiff-packed": packed_tiffs,
    "tiff-palette": palette_tiffs,
    "tiff-cmyk": cmyk_tiffs,
    "tiff-lab": lab_tiffs,
    "tiff-jpeg": jpeg_tiffs,
    **{f"png-{colour_type}": partial(pngs, colour_type) for colour_type in DEPTHS},
}


@pytest.mark.parametrize("group", GROUPS)
def test_pixels_are_those_of_the_formula(group: str) -> None:
    wrong, count = [], 0
    for name, cell in GROUPS[group]():
        count += 1
        try:
            pixels, info = np.asarray(decode(cell.content)), probe(cell.content)
        except Exception as error:
            wrong.append(f"{name}: {error}")
            continue
        levels = np.abs(pixels - cell.expected).max()
        others = [note for note in info.notes if note != TRANSPARENT]
        if levels > cell.tolerance or len(others) != cell.notes or info[:2] != (HEIGHT, WIDTH):
            wrong.append(f"{name}: {levels:.2f} levels, {info.notes}")
    assert count >= 16
    assert not wrong, "\n".join([f"{len(wrong)} of {count}", *wrong[:40]])
