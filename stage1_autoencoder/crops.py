"""Training crops: position in the shuffled sequence -> one square uint8 crop, and nothing else decides it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import ImageSet, to_array
from data.sampling import SampleOrder
from data.seeds import derive_seed


class RandomCrops:
    """Square crops of random place and scale, resized to `size`, mirrored half of the time.

    The side of a crop is log-uniform between `size` (native detail, what the encoder meets at large sizes) and the
    image's shorter side (whole views).
    """

    def __init__(self, images: ImageSet, indices: NDArray[np.int64], size: int, seed: int) -> None:
        self._images, self._indices, self._size, self._seed = images, indices, size, seed
        self._order = SampleOrder(len(indices), seed, shard_rows=len(indices))

    def batch(self, start: int, count: int) -> NDArray[np.uint8]:
        """Crops at positions start ... start + count - 1 of the endless sequence, (count, 3, size, size)."""
        chosen = self._indices[self._order.rows(start, count)]
        return np.stack([self._crop(int(index), start + offset) for offset, index in enumerate(chosen)])

    def _crop(self, index: int, position: int) -> NDArray[np.uint8]:
        image = self._images.pil(index)
        random = np.random.default_rng(derive_seed(self._seed, position))
        shorter = min(image.size)
        side = min(self._size, shorter) * (shorter / min(self._size, shorter)) ** random.uniform()
        left, top = (random.uniform(0, extent - side) for extent in image.size)
        crop = image.resize(
            (self._size, self._size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        pixels = to_array(crop)
        return pixels[:, :, ::-1] if random.uniform() < 0.5 else pixels
