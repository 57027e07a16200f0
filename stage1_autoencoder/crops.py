"""Training crops and the noise on their latents, both functions of the seed and a position in the shuffled sequence."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import ImageSet, to_array
from data.seeds import CODE_NOISE, CROP, derive_seed
from data.store.order import SampleOrder


class RandomCrops:
    """Square crops of random place and scale, resized to `size` pixels, half of them mirrored.

    With `jitter` J each colour channel is stretched about mid-grey by a factor uniform in 1 - J ... 1 + J and shifted
    by up to J of half the range, which changes light, contrast and tint at once.
    """

    def __init__(self, images: ImageSet, indices: NDArray[np.int64], size: int, seed: int, jitter: float = 0.0) -> None:
        self._images, self._indices, self._size, self._seed, self._jitter = images, indices, size, seed, jitter
        self._order = SampleOrder(len(indices), seed, shard_rows=len(indices))

    def batch(self, start: int, count: int) -> NDArray[np.uint8]:
        """Return the crops at positions start ... start + count - 1 of the endless sequence, (count, 3, size, size)."""
        chosen = self._indices[self._order.rows(start, count)]
        return np.stack([self._crop(int(index), start + offset) for offset, index in enumerate(chosen)])

    def _crop(self, index: int, position: int) -> NDArray[np.uint8]:
        image = self._images.pil(index)
        random = np.random.default_rng(derive_seed(self._seed, position, CROP))
        shorter = min(image.size)
        # Log-uniform between `size`, the native detail that the encoder meets at large sizes, and the whole view.
        side = min(self._size, shorter) * (shorter / min(self._size, shorter)) ** random.uniform()
        left, top = (random.uniform(0, extent - side) for extent in image.size)
        crop = image.resize(
            (self._size, self._size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        pixels = to_array(crop)
        pixels = pixels[:, :, ::-1] if random.uniform() < 0.5 else pixels
        return _jittered(pixels, random.uniform(-self._jitter, self._jitter, (2, 3, 1, 1))) if self._jitter else pixels


def _jittered(pixels: NDArray[np.uint8], change: NDArray[np.float64]) -> NDArray[np.uint8]:
    stretch, shift = change
    return ((pixels - 127.5) * (1 + stretch) + 127.5 * (1 + shift)).round().clip(0, 255).astype(np.uint8)


class CodeNoise:
    """Gaussian noise for the latents of crops, whose deviation is uniform in 0 ... `largest` for each crop."""

    def __init__(self, code_shape: tuple[int, int, int], largest: float, seed: int) -> None:
        self._code_shape, self._largest, self._seed = code_shape, largest, seed

    def batch(self, start: int, count: int) -> NDArray[np.float32]:
        """Return noise (count, C, h, w) for the crops at positions start ... start + count - 1."""
        return np.stack([self._noise(position) for position in range(start, start + count)])

    def _noise(self, position: int) -> NDArray[np.float32]:
        random = np.random.default_rng(derive_seed(self._seed, position, CODE_NOISE))
        # Small deviations keep the decoder exact on the encoder's latents, large ones prepare it for a generator's.
        deviation = self._largest * random.random(dtype=np.float32)
        return deviation * random.standard_normal(self._code_shape, np.float32)
