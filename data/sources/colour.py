"""Colours of any stated space, as sRGB.

LittleCMS converts, by way of imagecodecs: Pillow's own binding takes 8 bits a sample, too few for linear light.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_MODELS = {1: "gray", 3: "rgb", 4: "cmyk"}  # by samples a pixel
_SPACES = {"gray": b"GRAY", "rgb": b"RGB ", "cmyk": b"CMYK"}  # as the header of a profile names them
_RELATIVE_COLORIMETRIC, _BLACK_POINT_COMPENSATION = 1, 0x2000  # what photo editors use
# Otherwise LittleCMS replaces curves by a coarse table for all but 8-bit RGB, which is wrong by up to 12 levels.
_EXACT = 0x0100
_BAND = 1 << 20  # pixels converted at once, which bounds the memory that it takes
_D50_WHITE = np.array([0.9642, 1, 0.8249], np.float32)  # X, Y, Z
_SRGB_OF_XYZ = np.linalg.inv(  # from the primaries of sRGB, adapted to D50
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
).astype(np.float32)

type Curve = Literal["srgb", "bt709"] | float  # a float is the exponent that makes light of samples


class Misfit(Exception):
    """A profile is damaged, or one for images of another kind."""


def to_srgb(samples: NDArray[Any], profile: bytes | None) -> NDArray[np.uint8]:
    """Samples of grey, RGB or CMYK (all ink is the maximum), uint8 or uint16 (H, W, 1, 3 or 4), to sRGB (H, W, 3).

    Without a profile grey and RGB are sRGB already, and CMYK becomes (1 - ink) * (1 - black). A profile of RGB applies
    to grey as well, which is red = green = blue. Raises `Misfit`.
    """
    if profile is not None and not is_srgb(profile, samples.shape[2]):
        if samples.shape[2] == 1 and _is_of_rgb(profile):
            samples = np.repeat(samples, 3, axis=2)
        return _converted(samples, profile, _MODELS[samples.shape[2]])
    if samples.shape[2] == 4:
        white = np.uint32(np.iinfo(samples.dtype).max)
        paper = white - samples.astype(np.uint32)  # what the inks leave of it
        samples = ((paper[..., :3] * paper[..., 3:] + white // 2) // white).astype(samples.dtype)
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.broadcast_to(samples, (*samples.shape[:2], 3))


def _converted(samples: NDArray[Any], profile: bytes, model: str) -> NDArray[np.uint8]:
    import imagecodecs  # late: slow to load, and few images need it

    if profile[16:20] != _SPACES[model]:
        raise Misfit
    height, width = samples.shape[:2]
    rows = max(1, _BAND // width)
    flags = _BLACK_POINT_COMPENSATION | (_EXACT if model == "gray" or samples.dtype == np.uint16 else 0)
    converted = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(samples[top : top + rows])
        try:
            converted[top : top + rows] = imagecodecs.cms_transform(
                band[..., 0] if model == "gray" else band,
                profile,
                _srgb(),
                colorspace=model,
                outcolorspace="rgb",
                planar=False,
                outdtype=np.uint8,
                intent=_RELATIVE_COLORIMETRIC,
                flags=flags,
            )
        except (imagecodecs.CmsError, ValueError) as error:
            raise Misfit from error
    return converted


def lab_to_srgb(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIELAB under D50, (H, W, 3) with L* from 0 to 100, as sRGB from 0 to 1 (CIE 15:2004, 8.2.1.1, IEC 61966-2-1)."""
    middle = (lab[..., 0] + 16) / 116
    cubed = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], axis=-1)
    stimuli = np.where(cubed > 6 / 29, cubed**3, 3 * (6 / 29) ** 2 * (cubed - 4 / 29)) * _D50_WHITE
    light = (stimuli @ _SRGB_OF_XYZ.T).clip(0, 1)
    srgb: NDArray[np.float32] = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return srgb


def _is_of_rgb(profile: bytes) -> bool:
    return profile[16:20] == _SPACES["rgb"]


@lru_cache(maxsize=32)
def is_srgb(profile: bytes, channels: int) -> bool:
    """Whether a profile changes nothing beyond rounding in images of 1, 3 or 4 channels. Raises `Misfit`.

    Judged by what it does, for names are given freely.
    """
    if channels == 4:
        return False
    channels = 3 if _is_of_rgb(profile) else channels
    model = _MODELS[channels]
    steps = np.arange(0, 256, 15 if model == "rgb" else 1, dtype=np.uint8)
    colours = np.stack(np.meshgrid(*[steps] * channels), axis=-1).reshape(1, -1, channels)
    return bool(np.abs(_converted(colours, profile, model).astype(int) - colours).max() <= 1)


@lru_cache
def _srgb() -> bytes:
    import imagecodecs

    profile: bytes = imagecodecs.cms_profile("srgb")
    return profile


@lru_cache(maxsize=32)
def rgb_profile(primaries: tuple[float, ...], white: tuple[float, ...], curve: Curve) -> bytes:
    """An ICC profile of red, green and blue (x and y of each), a white point and a curve. Raises `Misfit`."""
    import imagecodecs

    try:
        profile: bytes = imagecodecs.cms_profile(
            "rgb",
            primaries=primaries,
            whitepoint=white,
            transferfunction=_light(curve) if isinstance(curve, str) else None,
            gamma=None if isinstance(curve, str) else curve,
        )
    except (imagecodecs.CmsError, ValueError) as error:
        raise Misfit from error
    return profile


def _light(curve: Literal["srgb", "bt709"]) -> NDArray[np.uint16]:
    """Light by sample, both from 0 to 65535: IEC 61966-2-1, or the inverse of BT.709, item 1.2."""
    sample = np.linspace(0, 1, 4096)
    if curve == "srgb":
        light = np.where(sample <= 0.04045, sample / 12.92, ((sample + 0.055) / 1.055) ** 2.4)
    else:
        light = np.where(sample < 0.081, sample / 4.5, ((sample + 0.099) / 1.099) ** (1 / 0.45))
    return np.rint(light * 65535).astype(np.uint16)
