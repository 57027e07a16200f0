"""Decoding of image files: from any format that is accepted to upright RGB pixels in sRGB.

In this order:

* EXIF orientation is applied. The first frame of an animation, or page of several, is taken, and this is noted.
* 16-bit grey is scaled by 1/257. Float and 32-bit integer pixels: values within [0, 1] are scaled by 255, anything
  else is stretched from its finite minimum ... maximum, and noted.
* Transparent pixels are blended with white.
* Colours with an embedded profile other than sRGB, CMYK included, are converted to sRGB. Profiles of grey images are
  ignored, and so is one that does not fit, which is noted. CMYK without a profile is converted by Pillow.

Files that are empty, damaged, above `MAX_PIXELS` or below `MIN_SIDE` raise `Unreadable` with the reason.
"""

import io
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from data.errors import one_line

MAX_PIXELS = 100_000_000
MIN_SIDE = 16
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


class Unreadable(Exception):
    """Why one file is skipped."""


class ImageInfo(NamedTuple):
    """What is known of an image without its pixels."""

    height: int  # upright
    width: int
    notes: list[str]


def decode(content: bytes) -> Image.Image:
    """Decode a file's bytes to an upright RGB image. Raises `Unreadable` with a reason."""
    return _opened(content, lambda image: _to_rgb(image, []))


def probe(content: bytes) -> ImageInfo:
    """Find out at less cost what `decode` would find; it refuses the same files, and notes what is unusual.

    Pixels are decoded, since only this finds a truncated body, but those of a JPEG at an eighth of each side.
    """

    def found(image: Image.Image) -> ImageInfo:
        width, height = image.size
        notes: list[str] = []
        image.draft(None, (width // 8, height // 8))
        _to_rgb(image, notes)
        sides = (width, height) if _orientation(image) in _SIDEWAYS else (height, width)
        if _has_several_frames(image):
            notes.insert(0, "several frames or pages, the first is used")
        return ImageInfo(*sides, notes)

    return _opened(content, found)


def _opened[Result](content: bytes, use: Callable[[Image.Image], Result]) -> Result:
    if not content:
        raise Unreadable("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(*image.size)
            return use(image)
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unreadable("not an image in a known format") from None
    except Exception as error:  # decoders raise nearly any class of exception on damage
        raise Unreadable(f"cannot be decoded: {one_line(error)}") from error


def _has_several_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # the further frames in a camera's JPEG are previews
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there is a second one, and it is damaged
        return True


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {width} x {height} pixels, the limit is {MAX_PIXELS / 1e6:g} million")
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"too small: {width} x {height} pixels, each side needs at least {MIN_SIDE}")


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    image.load()
    inverted = image.format == "TIFF" and image.mode.startswith("I;16") and _tiff_white_is_zero(image)
    image = _upright(image, notes)
    if image.mode.startswith("I;16"):
        return _from_16_bit(image, inverted)
    if image.mode in ("I", "F"):
        return _from_wide(image, notes)
    return _to_srgb(_over_white(image), profile, notes)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    orientation = _orientation(image)
    if orientation is None:
        notes.append("damaged EXIF data, taken as upright")
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _orientation(image: Image.Image) -> int | None:
    """The orientation in EXIF, 1 to 8; None where it is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parser raises nearly any class of exception on damage
        return None


def _tiff_white_is_zero(image: Image.Image) -> bool:
    """Whether 0 means white, which Pillow takes into account up to 8 bits only."""
    photometric: Any = image.getexif().get(ExifTags.Base.PhotometricInterpretation)
    return bool(photometric == 0)


def _from_16_bit(image: Image.Image, inverted: bool) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_wide(image: Image.Image, notes: list[str]) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise Unreadable("no pixel has a finite value")
    low, high = float(finite.min()), float(finite.max())
    if image.format == "PPM" and image.mode == "I":  # a 16-bit PGM
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        notes.append(f"values {low:g} ... {high:g} stretched to 0 ... 255")
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-30))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Remove transparency, and convert modes other than CMYK and L to RGB."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode in ("CMYK", "L") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            transform = _srgb_transform(profile, image.mode)
            return image if transform is None else ImageCms.applyTransform(image, transform) or image
        except (ImageCms.PyCMSError, OSError):
            notes.append("its colour profile does not fit and is ignored")
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion from a profile; None where it is sRGB already, since that would only add rounding."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,  # with the black point, what photo editors use
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
