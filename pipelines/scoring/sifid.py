"""SIFID: how far one image is from another, by the features of all their places (Shaham et al. 2019, section 3).

The Frechet distance of two sets of vectors, one for each place of a convolution's maps, of images in their own size.
The paper's has the 192 channels before Inception's second max-pooling; its published code takes the 64 before the
first. Both are reported, under their names.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import CorruptError, InputError
from pipelines.scoring.feature_pass import Images, Rows, Source
from pipelines.scoring.features import Features, repeatable
from pipelines.scoring.intervals import Interval, interval
from pipelines.scoring.metrics import frechet_distance

_DRAWS = 200  # random halves behind an interval

type Maps = Callable[[Tensor], Tensor]


def places(maps: Maps, image_u8: Images, device: torch.device) -> Rows:
    """(3, H, W) -> one vector a place, (h * w, channels)."""
    with torch.inference_mode(), repeatable():
        features = maps(torch.from_numpy(image_u8)[None].float().to(device))[0]
        vectors: Rows = features.flatten(1).T.float().cpu().numpy()
    if not np.isfinite(vectors).all():
        raise CorruptError("sifid: features are not finite", "use other --feature-weights")
    return vectors


def check_pairs(generated: int, real: int) -> None:
    """Raises `InputError` for images, by number, that cannot be compared one by one."""
    if real not in (1, generated):
        partners = f", or {generated:,} in the same order" if generated > 1 else " of the training"
        raise InputError(
            f"sifid: compares one by one, and there are {real:,} real images", f"give the one real image{partners}"
        )


def sifid(
    features: Features, generated: Source, real: Source, decoded: Source | None, seed: int
) -> dict[str, dict[str, Any]]:
    """Entries by name: the mean over generated images of the distance to the real one, or to that in their place."""
    result: dict[str, dict[str, Any]] = {}
    for name, maps in features.maps.items():
        seen = [places(maps, real.images([i])[0], features.device) for i in range(real.count)]
        values = _distances(maps, generated, seen, features.device)
        result[name] = {
            "value": float(values.mean()),
            "interval": _interval(values, seed),
            "std": float(values.std()),
            "autoencoder_floor": float(_distances(maps, decoded, seen, features.device).mean()) if decoded else None,
            "real_floor": None,
            "num_generated": generated.count,
            "num_real": real.count,
        }
    return result


def _distances(maps: Maps, source: Source, real: Sequence[Rows], device: torch.device) -> NDArray[np.float64]:
    """Of each image to the real one in its place, or to the only one, (n,)."""
    seen = (places(maps, source.images([i])[0], device) for i in range(source.count))
    return np.array([frechet_distance(vectors, real[i % len(real)]) for i, vectors in enumerate(seen)])


def _interval(values: NDArray[np.float64], seed: int) -> Interval | None:
    return interval(lambda chosen: float(values[chosen].mean()), (len(values),), float(values.mean()), _DRAWS, seed)
