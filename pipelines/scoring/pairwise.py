"""Metrics of pairs of images, which need no sets: LPIPS diversity, within one set, and SIFID, from set to set."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.errors import CorruptError, InputError, UsageError
from data.images import to_float
from pipelines.scoring.entries import Entry, make_entry, mean_estimate
from pipelines.scoring.metrics import Exact, Rows, frechet_distance
from pipelines.scoring.networks import FeatureNetwork, repeatable
from pipelines.scoring.sets import Images, LazyImages, Sets
from stage2_codegen.frozen.perceptual import VGG_URL, load_lpips

PAIRS = 1000  # at most; of random images, each in one pair, so that the pairs are independent

type Maps = Callable[[Tensor], Tensor]


class LpipsPairs:
    """Extracts the LPIPS distance on VGG-16 of the images 2i and 2i + 1 of a batch (Zhang et al. 2018)."""

    name = "lpips"

    def __init__(self, vgg_weights: Path | None, device: torch.device) -> None:
        if vgg_weights is None:
            raise UsageError("--metrics lpips-diversity: needs VGG-16", f"give {VGG_URL} with --vgg-weights")
        if not vgg_weights.is_file():
            raise InputError(f"{vgg_weights}: is not a file", f"download {VGG_URL} and give it with --vgg-weights")
        self._distance = load_lpips(vgg_weights).network.to(device)
        self._device = device

    def prepare(self, images_u8: Images) -> Tensor:
        return to_float(torch.from_numpy(images_u8))

    @torch.inference_mode()
    def extract(self, prepared: Tensor) -> Rows:
        """(n // 2, 1); one pair at a time, as the distance is a mean over its batch."""
        images = prepared.to(self._device)
        pairs = [self._distance(images[i : i + 1], images[i + 1 : i + 2]) for i in range(0, len(images) - 1, 2)]
        return np.array([[float(pair)] for pair in pairs], np.float32).reshape(-1, 1)


def diversity(pairs: Sets[Rows], seed: int) -> Entry:
    """The mean LPIPS of pairs, each (pairs, 1): how different generated images are from each other.

    A collapsed generator is near zero; the floors are what real images reach, which is the aim. Where there are too few
    of these for a pair, there are no floors.
    """
    floors = (None if rows is None or not len(rows) else float(rows.mean()) for rows in (pairs.decoded, pairs.real))
    counts = {"num_generated": 2 * len(pairs.generated), "num_real": 2 * len(pairs.real), "num_half": None}
    return make_entry(mean_estimate(pairs.generated, seed, 0), *floors, **counts)


def sifid(
    network: FeatureNetwork, generated: LazyImages, real: LazyImages, decoded: LazyImages | None, seed: int
) -> dict[str, Entry]:
    """How far each image is from one real image: the real one in its place, or the only one (Shaham et al. 2019).

    The Frechet distance of two sets of vectors, one for each place of a convolution's maps, of images in their own size
    (section 3). The paper's has the 192 channels before Inception's second max-pooling; its published code takes the 64
    before the first. Both are reported, under their names. The value is the mean over the generated images.
    """
    entries: dict[str, Entry] = {}
    for name, maps in network.maps.items():
        of_real = [local_features(maps, real.at([i])[0], network.device) for i in range(real.count)]
        values = _distances(maps, generated, of_real, network.device)
        floor = float(_distances(maps, decoded, of_real, network.device).mean()) if decoded else None
        estimate = replace(mean_estimate(values, seed), details={"std": float(values.std())})
        entries[name] = make_entry(estimate, floor, None, num_generated=generated.count, num_real=real.count)
    return entries


def _distances(maps: Maps, images: LazyImages, of_real: Sequence[Rows], device: torch.device) -> Exact:
    """From each image to the real one in its place, or to the only one, (n,)."""
    rows = (local_features(maps, images.at([i])[0], device) for i in range(images.count))
    return np.array([frechet_distance(own, of_real[i % len(of_real)]) for i, own in enumerate(rows)])


def local_features(maps: Maps, image_u8: Images, device: torch.device) -> Rows:
    """(3, H, W) -> one vector for each place of its maps, (h * w, channels)."""
    with torch.inference_mode(), repeatable():
        features = maps(torch.from_numpy(image_u8)[None].float().to(device))[0]
        vectors: Rows = features.flatten(1).T.float().cpu().numpy()
    if not np.isfinite(vectors).all():
        raise CorruptError("sifid: features are not finite", "use other --feature-weights")
    return vectors
