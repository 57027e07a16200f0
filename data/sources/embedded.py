"""Colour spaces that Pillow leaves aside in BMP, GIF, AVIF and HEIF."""

import struct

from data.sources.colour import rgb_profile
from data.sources.kinds import Unreadable
from data.sources.png import HDR, PRIMARIES, SRGB_PRIMARIES

_GIF_PROFILE = b"!\xff\x0bICCRGBG1012"
_BMP_HEADER, _BMP_V5_BYTES = 14, 124
_COLR_WITHIN = 1 << 16  # bytes; boxes about the whole image come first


def profile(content: bytes, file_format: str | None) -> bytes | None:
    """The ICC profile of a file, where Pillow does not give it; None for sRGB. Raises `Unreadable` for HDR."""
    if file_format == "BMP":
        return _of_bmp(content)
    if file_format == "GIF":
        return _of_gif(content)
    return _of_boxes(content) if file_format in ("AVIF", "HEIF") else None


def _of_bmp(content: bytes) -> bytes | None:
    """BITMAPV5HEADER: a profile may be embedded, at an offset from the header."""
    if len(content) < _BMP_HEADER + _BMP_V5_BYTES or struct.unpack_from("<I", content, _BMP_HEADER)[0] != _BMP_V5_BYTES:
        return None
    kind, offset, size = struct.unpack_from("<4s52xII", content, _BMP_HEADER + 56)
    start = _BMP_HEADER + offset
    return content[start : start + size] if kind == b"DEBM" else None  # "MBED", the highest byte first


def _of_gif(content: bytes) -> bytes | None:
    """An application extension of ICC.1, B.4, in blocks of up to 255 bytes."""
    at = content.find(_GIF_PROFILE)
    if at < 0:
        return None
    at += len(_GIF_PROFILE)
    blocks = b""
    while at < len(content) and content[at]:
        blocks += content[at + 1 : at + 1 + content[at]]
        at += 1 + content[at]
    return blocks


def _of_boxes(content: bytes) -> bytes | None:
    """ISO 23000-22, 7.3.6: codes of H.273, of which the curve is taken as that of sRGB, as browsers do."""
    at = content.find(b"colrnclx", 0, _COLR_WITHIN)
    if at < 0 or len(content) < at + 12:
        return None
    primaries, curve = struct.unpack_from(">HH", content, at + 8)
    if curve in HDR:
        raise Unreadable(
            f"its high dynamic range ({HDR[curve]}) has no one form in sRGB; export it as an ordinary image"
        )
    colours, white = PRIMARIES.get(primaries, PRIMARIES[2])
    return None if colours == SRGB_PRIMARIES else rgb_profile(colours, white, "srgb")
