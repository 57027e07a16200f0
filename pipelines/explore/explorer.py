"""What the page can draw with a trained generator: samples, mixes, walks, steps along directions, projections.

A picture is named by a word, its point: `12` is the sample of seed 12, `p0` the first picture that was projected.
"""

import re
import threading
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import UsageError
from data.sizes import Size, height_width
from pipelines.project import Search, psnr_between
from stage2_codegen.directions import directions
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator, Seeds
from stage2_codegen.interpolation import slerp

DIRECTIONS = 8
CANDIDATES = 256  # of a projection; a person waits for it

type Picture = NDArray[np.uint8]  # (3, H, W)


class Settings(NamedTuple):
    """How seeds are drawn."""

    class_name: str | None = None
    truncation: float = 1.0


class Place(NamedTuple):
    z: Tensor  # (1, z_dim)
    noise_seed: int  # of all noise besides z


class Projected(NamedTuple):
    point: str
    picture: Picture
    psnr: float  # dB, against the picture that was given


class Explorer:
    """Pictures of one generator, drawn for one caller at a time.

    Explorers that share a process share the lock: noise is drawn from torch's global generators.
    """

    def __init__(self, name: str, generator: ImageGenerator, lock: threading.Lock) -> None:
        self.name = name
        self._generator = generator
        self._lock = lock
        self._projected: list[Tensor] = []  # z (1, z_dim)
        self._search: tuple[str | None, Search] | None = None  # the last one, and the class of its candidates

    @property
    def image_size(self) -> Size:
        return self._generator.image_size

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the page needs to know, as JSON has it."""
        with self._lock:
            gates = self._generator.gates
        return {
            "name": self.name,
            "image_size": height_width(self.image_size),
            "nimg": self._generator.nimg,
            "classes": list(self._generator.class_names),
            "gates": gates,
            "directions": min(DIRECTIONS, self._generator.generator.noise_dim),
        }

    @cached_property
    def _directions(self) -> Tensor:
        return directions(self._generator, DIRECTIONS)

    def sample(self, seed: int, settings: Settings) -> Picture:
        """What `codegan sample` draws of this seed."""
        with self._lock:
            picture: Picture = self._drawing(settings)([seed])[0]
        return picture

    def shifted(self, point: str, amounts: Sequence[float], settings: Settings) -> Picture:
        """The picture of a point, moved along the first directions by `amounts` in deviations of the noise."""
        with self._lock:
            place = self._place(point, settings)
            if len(amounts) > len(self._directions):
                raise UsageError(f"amounts: are {len(amounts)}", f"give at most {len(self._directions)}")
            along = self._directions[: len(amounts)]
            z = place.z + torch.tensor([list(amounts)], dtype=along.dtype, device=along.device) @ along
            return self._draw(z, z, 0.0, place.noise_seed)

    def between(self, corners: Sequence[str], x: float, y: float, settings: Settings) -> Picture:
        """A point between four others, (x, y) from (0, 0) at the first over (1, 0) and (0, 1) to (1, 1) at the last.

        The sphere is crossed along x first and then along y, at equal angles. Noise besides z is that of the first.
        """
        with self._lock:
            first, second, third, fourth = (self._place(point, settings) for point in corners)
            share = torch.tensor([x])
            top, bottom = slerp(first.z, second.z, share), slerp(third.z, fourth.z, share)
            return self._draw(top, bottom, y, first.noise_seed)

    def mixed(self, content: str, style: str, gates: Collection[int] | None, settings: Settings) -> Picture:
        """The content of one point in the style of another; raises what `ImageGenerator.mix` raises."""
        with self._lock:
            given = self._given(content), self._given(style)
            picture: Picture = self._drawing(settings).mix(*given, gates)[0, 0]
        return picture

    def project(self, picture: Picture, steps: int, class_name: str | None) -> Projected:
        """Find a picture of the generator's size, and keep what was found as a point."""
        with self._lock:
            if self._search is None or self._search[0] != class_name:
                self._search = class_name, Search(self._drawing(Settings(class_name)), CANDIDATES)
            z = self._search[1](picture[None], steps).to(self._generator.device)
            self._projected.append(z)
            found = self._draw(z, z, 0.0, NOISE_SEED)
            point = f"p{len(self._projected) - 1}"
        return Projected(point, found, psnr_between(picture, found))

    def _drawing(self, settings: Settings) -> ImageGenerator:
        return self._generator.drawing(*settings)

    def _place(self, point: str, settings: Settings) -> Place:
        given = self._given(point)
        if isinstance(given, Tensor):
            return Place(given, NOISE_SEED)
        return Place(self._drawing(settings).noise(given), given[0])

    def _given(self, point: str) -> Seeds | Tensor:
        """The one seed, or z (1, z_dim), that a point names; raises `UsageError` where it names no picture."""
        parts = re.fullmatch(r"(p?)(\d{1,18})", point, re.ASCII)
        if not parts:
            raise UsageError(f"point {point}: is not a picture", "give a seed, as in 12, or a projection, as in p0")
        number = int(parts[2])
        if not parts[1]:
            return [number]
        if number >= len(self._projected):
            raise UsageError(f"point {point}: was not projected here", "project the picture again")
        return self._projected[number]

    def _draw(self, start: Tensor, stop: Tensor, share: float, noise_seed: int) -> Picture:
        picture: Picture = self._generator.between([(start, stop, share)], noise_seed)[0]
        return picture
