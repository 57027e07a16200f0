"""Every awkward file decodes to pixels worked out here with numpy, or is refused with a reason a person understands."""

import io
import itertools
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from data.sources.decoding import Unreadable, decode, probe
from data.sources.raster import TRANSPARENT
from tests.data.sources.written import (
    Pixels,
    chunk,
    fixed,
    grey,
    icc,
    linear_rgb_profile,
    over_white,
    packed,
    png,
    png_of,
    srgb_curve,
)

# Pillow's remarks on odd metadata, which data.sources.decoding silences in use; its bomb warning stays an error here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Case(NamedTuple):
    content: bytes
    expected: Pixels  # (H, W, 3)
    tolerance: int = 0
    note: str = ""  # part of the only remark


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 24, 3), np.uint8)
GREY = RNG.integers(0, 256, (20, 24), np.uint8)
ALPHA = RNG.integers(0, 256, (20, 24), np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 24), np.uint16)
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
SMOOTH = np.stack([COLUMNS * 3, ROWS * 4, 255 - COLUMNS - ROWS], axis=-1).astype(np.uint8)  # survives lossy coding
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF 2.32, tag 0x0112
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def saved(pixels: Pixels, file_format: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    assert mode is None or image.mode == mode
    image.save(file, file_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def palette_image(transparency: bytes | None = None) -> Case:
    palette, indices = RNG.integers(0, 256, (16, 3), np.uint8), RNG.integers(0, 16, (20, 24), np.uint8)
    extra = chunk(b"PLTE", palette.tobytes()) + (chunk(b"tRNS", transparency) if transparency else b"")
    alpha = np.frombuffer((transparency or b"").ljust(16, b"\xff"), np.uint8)
    return Case(png_of(indices, 3, extra), over_white(palette[indices], alpha[indices]), 1)


def animation(file_format: str, **options: Any) -> Case:
    first, second = Image.fromarray(RGB // 64 * 64), Image.fromarray(255 - RGB)
    file = io.BytesIO()
    if file_format == "GIF":
        first, second = first.quantize(64), second.quantize(64)
    first.save(file, file_format, save_all=True, append_images=[second], **options)
    return Case(file.getvalue(), RGB // 64 * 64, note="the first is used")


def transparent_gif() -> Case:
    indices = RNG.integers(0, 3, (20, 24), np.uint8)
    palette = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 90]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "GIF", transparency=2)
    return Case(file.getvalue(), np.where((indices == 2)[..., None], 255, palette[indices]))


def white_is_zero_tiff(content: bytes) -> bytes:
    """Flip the polarity tag (262, SHORT, one value) of a little-endian grey TIFF."""
    at = content.index(struct.pack("<HHIH", 262, 3, 1, 1))
    return content[: at + 8] + b"\0" + content[at + 9 :]


INKS = np.array([0.5, 0.4, 0.3, 1.0])  # how much lightness full cyan, magenta, yellow and black each take


def cmyk_profile() -> bytes:
    """Inks that only darken: L* = 100 * product of (1 - INKS) over the inks printed in full, a* = b* = 0."""
    ramp = bytes(range(256))
    nodes = [round(255 * np.prod(1 - INKS * corner)) for corner in itertools.product((0, 1), repeat=4)]
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + b"".join(bytes([node, 128, 128]) for node in nodes) + ramp * 3
    return icc(b"CMYK", b"Lab ", {b"A2B0": table})


def luminance(lightness: Pixels) -> Pixels:
    """CIE 1976: L* -> Y in [0, 1]."""
    f = (lightness + 16) / 116
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


CORNERS = np.array([(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)], np.uint8)
CMYK = np.repeat(np.repeat(CORNERS[None] * 255, 32, axis=0), 16, axis=1)  # 16-pixel blocks: JPEG keeps them exactly
CMYK_NAIVE = (255 - CMYK[..., :3].astype(int)) * (255 - CMYK[..., 3:].astype(int)) / 255
CMYK_PRINTED = grey(srgb_curve(luminance(100 * np.prod(1 - INKS * (CMYK / 255), axis=-1))))


def cmyk_file(file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(CMYK, "CMYK").save(file, file_format, **options)
    return file.getvalue()


def floats(values: Pixels) -> bytes:
    return saved(values.astype(np.float32), "TIFF", "F")


WIDE = np.linspace(-2, 6, 480).reshape(20, 24)
HOLED = WIDE.copy()
HOLED[0, :3] = np.nan, np.inf, -np.inf
HOLED_SCALED = (np.nan_to_num(HOLED, nan=HOLED[0, 3], posinf=6, neginf=HOLED[0, 3]) - HOLED[0, 3]) / (6 - HOLED[0, 3])
TALL = RNG.integers(0, 256, (3000, 16, 3), np.uint8)
LOSSLESS: dict[str, Any] = {"lossless": True, "exact": True, "quality": 100}
FINE: dict[str, Any] = {"quality": 100, "subsampling": 0}
BINARY = GREY > 127
ONE_BIT = grey(BINARY * 255)

CASES: dict[str, Case] = {
    "png-rgb": Case(saved(RGB, "PNG"), RGB),
    "png-grey": Case(saved(GREY, "PNG"), grey(GREY)),
    "png-1-bit": Case(png(24, 20, 1, 0, packed(GREY >> 7, 1)), ONE_BIT),
    "png-2-bit": Case(png(24, 20, 2, 0, packed(GREY >> 6, 2)), grey((GREY >> 6) * 85)),
    "png-4-bit": Case(png(24, 20, 4, 0, packed(GREY >> 4, 4)), grey((GREY >> 4) * 17)),
    "png-grey-16": Case(png_of(GREY16, 0), grey(np.rint(GREY16 / 257))),
    "png-grey-16-transparent": Case(
        png_of(GREY16, 0, chunk(b"tRNS", struct.pack(">H", GREY16[3, 4]))),
        grey(np.where(GREY16[3, 4] == GREY16, 255, np.rint(GREY16 / 257))),
    ),
    "png-rgb-16": Case(png_of(RGB * np.uint16(257), 2), RGB),
    "png-rgba-16": Case(png_of(np.dstack([RGB, ALPHA]) * np.uint16(257), 6), over_white(RGB, ALPHA), 1),
    "png-grey-alpha": Case(saved(np.dstack([GREY, ALPHA]), "PNG", "LA"), over_white(grey(GREY), ALPHA), 1),
    "png-rgba": Case(saved(np.dstack([RGB, ALPHA]), "PNG"), over_white(RGB, ALPHA), 1),
    "png-rgb-transparent": Case(
        png_of(RGB, 2, chunk(b"tRNS", struct.pack(">HHH", *RGB[5, 6]))),
        np.where((RGB[5, 6] == RGB).all(-1)[..., None], 255, RGB),
    ),
    "png-palette": palette_image(),
    "png-palette-transparent": palette_image(bytes([0, 128, 255, 30])),
    "png-orientation": Case(saved(RGB, "PNG", exif=exif(6)), UPRIGHT[6](RGB)),
    "png-linear-profile": Case(saved(RGB, "PNG", icc_profile=linear_rgb_profile()), srgb_curve(RGB / 255), 2),
    "png-srgb-profile": Case(
        saved(RGB, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), RGB
    ),
    "png-profile-damaged": Case(saved(RGB, "PNG", icc_profile=b"no profile"), RGB, note="profile does not fit"),
    "png-profile-of-cmyk": Case(saved(RGB, "PNG", icc_profile=cmyk_profile()), RGB, note="profile does not fit"),
    "png-rgba-linear-profile": Case(
        saved(np.dstack([RGB, np.full_like(GREY, 255)]), "PNG", icc_profile=linear_rgb_profile()),
        srgb_curve(RGB / 255),
        2,
    ),
    "png-tall": Case(saved(TALL, "PNG"), TALL),
    "png-animated": animation("PNG"),
    "gif": Case(saved(GREY, "GIF"), grey(GREY)),
    "gif-transparent": transparent_gif(),
    "gif-animated": animation("GIF"),
    "webp": Case(saved(RGB, "WEBP", **LOSSLESS), RGB),
    "webp-alpha": Case(saved(np.dstack([RGB, ALPHA]), "WEBP", **LOSSLESS), over_white(RGB, ALPHA), 1),
    "webp-orientation": Case(saved(RGB, "WEBP", exif=exif(8), **LOSSLESS), UPRIGHT[8](RGB)),
    "webp-animated": animation("WEBP", **LOSSLESS),
    "avif": Case(saved(SMOOTH, "AVIF", quality=100, subsampling="4:4:4"), SMOOTH, 4),
    "bmp": Case(saved(RGB, "BMP"), RGB),
    "bmp-grey": Case(saved(GREY, "BMP"), grey(GREY)),
    "bmp-1-bit": Case(saved(BINARY, "BMP", "1"), ONE_BIT),
    "ppm": Case(b"P6 24 20 255\n" + RGB.tobytes(), RGB),
    "pgm-16": Case(b"P5 24 20 65535\n" + GREY16.astype(">u2").tobytes(), grey(np.rint(GREY16 / 257))),
    "pgm-plain": Case(b"P2 24 20 255\n" + " ".join(map(str, GREY.ravel())).encode() + b"\n", grey(GREY)),
    "pbm": Case(b"P4 24 20\n" + b"".join(packed(GREY >> 7, 1)), 255 - ONE_BIT),  # in PBM a 1 is black
    "pfm": Case(b"Pf\n24 20\n-1.0\n" + (GREY / 255).astype("<f4")[::-1].tobytes(), grey(GREY)),
    "tiff": Case(saved(RGB, "TIFF"), RGB),
    "tiff-lzw": Case(saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "tiff-orientation": Case(saved(RGB, "TIFF", exif=exif(5)), UPRIGHT[5](RGB)),
    "tiff-pages": animation("TIFF"),
    "tiff-grey-16": Case(saved(GREY16, "TIFF", "I;16"), grey(np.rint(GREY16 / 257))),
    "tiff-grey-16-big-endian": Case(saved(GREY16.astype(">u2"), "TIFF", "I;16B"), grey(np.rint(GREY16 / 257))),
    "tiff-grey-16-white-is-zero": Case(
        white_is_zero_tiff(saved(GREY16, "TIFF", "I;16")), grey(255 - np.rint(GREY16 / 257))
    ),
    "tiff-int-32": Case(
        saved(GREY.astype(np.int32) * 1000 - 70000, "TIFF", "I"),
        grey(np.rint((GREY - float(GREY.min())) * 255 / (float(GREY.max()) - float(GREY.min())))),
        note="stretched",
    ),
    "tiff-float-unit": Case(floats(GREY / 255 * 0.5), grey(np.rint(GREY * 0.5)), 1),
    "tiff-float-wide": Case(floats(WIDE), grey(np.rint((WIDE + 2) / 8 * 255)), 1, note="-2 ... 6 stretched"),
    "tiff-float-holes": Case(floats(HOLED), grey(np.rint(255 * HOLED_SCALED)), 1, note="stretched"),
    "tiff-float-constant": Case(floats(np.full((20, 24), 7.0)), np.zeros((20, 24, 3)), note="stretched"),
    "tiff-cmyk": Case(cmyk_file("TIFF"), CMYK_NAIVE, 1),
    "tiff-cmyk-profile": Case(cmyk_file("TIFF", icc_profile=cmyk_profile()), CMYK_PRINTED, 2),
    "jpeg": Case(saved(SMOOTH, "JPEG", **FINE), SMOOTH, 4),
    "jpeg-progressive": Case(saved(SMOOTH, "JPEG", progressive=True, **FINE), SMOOTH, 4),
    "jpeg-grey": Case(saved(SMOOTH[..., 0], "JPEG", **FINE), grey(SMOOTH[..., 0]), 3),
    "jpeg-cmyk": Case(cmyk_file("JPEG", quality=100), CMYK_NAIVE, 2),
    "jpeg-cmyk-profile": Case(cmyk_file("JPEG", quality=100, icc_profile=cmyk_profile()), CMYK_PRINTED, 3),
    "jpeg-previews": Case(
        saved(SMOOTH, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))], **FINE), SMOOTH, 4
    ),
    "jpeg-damaged-exif": Case(saved(SMOOTH, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", **FINE), SMOOTH, 4),
} | {
    f"jpeg-orientation-{tag}": Case(saved(SMOOTH, "JPEG", exif=exif(tag), **FINE), upright(SMOOTH), 4)
    for tag, upright in UPRIGHT.items()
}

HUGE_HEADER = png(9600, 9900, 1, 0, [])  # above Pillow's limit for a warning, below ours; no pixels follow
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty file"),
    "text": (b"<html>404</html>" * 20, "not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>', "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n", "not an image"),
    "pdf": (b"%PDF-1.4\n" + bytes(99), "not an image"),
    "png-bomb": (png(40000, 40000, 1, 0, []), "too large: 40000 x 40000"),
    "png-huge-header": (HUGE_HEADER, "truncated"),
    "png-tiny": (saved(RGB[:15], "PNG"), "too small: 24 x 15"),
    "png-cut": (saved(RGB, "PNG")[:-300], "truncated"),
    "png-body-damaged": (saved(RGB, "PNG").replace(b"IDAT", b"IDAT\xff\xff", 1), "cannot be decoded"),
    "png-signature-only": (saved(RGB, "PNG")[:8], "not an image"),
    "jpeg-cut": (saved(RGB, "JPEG")[:-200], "truncated"),
    "jpeg-header-only": (saved(RGB, "JPEG")[:100], "cannot be decoded"),
    "gif-cut": (saved(GREY, "GIF")[:-200], "truncated"),
    "webp-cut": (saved(RGB, "WEBP", **LOSSLESS)[:-200], "decode"),
    "bmp-cut": (saved(RGB, "BMP")[:-200], "truncated"),
    "tiff-cut": (b"II*\0\x08\0\0\0", "not an image"),
    "tiff-not-finite": (floats(np.full((20, 24), np.nan)), "no pixel has a finite value"),
}


@pytest.mark.parametrize("name", CASES)
def test_awkward_file_decodes_to_reference_pixels(name: str) -> None:
    case = CASES[name]
    image, (height, width, notes) = decode(case.content), probe(case.content)
    assert (width, height) == image.size
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(float)
    assert pixels.shape == case.expected.shape
    assert np.abs(pixels - case.expected).max() <= case.tolerance + 0.5 * (case.tolerance > 0)
    others = [note for note in notes if note != TRANSPARENT]
    assert len(others) == bool(case.note)
    assert case.note in "".join(others)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused_with_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(Unreadable, match=reason) as caught:
        decode(content)
    with pytest.raises(Unreadable) as seen:
        probe(content)
    assert str(seen.value) == str(caught.value)
    assert "0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["jpeg", "png-rgb", "gif", "webp", "bmp", "tiff-lzw", "ppm", "avif"])
def test_any_cut_or_flip_decodes_or_is_refused(name: str) -> None:
    """Damage anywhere ends in an image or in `Unreadable`, never in another exception."""
    whole = CASES[name].content
    for trial in range(60):
        random = np.random.default_rng(trial)
        damaged = bytearray(whole[: random.integers(len(whole) // 2, len(whole))] if trial % 2 else whole)
        for position in random.integers(0, len(damaged), 4):
            damaged[position] ^= 1 << random.integers(8)
        with suppress(Unreadable):
            assert decode(bytes(damaged)).mode == "RGB"


LOOKED_AT = (
    "jpeg",
    "jpeg-progressive",
    "png-rgb",
    "gif",
    "gif-animated",
    "webp",
    "bmp",
    "tiff-lzw",
    "tiff-pages",
    "avif",
)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_probe_refuses_what_does_not_decode(name: str) -> None:
    """And nothing else, wherever a file is damaged: an eighth of a JPEG is made of all of its bytes."""
    whole = saved(RGB, "JPEG", progressive=True) if name == "jpeg-progressive" else CASES[name].content

    def reason(read: Callable[[bytes], object], content: bytes) -> str:
        try:
            read(content)
        except Unreadable as reason:
            return str(reason)
        return ""

    for trial in range(200):
        random = np.random.default_rng(trial)
        damaged = bytearray(whole[: random.integers(len(whole) // 2, len(whole))] if trial % 2 else whole)
        for position in random.integers(0, len(damaged), trial % 4):
            damaged[position] ^= 1 << random.integers(8)
        assert reason(probe, bytes(damaged)) == reason(decode, bytes(damaged))
