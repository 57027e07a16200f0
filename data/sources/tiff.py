"""TIFF of any depth and layout: integers and floats, strips and tiles, interleaved and planar, either byte order.

tifffile reads it, and imagecodecs unpacks it. Pillow takes some layouts for others (planes of 16 bits for interleaved
samples), rounds 16 bits to 8 before colours can be converted, and knows no RGB of floats. Its
CIELAB is wrong by up to 30 levels. It reads what tifffile does not convert: YCbCr, JPEG and fax of at most 8 bits.
"""

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.sources.colour import lab_to_srgb
from data.sources.kinds import CONVERT, Unreadable, describe
from data.sources.raster import Raster, rescaled, stretched

if TYPE_CHECKING:
    from tifffile import TiffPage

logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # remarks on odd metadata; what matters becomes a reason

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic TIFF, and BigTIFF
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _CIELAB, _CFA, _LINEAR_RAW = 0, 1, 2, 3, 5, 8, 32803, 34892
_COLOURS = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _INKS: 4,
    _CIELAB: 3,
}  # samples that are no extra ones
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, deflate (old), LZMA, Zstandard
_JPEG = 7
_DEPTHS = (*range(1, 17), 32, 64)  # readers disagree about 24 bits
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples that are opacity
_OPACITY = (_ASSOCIATED, _UNASSOCIATED, 999)  # Corel Draw writes a number of its own
_CMYK = 1  # InkSet
_ORIENTATION, _SUB_IFDS, _INK_SET, _DNG_VERSION = 274, 330, 332, 50706  # tags


def is_tiff(content: bytes) -> bool:
    return content.startswith(_BEGINNINGS)


@contextmanager
def first_page(content: bytes) -> Iterator["TiffPage"]:
    """The first page of a TIFF. Raises `Unreadable` if there is none."""
    import tifffile  # late: slow to load, and few images need it

    try:
        file = tifffile.TiffFile(io.BytesIO(content))
        page = file.pages.first
    except (tifffile.TiffFileError, IndexError) as error:
        raise Unreadable(describe(content)) from error
    with file:
        yield page


def is_camera_raw(page: "TiffPage") -> bool:
    """Whether this is a camera's raw file, whose first page is a small preview, or has one colour in each pixel."""
    preview = page.is_reduced and _SUB_IFDS in page.tags
    return preview or _DNG_VERSION in page.tags or int(page.photometric) in (_CFA, _LINEAR_RAW)


def has_further_pages(page: "TiffPage") -> bool:
    try:
        page.parent.pages[1]
    except IndexError:
        return False
    except Exception:  # there is one, and it is damaged
        return True
    return True


