"""Pictures inside an HTML page: data URIs, each within a budget of bytes."""

import base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import to_bytes, to_image
from data.sources.decoding import decode

_JPEG_STEPS = ((4096, 95), (2048, 90), (1024, 90), (768, 90), (512, 88), (384, 85), (256, 80))  # longer side, quality


class Embedded(NamedTuple):
    uri: str
    width: int  # pixels
    height: int


def embed_file(content: bytes, budget: int) -> Embedded:
    """A picture file, of at most about `budget` bytes before base64: as it is, or else as a JPEG, smaller and smaller.

    Raises `data.sources.decoding.Unreadable` for anything else than a picture.
    """
    image = decode(content)
    if len(content) <= budget and content.startswith(b"\x89PNG"):
        return _embedded("png", content, image)
    return _shrunk(image, budget)


def embed(image: Image.Image, budget: int) -> Embedded:
    """A picture in memory, within the budget as `embed_file` does it."""
    content = to_bytes(image, "PNG")
    return _embedded("png", content, image) if len(content) <= budget else _shrunk(image.copy(), budget)


def embed_array(image_u8: NDArray[np.uint8], budget: int) -> Embedded:
    """(3, H, W)."""
    return embed(to_image(image_u8), budget)


def _shrunk(image: Image.Image, budget: int) -> Embedded:
    content = b""
    for side, quality in _JPEG_STEPS:
        image.thumbnail((side, side))
        content = to_bytes(image, "JPEG", quality=quality)
        if len(content) <= budget:
            break
    return _embedded("jpeg", content, image)


def _embedded(kind: str, content: bytes, image: Image.Image) -> Embedded:
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", image.width, image.height)
