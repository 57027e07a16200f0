"""Decoding of image files: from any format that is accepted to upright RGB pixels in sRGB.

In this order:

* Samples are read as the file holds them. The first frame of an animation, or page of several, is taken, and this is
  noted. Unsigned integers of up to 16 bits are scaled to 8. Floats, and integers that are signed or of more bits:
  values within [0, 1] are scaled by 255, anything else is stretched from its finite minimum ... maximum, and noted.
* Colours are converted to sRGB from what the file says they are: an embedded profile, whatever its name, or the gAMA,
  cHRM and cICP chunks of a PNG. A profile that does not fit is ignored, which is noted. CMYK without a profile becomes
  (1 - ink) * (1 - black).
* Transparent pixels are blended with white.
* EXIF orientation is applied.

Files that are empty, damaged, above `MAX_PIXELS` or below `MIN_SIDE` raise `Unreadable` with the reason.
"""

import io
import warnings
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from data.errors import one_line
from data.sources import embedded, jpeg, png, tiff
from data.sources.colour import Misfit, is_srgb
from data.sources.kinds import CAMERA_RAW, HEIC, Unreadable, describe, is_camera_raw, is_heic
from data.sources.raster import MISFIT, Raster, stretched, to_rgb

MAX_PIXELS = 100_000_000
MIN_SIDE = 16
_MAX_BYTES = 8 * MAX_PIXELS  # of samples: four of 16 bits
# Decoders with a history of safe use; nothing that runs a program (EPS) or guesses by name (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
Image.MAX_IMAGE_PIXELS = None  # `_check_size` looks at the header, and refuses where Pillow would only warn
warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on odd metadata; what matters becomes a note or a skip

_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SEVERAL = "several frames or pages, the first is used"
_LIBRAW_SRGB = (2.4, 12.92)  # exponent, and slope of its linear part
_LIBRAW_SIDEWAYS = (5, 6)


class ImageInfo(NamedTuple):
    """What is known of an image without its pixels."""

    height: int  # upright
    width: int
    notes: list[str]


class _Decoded(NamedTuple):
    image: Image.Image  # RGB, not yet upright, and perhaps reduced
    size: tuple[int, int]  # width and height in full, not yet upright
    orientation: int
    notes: list[str]


def decode(content: bytes) -> Image.Image:
    """Decode a file's bytes to an upright RGB image. Raises `Unreadable` with a reason."""
    image, _, orientation, _ = _decode(content, reduced=False)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def probe(content: bytes) -> ImageInfo:
    """Find out at less cost what `decode` would find; it refuses the same files, and notes what is unusual.

    Pixels are decoded, since only this finds a truncated body, but those of a JPEG at an eighth of each side.
    """
    _, (width, height), orientation, notes = _decode(content, reduced=True)
    sides = (width, height) if orientation in _SIDEWAYS else (height, width)
    return ImageInfo(*sides, notes)


def _decode(content: bytes, reduced: bool) -> _Decoded:
    if not content:
        raise Unreadable("empty file")
    try:
        if is_camera_raw(content):
            return _from_camera(content, reduced)
        return _from_tiff(content, reduced) if tiff.is_tiff(content) else _from_pillow(content, reduced)
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unreadable(describe(content)) from None
    except Exception as error:  # decoders raise nearly any class of exception on damage
        raise Unreadable(f"cannot be decoded: {one_line(error)}") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {width} x {height} pixels, the limit is {MAX_PIXELS / 1e6:g} million")
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"too small: {width} x {height} pixels, each side needs at least {MIN_SIDE}")


def _from_camera(content: bytes, reduced: bool) -> _Decoded:
    """Develop a camera raw file, with the white balance that the camera chose."""
    if find_spec("rawpy") is None:
        raise Unreadable(CAMERA_RAW)
    import rawpy  # an optional dependency

    with rawpy.imread(io.BytesIO(content)) as raw:
        sides = raw.sizes.iwidth, raw.sizes.iheight
        _check_size(*sides)
        pixels = raw.postprocess(use_camera_wb=True, gamma=_LIBRAW_SRGB, half_size=reduced)
        size = sides[::-1] if raw.sizes.flip in _LIBRAW_SIDEWAYS else sides
    return _Decoded(Image.fromarray(pixels), size, 1, [])


