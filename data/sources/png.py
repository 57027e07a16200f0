"""What Pillow leaves aside in a PNG: its stated colours, samples of 16 bits, and transparency of few bits.

References are to Portable Network Graphics, third edition.
"""

import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from data.sources.colour import Curve, Misfit, rgb_profile
from data.sources.kinds import Unreadable

logging.getLogger("imagecodecs").setLevel(logging.CRITICAL + 1)  # remarks of libpng on odd metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_TEXT = 1 << 20  # bytes of a text chunk, unpacked, that are kept
_MAX_TEXTS = 32 << 20  # of all text chunks
_MAX_PROFILE = 32 << 20  # bytes; tables of many inks take a few million
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_LENGTHS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32}  # others are damaged
_GREY = (0, 4)  # colour types

# Recommendation ITU-T H.273: x and y of red, green and blue, then of white; and curves, by their codes.
_D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_SMPTE_C = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
PRIMARIES: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: (SRGB_PRIMARIES, _D65),
    2: (SRGB_PRIMARIES, _D65),  # unspecified
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65),
    6: (_SMPTE_C, _D65),
    7: (_SMPTE_C, _D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, _D65),
}
_CURVES: dict[int, Curve] = {
    1: "bt709",
    2: "srgb",
    4: 2.2,
    5: 2.8,
    6: "bt709",
    8: 1.0,
    13: "srgb",
    14: "bt709",
    15: "bt709",
}
HDR = {16: "PQ", 18: "HLG"}
_SRGB_GAMMAS = (0.45, 0.46)  # gAMA near 1/2.2 stands for the curve of sRGB (table 10), as libpng takes it


class Png(NamedTuple):
    """A PNG as it is handed to a decoder, and what it states."""

    content: bytes  # without its profile and texts too large to unpack
    depth: int  # bits a sample
    grey: bool
    transparent: bool  # one grey, colour or palette entry is, by a tRNS chunk
    colours: dict[bytes, bytes]  # bodies of the chunks that state colours, by type


def parse(content: bytes) -> Png:
    """Look through the chunks. Damage is left for the decoder to tell."""
    colours: dict[bytes, bytes] = {}
    dropped: list[tuple[int, int]] = []
    transparent, texts = False, 0
    for kind, start, end in _chunks(content):
        body = content[start + 8 : end - 4] if kind in (*_COLOURS, *_TEXTS) else b""
        if kind in _COLOURS and len(body) == _LENGTHS.get(kind, len(body)):
            colours.setdefault(kind, body)
        if kind in _TEXTS:
            size = _text_size(kind, body)
            texts += size
            if size > _MAX_TEXT or texts > _MAX_TEXTS:
                dropped.append((start, end))
        if kind == b"iCCP":
            dropped.append((start, end))
        transparent = transparent or kind == b"tRNS"
    depth, colour_type = content[24:26].ljust(2, b"\0")
    return Png(_without(content, dropped), depth, colour_type in _GREY, transparent, colours)


def is_whole(content: bytes) -> bool:
    """Whether every chunk matches the CRC that it carries, from the signature to an end that nothing follows."""
    if not content.startswith(SIGNATURE):
        return False
    last, stop = b"", len(SIGNATURE)
    for last, start, stop in _chunks(content):  # noqa: B007
        if zlib.crc32(content[start + 4 : stop - 4]) != int.from_bytes(content[stop - 4 : stop]):
            return False
    return last == b"IEND" and stop == len(content)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every whole chunk."""
    start = len(SIGNATURE)
    while len(content) >= start + 12:
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):
            return
        yield kind, start, end
        start = end


def _without(content: bytes, dropped: list[tuple[int, int]]) -> bytes:
    if not dropped:
        return content
    starts, ends = zip(*dropped, strict=True)
    kept = zip((0, *ends), (*starts, len(content)), strict=True)
    return b"".join(content[start:end] for start, end in kept)


def _text_size(kind: bytes, body: bytes) -> int:
    """How many bytes a text takes when it is unpacked, and `_MAX_TEXT` + 1 where it takes more than that."""
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        packed = rest[1:]
    else:
        return min(len(body), _MAX_TEXT + 1)
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_TEXT + 1))
    except zlib.error:
        return len(body)


def needs_libpng(png: Png) -> bool:
    """Whether Pillow would round 16 bits a sample to 8, or compare a transparent grey of 2 or 4 bits with 8."""
    return png.depth == 16 or (png.grey and png.transparent)


def samples(png: Png) -> NDArray[Any]:
    """(H, W) or (H, W, channels): grey or RGB of 8 or 16 bits, with an alpha channel where anything is transparent."""
    import imagecodecs  # late: slow to load

    decoded: NDArray[Any] = imagecodecs.png_decode(png.content)
    return decoded


def profile(png: Png) -> bytes | None:
    """The ICC profile of what a PNG states (4.3, 11.3.2), None for sRGB. Raises `Misfit` for a damaged one.

    Of several statements the first counts in the order of cICP, iCCP, sRGB, and gAMA with cHRM.
    """
    stated = png.colours
    if b"cICP" in stated:
        return _from_codes(stated[b"cICP"])
    if b"iCCP" in stated:
        return _unpacked(stated[b"iCCP"])
    if b"sRGB" in stated:
        return None
    return _from_numbers(stated.get(b"gAMA"), stated.get(b"cHRM"))


def _from_codes(body: bytes) -> bytes | None:
    primaries, curve, matrix, full_range = body
    if curve in HDR:
        raise Unreadable(f"its high dynamic range ({HDR[curve]}) has no one form in sRGB; export it as an ordinary PNG")
    if primaries not in PRIMARIES or curve not in _CURVES or matrix != 0 or full_range != 1:
        raise Unreadable(f"its colours (cICP {', '.join(map(str, body))}) are not supported; export it in sRGB")
    colours, white = PRIMARIES[primaries]
    return rgb_profile(colours, white, _CURVES[curve])


def _unpacked(body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(rest[1:], _MAX_PROFILE)
    except zlib.error as error:
        raise Misfit from error
    if not unpacking.eof:
        raise Misfit
    return profile


def _from_numbers(gamma_body: bytes | None, primaries_body: bytes | None) -> bytes | None:
    """11.3.2.1: gAMA is the exponent that makes samples of light; 11.3.2.2: cHRM begins with the white point."""
    gamma = struct.unpack(">I", gamma_body)[0] / 100000 if gamma_body else 0.0
    points = [value / 100000 for value in struct.unpack(">8I", primaries_body)] if primaries_body else []
    like_srgb = not gamma or _SRGB_GAMMAS[0] <= gamma <= _SRGB_GAMMAS[1]
    if like_srgb and not points:
        return None
    white, primaries = (tuple(points[:2]), tuple(points[2:])) if points else (_D65, SRGB_PRIMARIES)
    return rgb_profile(primaries, white, "srgb" if like_srgb else 1 / gamma)