def orientation(page: "TiffPage") -> int:
    value = page.tags.valueof(_ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def is_left_to_pillow(page: "TiffPage") -> bool:
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    return bits <= 8 and (int(page.photometric) not in _COLOURS or int(page.compression) not in _LOSSLESS)


def read(page: "TiffPage", max_bytes: int, notes: list[str]) -> Raster:
    """Read a page that is not left to Pillow, of at most `max_bytes` of samples. Raises `Unreadable`."""
    photometric = int(page.photometric)
    count = _COLOURS.get(photometric, 0)
    _check_kind(page, photometric, count)
    samples = _read_samples(page, max_bytes)
    colours, extra = samples[..., :count], samples[..., count:]
    kinds = [int(kind) for kind in page.extrasamples]
    if photometric == _RGB and extra.shape[2] == 1 and not kinds:  # as many writers leave it out
        kinds = [_UNASSOCIATED]
    at = next((index for index, kind in enumerate(kinds[: extra.shape[2]]) if kind in _OPACITY), None)
    if extra.shape[2] > (at is not None):
        notes.append("extra channels are ignored")
    profile = None if photometric == _CIELAB else page.iccprofile or None
    opacity = None if at is None else _to_opacity(page, extra[..., at])
    is_associated = at is not None and kinds[at] == _ASSOCIATED
    # 8 bits at once where nothing more is computed, so that nothing is rounded twice
    to = np.uint16 if profile or is_associated or photometric == _INKS else np.uint8
    scaled = _to_colours(page, colours, to, notes)
    if opacity is None or not is_associated:
        return Raster(scaled, opacity, profile)
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing is opaque, any colour will do
        unassociated = np.nan_to_num(scaled / opacity[..., None], posinf=0).clip(0, 65535)
    return Raster(np.rint(unassociated).astype(np.uint16), opacity, profile)


def _check_kind(page: "TiffPage", photometric: int, count: int) -> None:
    """Raise `Unreadable` for what is not certain to be read right."""
    kind = f"{page.samplesperpixel} x {page.bitspersample} bits"
    if not count or page.samplesperpixel < count:
        raise Unreadable(f"a TIFF of colours that are not supported ({_name(page.photometric)}, {kind}); {CONVERT}")
    if int(page.compression) not in (*_LOSSLESS, _JPEG):
        raise Unreadable(f"a TIFF whose compression is not supported ({_name(page.compression)}, {kind}); {CONVERT}")
    if page.dtype is None or page.dtype.kind not in "buif" or page.bitspersample not in _DEPTHS:
        raise Unreadable(f"a TIFF of samples that are not supported ({_name(page.sampleformat)}, {kind}); {CONVERT}")
    if photometric == _INKS and page.tags.valueof(_INK_SET, _CMYK) != _CMYK:
        raise Unreadable(f"a TIFF of inks other than CMYK; {CONVERT}")
    if page.imagedepth != 1:
        raise Unreadable(f"a TIFF of {page.imagedepth} layers in depth; save each as an image")


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _read_samples(page: "TiffPage", max_bytes: int) -> NDArray[Any]:
    """(H, W, samples a pixel), in the order of this machine."""
    assert page.dtype is not None
    bytes_per_pixel = page.samplesperpixel * page.dtype.itemsize
    tile = max(page.imagewidth, page.tilewidth) * max(page.imagelength, page.tilelength)
    if max(page.imagewidth * page.imagelength, tile) * bytes_per_pixel > max_bytes:
        raise Unreadable(f"too large: its samples take more than {max_bytes / 1e6:g} MB")
    segments = math.prod(page.chunked)
    stored = [offset and count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if len(stored) < segments or not all(stored[:segments]):  # tifffile would fill these parts with zeros
        raise Unreadable("image file is truncated: parts of it are missing")
    samples: NDArray[Any] = page.asarray(maxworkers=1, squeeze=False)
    return samples[:, 0, :, :, :].transpose(1, 2, 0, 3).reshape(page.imagelength, page.imagewidth, -1)


def _to_opacity(page: "TiffPage", samples: NDArray[Any]) -> NDArray[np.float32]:
    white = 1 if samples.dtype.kind == "f" else (1 << page.bitspersample) - 1
    if samples.dtype.kind == "i":
        white = np.iinfo(samples.dtype).max
    opacity: NDArray[np.float32] = np.nan_to_num(samples.astype(np.float32) / np.float32(white)).clip(0, 1)
    return opacity


def _to_colours(
    page: "TiffPage", samples: NDArray[Any], to: "type[np.uint8] | type[np.uint16]", notes: list[str]
) -> NDArray[Any]:
    """Grey, RGB or CMYK from 0 to the maximum of `to`."""
    photometric = int(page.photometric)
    if photometric == _PALETTE:
        return rescaled(_from_palette(page, samples[..., 0]), 65535, to)
    if photometric == _CIELAB:
        return np.rint(lab_to_srgb(_to_lab(page, samples)) * np.iinfo(to).max).astype(to)
    if samples.dtype.kind in "if" or page.bitspersample > 16:
        colours = stretched(samples, notes, to)
    else:
        colours = rescaled(samples, (1 << page.bitspersample) - 1, to)
    return np.iinfo(to).max - colours if photometric == _WHITE_IS_ZERO else colours


def _to_lab(page: "TiffPage", samples: NDArray[Any]) -> NDArray[np.float32]:
    """L* from 0 to 100, a* and b*, which are signed and, of 16 bits, in steps of 1/256 (TIFF 6.0, section 23)."""
    if page.bitspersample not in (8, 16) or samples.dtype.kind == "f":
        raise Unreadable(f"a TIFF of CIELAB colours of {page.bitspersample} bits; {CONVERT}")
    bits, step = (8, 1) if page.bitspersample == 8 else (16, 256)
    lightness = samples[..., :1].astype(f"u{bits // 8}").astype(np.float32) * (100 / ((1 << bits) - 1))
    signed = samples[..., 1:].astype(f"i{bits // 8}").astype(np.float32) / step
    return np.concatenate([lightness, signed], axis=-1)


def _from_palette(page: "TiffPage", indices: NDArray[Any]) -> NDArray[np.uint16]:
    """RGB of 16 bits."""
    if page.colormap is None or indices.dtype.kind not in "bu" or indices.max(initial=0) >= page.colormap.shape[1]:
        raise Unreadable("its palette is missing or too short")
    palette = page.colormap.T.astype(np.uint16)
    if palette.max() < 256:  # written with 8 bits, which libtiff takes so as well
        palette = palette * np.uint16(257)
    return palette[indices.astype(np.intp)]