def _from_tiff(content: bytes, reduced: bool) -> _Decoded:
    with tiff.first_page(content) as page:
        if tiff.is_camera_raw(page):
            return _from_camera(content, reduced)
        size = page.imagewidth, page.imagelength
        _check_size(*size)
        if tiff.is_left_to_pillow(page):
            return _from_pillow(content, reduced)
        notes = [_SEVERAL] if tiff.has_further_pages(page) else []
        rgb = to_rgb(tiff.read(page, _MAX_BYTES, notes), notes)
        return _Decoded(Image.fromarray(rgb), size, tiff.orientation(page), notes)


def _from_pillow(content: bytes, reduced: bool) -> _Decoded:
    stated = png.parse(content) if content.startswith(png.SIGNATURE) else None
    with Image.open(io.BytesIO(stated.content if stated else content), formats=_formats(content)) as image:
        size = image.size
        _check_size(*size)
        if reduced:
            image.draft(None, (size[0] // 8, size[1] // 8))
        try:
            image.load()
        except OSError:
            if image.format not in ("JPEG", "MPO") or not _lacks_only_its_end(content):
                raise
            whole = _from_pillow(content + jpeg.END, reduced)
            return whole._replace(notes=[*whole.notes, "lacks its end marker, but no pixel"])
        notes = [_SEVERAL] if _has_several_frames(image) else []
        orientation = _orientation(image)
        if orientation is None:
            notes.append("damaged EXIF data, taken as upright")
        profile = _profile(content, image, stated, notes)
        if stated and png.needs_libpng(stated):
            raster = _from_channels(png.samples(stated), profile)
        elif _is_plain(image, profile):  # nearly all images
            return _Decoded(image.convert("RGB"), size, orientation or 1, notes)
        else:
            raster = _raster(image, profile, notes)
        return _Decoded(Image.fromarray(to_rgb(raster, notes)), size, orientation or 1, notes)


def _formats(content: bytes) -> tuple[str, ...]:
    if not is_heic(content):
        return FORMATS
    if find_spec("pillow_heif") is None:
        raise Unreadable(HEIC)
    import pillow_heif  # an optional dependency

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _lacks_only_its_end(content: bytes) -> bool:
    """Whether all pixels of a JPEG are there: whatever follows then changes none of them."""
    if not jpeg.has_all_scans(content):
        return False
    decoded = []
    for padding in jpeg.PADDINGS:
        with Image.open(io.BytesIO(content.rstrip(b"\xff") + padding + jpeg.END), formats=FORMATS) as image:
            decoded.append(image.tobytes())
    return len(set(decoded)) == 1


def _has_several_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # the further frames in a camera's JPEG are previews
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there is a second one, and it is damaged
        return True


def _orientation(image: Image.Image) -> int | None:
    """The orientation in EXIF, 1 to 8; None where it is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parser raises nearly any class of exception on damage
        return None


def _profile(content: bytes, image: Image.Image, stated: png.Png | None, notes: list[str]) -> bytes | None:
    try:
        return (
            png.profile(stated) if stated else image.info.get("icc_profile") or embedded.profile(content, image.format)
        )
    except Misfit:
        notes.append(MISFIT)
        return None


def _is_plain(image: Image.Image, profile: bytes | None) -> bool:
    """Whether the pixels are opaque grey or RGB in sRGB as they are."""
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        return False
    try:
        return not profile or is_srgb(profile, len(image.getbands()))
    except Misfit:  # which is noted later
        return False


def _raster(image: Image.Image, profile: bytes | None, notes: list[str]) -> Raster:
    if image.mode == "F":
        return Raster(stretched(np.asarray(image)[..., None], notes, np.uint8))
    if image.mode == "I":  # Pillow scales a PGM of more than 8 bits to 16
        return Raster(np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None])
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _from_channels(np.asarray(image.convert("LA" if grey else "RGBA")), profile)
    if image.mode == "CMYK":
        return Raster(np.asarray(image), None, profile)
    return _from_channels(np.asarray(image.convert("L" if grey else "RGB")), profile)


def _from_channels(samples: NDArray[Any], profile: bytes | None) -> Raster:
    """Grey or RGB, of 8 or 16 bits, whose last channel is opacity if their number is even."""
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[2] % 2:
        return Raster(samples, None, profile)
    opacity = samples[..., -1].astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    return Raster(samples[..., :-1], opacity, profile)
