"""Whatever is named as images are is listed, and what cannot be read is listed with what it is."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from data.errors import InputError
from data.images import open_images
from data.sources import decoding
from data.sources.decoding import Unreadable, decode, probe
from data.sources.kinds import IMAGE_SUFFIXES
from data.sources.listing import is_image
from tests.data.sources.written import P3_D50, any_png, chunk, linear_rgb_profile, seen_in_srgb, srgb_curve, srgb_light

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[0:64, 0:64]
SMOOTH = np.stack([COLUMNS * 3, ROWS * 4, 255 - COLUMNS - ROWS], axis=-1).astype(np.uint8)
LISTED = ".hif .heics .HEIC .mpo .pef .srw .nrw .j2k .jpx .tga .jxr .exr .hdr .dds .pam .pjpeg .x3f .svg"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def saved(file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, file_format, **options)
    return file.getvalue()


def box(kind: bytes, brand: bytes) -> bytes:
    return struct.pack(">I4s4s8s", 20, kind, brand, b"\0\0\0\0mif1") + bytes(200)


KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty file"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "lfs": (LFS, "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html><body>404", "web page"),
    "page after a comment": (b"<!-- x -->\n<html lang=en>", "web page"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "json": (b'{"error": "not found"}', "JSON"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "pdf": (b"%PDF-1.7\n" + bytes(99), "PDF"),
    "heic": (box(b"ftyp", b"heic"), "HEIC"),
    "canon": (box(b"ftyp", b"crx "), "camera raw"),
    "fuji": (b"FUJIFILMCCD-RAW 0201" + bytes(99), "camera raw"),
    "olympus": (b"IIRO\x08\0\0\0" + bytes(99), "camera raw"),
    "film": (box(b"ftyp", b"isom"), "film"),
    "jpeg xl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
    "jpeg 2000": (saved("JPEG2000"), "JPEG 2000"),
    "photoshop": (b"8BPS\0\1" + bytes(99), "Photoshop"),
    "tga": (saved("TGA"), "TGA"),
    "icon": (saved("ICO"), "icon"),
    "dds": (saved("DDS"), "DDS"),
    "pcx": (saved("PCX"), "PCX"),
    "qoi": (saved("QOI"), "QOI"),
    "zip": (b"PK\x03\x04" + bytes(99), "archive"),
    "noise": (b"\x93\x01\x02" * 99, "not an image in a known format"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_image_is_named_whatever_its_own_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "find_spec", lambda package: None)
    content, kind = KINDS[name]
    (tmp_path / "whole.png").write_bytes(saved("PNG"))
    for suffix in (".jpg", ".HIF", ".tif"):
        (tmp_path / f"odd{suffix}").write_bytes(content)
    images = open_images(tmp_path, max_skip=1)
    assert images.keys == ["whole.png"]
    assert len(images.skipped) == 3
    assert all(kind in reason for _, reason in images.skipped)


@pytest.mark.parametrize(("name", "extra"), [("heic", "codegan[heic]"), ("canon", "codegan[raw]")])
def test_the_reason_names_the_extra_that_reads_it(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "find_spec", lambda package: None)
    with pytest.raises(Unreadable) as refused:
        decode(KINDS[name][0])
    assert extra in str(refused.value)


def test_every_suffix_of_images_is_listed() -> None:
    registered = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    stubs = {".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg", ".iim"}  # data, films and captions
    assert registered - stubs <= IMAGE_SUFFIXES
    for name in [
        ".hif",
        ".heics",
        ".HEIC",
        ".mpo",
        ".pef",
        ".srw",
        ".nrw",
        ".j2k",
        ".jpx",
        ".tga",
        ".jxr",
        ".exr",
        ".hdr",
        ".dds",
        ".pam",
        ".pjpeg",
        ".x3f",
        ".svg",
    ]:
        assert is_image(f"a{name}")
    assert not any(map(is_image, ("a.txt", "a.json", "a.mp4", "a.cls", "a", ".jpg")))


@pytest.mark.parametrize("suffix", [".mpo", ".HIF", ".tga", ".jfif", ".pjpeg"])
def test_an_image_is_read_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(saved("JPEG"))
    assert len(open_images(tmp_path)) == 1


def test_a_folder_without_names_of_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001").write_bytes(saved("JPEG"))
    with pytest.raises(InputError, match="IMG_0001"):
        open_images(tmp_path)


def test_heic_is_read_with_the_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", exc_type=ImportError)
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(SMOOTH)).save(file, quality=100, chroma=444)
    assert np.abs(np.asarray(decode(file.getvalue())).astype(int) - SMOOTH).max() <= 4
    assert probe(file.getvalue())[:2] == (64, 64)


def dng() -> bytes:
    """A mosaic in which every second row and column is red, green or blue, all of one grey."""
    file = io.BytesIO()
    identity = [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]
    tags = [
        (50706, 1, 4, b"\1\4\0\0", True),
        (50708, 2, 0, "hand made", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, b"\0\1\1\2", True),
        (50717, 4, 1, 65535, True),
        (50721, 10, 9, identity, True),
        (50778, 3, 1, 21, True),
    ]
    tifffile.imwrite(file, np.full((64, 96), 20000, np.uint16), photometric="cfa", extratags=tags, metadata=None)
    return file.getvalue()


def test_a_camera_raw_file_is_developed_and_its_preview_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rawpy", exc_type=ImportError)
    assert decode(dng()).size == (96, 64)
    assert probe(dng())[:2] == (64, 96)
    monkeypatch.setattr(decoding, "find_spec", lambda package: None)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(SMOOTH, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        writer.write(np.zeros((64, 96), np.uint16), photometric="cfa", metadata=None)
    for content in (dng(), file.getvalue()):
        with pytest.raises(Unreadable, match="camera raw"):
            decode(content)


# --- colour spaces that Pillow leaves aside ---


def bmp_with(profile: bytes) -> bytes:
    """BITMAPV5HEADER, bottom up, with the profile behind the pixels."""
    pixels = SMOOTH[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 64, 64, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16)
    header += b"DEBM" + bytes(36) + bytes(12) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + header + pixels + profile


def gif_with(profile: bytes) -> tuple[bytes, NDArray[np.uint8]]:
    file = io.BytesIO()
    image = Image.fromarray(SMOOTH).quantize(32, dither=Image.Dither.NONE)
    image.save(file, "GIF")
    content = file.getvalue()
    table = 13 + 3 * (2 << (content[10] & 7))
    blocks = b"".join(bytes([len(part)]) + part for part in map(bytes, batched(profile, 255)))
    return content[:table] + b"!\xff\x0bICCRGBG1012" + blocks + b"\0" + content[table:], np.asarray(
        image.convert("RGB")
    )


def test_profiles_of_bmp_and_gif_are_applied() -> None:
    profile = linear_rgb_profile()
    gif, colours = gif_with(profile)
    for content, source in ((bmp_with(profile), SMOOTH), (gif, colours)):
        assert np.abs(np.asarray(decode(content)) - srgb_curve(source / 255)).max() <= 1.5
        assert probe(content).notes == []


def avif_with(primaries: int, curve: int) -> bytes:
    content = saved("AVIF", quality=100, subsampling="4:4:4")
    at = content.index(b"colrnclx") + 8
    return content[:at] + struct.pack(">HH", primaries, curve) + content[at + 4 :]


def test_stated_primaries_of_avif_are_applied_and_hdr_is_refused() -> None:
    plain = np.asarray(decode(avif_with(1, 13)))
    assert np.abs(plain.astype(int) - SMOOTH).max() <= 4
    expected = seen_in_srgb(srgb_light(plain / 255), P3_D50, 1)
    assert np.abs(np.asarray(decode(avif_with(12, 13))) - expected).max() <= 1.5
    with pytest.raises(Unreadable, match="PQ"):
        decode(avif_with(9, 16))


# --- files that lack little ---


def baseline(**options: Any) -> bytes:
    return saved("JPEG", quality=90, **options)


@pytest.mark.parametrize("progressive", [False, True])
def test_only_a_jpeg_without_its_end_marker_is_read(progressive: bool) -> None:
    whole = baseline(progressive=progressive)
    for lacking in (1, 2):
        cut = whole[:-lacking]
        np.testing.assert_array_equal(np.asarray(decode(cut)), np.asarray(decode(whole)))
        assert "end marker" in probe(cut).notes[0]
    for lacking in (12, 40, len(whole) // 3):
        for read in (decode, probe):
            with pytest.raises(Unreadable, match="truncated"):
                read(whole[:-lacking])


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_large_text_does_not_refuse_a_png(kind: bytes) -> None:
    text, packed = b"x" * (3 << 20), zlib.compress(b"x" * (3 << 20))
    body = {b"zTXt": b"Comment\0\0" + packed, b"iTXt": b"Comment\0\1\0\0\0" + packed, b"tEXt": b"Comment\0" + text}[
        kind
    ]
    content = any_png(SMOOTH, 8, 2, chunk(kind, body))
    np.testing.assert_array_equal(np.asarray(decode(content)), SMOOTH)
    behind = content[:-12] + chunk(kind, body) + content[-12:]
    np.testing.assert_array_equal(np.asarray(decode(behind)), SMOOTH)


# --- what would take too much ---


def huge_tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((32, 32), np.uint16), metadata=None, **options)
    return file.getvalue()


def changed(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another number for a tag of one SHORT or LONG."""
    for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
        at = content.find(struct.pack("<HHI", tag, kind, 1))
        if at >= 0:
            numbers = (value, 0) if kind == 3 else (value,)
            return content[:at] + struct.pack(form, tag, kind, 1, *numbers) + content[at + 12 :]
    raise AssertionError(tag)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: changed(changed(huge_tiff(), 256, 60000), 257, 60000), "too large"),
        (lambda: changed(changed(huge_tiff(tile=(16, 16)), 322, 65520), 323, 65520), "too large"),
        (lambda: changed(huge_tiff(), 273, 10**9), "cannot be decoded"),
        (lambda: changed(huge_tiff(), 279, 0), "truncated"),
        (lambda: huge_tiff(compression="zlib")[:-8], "."),
        (lambda: changed(huge_tiff(), 259, 34933), "compression is not supported"),
        (lambda: changed(huge_tiff(), 262, 32844), "colours that are not supported"),
        (lambda: changed(huge_tiff(), 258, 24), "samples that are not supported"),
        (lambda: any_png(SMOOTH, 8, 2, chunk(b"cICP", bytes([9, 16, 0, 1]))), "high dynamic range"),
    ],
)
def test_what_is_too_large_or_rare_is_refused_with_a_reason(make: Callable[[], bytes], reason: str) -> None:
    for read in (decode, probe):
        with pytest.raises(Unreadable, match=reason):
            read(make())
    assert "imagecodecs" in sys.modules  # what unpacks was there to be called
