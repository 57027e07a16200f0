"""Files and profiles written by hand, with nothing of what reads them, and the formulas of their colours."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Pixels = NDArray[Any]


def grey(values: Pixels) -> Pixels:
    return np.repeat(values[..., None], 3, axis=-1)


def over_white(colours: Pixels, alpha: Pixels) -> Pixels:
    opacity = alpha[..., None] / 255
    return np.rint(colours * opacity + 255 * (1 - opacity))


def blended(colours: Pixels, alpha: Pixels) -> Pixels:
    """Not rounded; alpha from 0 to 1."""
    return 255 + alpha[..., None] * (colours - 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour_type: int, rows: Sequence[bytes], extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def png_of(values: Pixels, colour_type: int, extra: bytes = b"") -> bytes:
    """8 or 16 bits a sample."""
    depth = 8 * values.itemsize
    rows = [row.astype(f">u{values.itemsize}").tobytes() for row in values]
    return png(values.shape[1], values.shape[0], depth, colour_type, rows, extra)


def packed(values: Pixels, bits: int) -> list[bytes]:
    fields = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.ravel()).tobytes() for row in fields]


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x y dx dy


def any_png(values: Pixels, depth: int, colour_type: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of integers (H, W, samples a pixel) of any depth."""
    height, width, _ = values.shape
    passes = [values[y::down, x::across] for x, y, across, down in ADAM7] if interlaced else [values]
    rows = b""
    for part in passes:
        lines = packed(part, depth) if depth < 8 else [row.astype(f">u{depth // 8}").tobytes() for row in part]
        rows += b"".join(b"\0" + line for line in lines) if part.size else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def any_tiff(values: Pixels, bits: int, order: str, photometric: int, profile: bytes | None = None) -> bytes:
    """A TIFF of one strip of integers (H, W, samples a pixel), packed from the highest bit on (TIFF 6.0, section 7)."""
    height, width, count = values.shape
    data = b"".join(packed(values, bits))
    long, short, undefined = "I", "H", "B"
    tags = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [bits] * count),
        (259, short, [1]),
        (262, short, [photometric]),
        (273, long, [8]),
        (277, short, [count]),
        (278, long, [height]),
        (279, long, [len(data)]),
        *([(34675, undefined, list(profile))] if profile else []),
    ]
    directory = 8 + len(data) + len(data) % 2
    entries, behind = struct.pack(f"{order}H", len(tags)), b""
    for code, kind, numbers in tags:
        body = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            place = directory + 2 + 12 * len(tags) + 4 + len(behind)
            behind += body + bytes(len(body) % 2)
            body = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", code, {"B": 7, "H": 3, "I": 4}[kind], len(numbers)) + body.ljust(4, b"\0")
    beginning = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", directory)
    return beginning + data + bytes(len(data) % 2) + entries + bytes(4) + behind


# --- colour profiles, built by hand (ICC.1:2001-04) ---


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes], name: bytes = b"hand made") -> bytes:
    name += b"\0"
    described = b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(78)
    tags = {b"desc": described, b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)} | tags
    offset, table, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for kind, body in tags.items():
        body += bytes(-len(body) % 4)
        table += kind + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    header = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(bodies), b"", 0x02400000, b"prtr", space, connection, b"", b"acsp"
    )
    header = (header + bytes(28) + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0")
    return header + struct.pack(">I", len(tags)) + table + bodies


# XYZ of red, green and blue in columns, adapted to D50 (Bradford)
SRGB_D50 = np.array([[0.43607, 0.38506, 0.14308], [0.22250, 0.71688, 0.06062], [0.01393, 0.09710, 0.71417]])
P3_D50 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])


def power(exponent: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(exponent * 256))


def rgb_profile(columns: Pixels, exponent: float, name: bytes = b"hand made") -> bytes:
    tags = {
        kind + b"XYZ": b"XYZ \0\0\0\0" + fixed(*xyz) for kind, xyz in zip((b"r", b"g", b"b"), columns.T, strict=True)
    }
    return icc(b"RGB ", b"XYZ ", tags | {kind + b"TRC": power(exponent) for kind in (b"r", b"g", b"b")}, name)


def grey_profile(exponent: float) -> bytes:
    return icc(b"GRAY", b"XYZ ", {b"kTRC": power(exponent)})


def linear_rgb_profile() -> bytes:
    return rgb_profile(SRGB_D50, 1)


def seen_in_srgb(colours: Pixels, columns: Pixels, exponent: float) -> Pixels:
    """RGB from 0 to 1, (H, W, 3), of primaries `columns` and a power for a curve, in sRGB from 0 to 255."""
    light = np.clip(colours, 0, 1) ** exponent @ columns.T @ np.linalg.inv(SRGB_D50).T
    return srgb_curve(np.clip(light, 0, 1))


def srgb_curve(light: Pixels) -> Pixels:
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def srgb_light(coded: Pixels) -> Pixels:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
