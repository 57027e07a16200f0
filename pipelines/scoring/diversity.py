"""LPIPS diversity: how different generated images are from each other; a collapsed generator is near zero."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError, UsageError
from data.images import to_float
from pipelines.scoring.feature_pass import Images, Rows
from stage2_codegen.frozen.perceptual import VGG_URL, load_lpips

PAIRS = 1000  # at most; of random images, each in one pair, so that the pairs are independent


class LpipsPairs:
    """A view of the images 2i and 2i + 1 of a batch: their LPIPS distance on VGG-16 (Zhang et al. 2018)."""

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
    def look(self, prepared: Tensor) -> Rows:
        """(n // 2, 1); one pair at a time, as the distance is a mean over its batch."""
        images = prepared.to(self._device)
        pairs = [self._distance(images[i : i + 1], images[i + 1 : i + 2]) for i in range(0, len(images) - 1, 2)]
        return np.array([[float(pair)] for pair in pairs], np.float32).reshape(-1, 1)
