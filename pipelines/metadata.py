"""`codegan metadata`: what each image of a store shows, as the vectors that some generators are given beside the noise.

The vector of an image is the mean over space of VGG-16's last convolution, relu5_3, 512 numbers (LRM GAN, section 3.3).
It is computed once, by a frozen network, so that neither training nor sampling needs VGG. A generator keeps some of
the vectors and draws one for every sample, so its samples draw on training images: say so where they are scored.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.advice import Done
from data.console import ProgressReport, scan_progress
from data.errors import InputError, MismatchError, UsageError
from data.images import ImageSet
from data.latents import LatentStore
from data.sources.locations import Location
from data.store.images import store_images
from pipelines.configs import MetadataConfig
from pipelines.scoring.networks import imagenet_units, load_convolutions, repeatable
from stage2_codegen.frozen.perceptual import VGG_URL
from stage2_codegen.image_generator import Describe
from stage2_codegen.picture_vectors import load_bank, save_bank

_RELU5_3 = 30  # layers of torchvision's vgg16.features up to relu5_3; only a pooling layer follows
_PREPROCESSING = "centre crop and Lanczos to image_size, ImageNet mean and deviation"


def metadata(config: MetadataConfig) -> Done:
    """Write one vector an image, in the store's order; mirrored copies (`encode --flip`) get none of their own.

    Raises `InputError` without weights, and `MismatchError` when the images, or the vectors that `out` holds already,
    are not those of the store.
    """
    out = config.out or _beside(config.store)
    store = LatentStore.open(config.store)
    _check_file(config.weights, "--weights")
    with config.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {
        "network": "vgg16 relu5_3, mean over space",
        "weights_sha256": digest,
        "preprocessing": _PREPROCESSING,
        "image_size": store.image_size,
        "data": store.seal["data"],
        "data_fingerprint": store.seal.get("data_fingerprint"),
    }
    if _is_there(out, origin):
        print(f"{out}: is complete already")
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        layers = _layers(config.weights, device)
        images = store_images(  # in the order of its rows
            store,
            "give it with --data, or encode again",
            config.data,
            store.image_size,
            on_progress=scan_progress(),
            allow_hosts=config.allow_host,
        )
        vectors = _describe(images, layers, device, config.batch_size)
        save_bank(out, vectors, origin)
        print(f"{len(vectors)} vectors of {vectors.shape[1]}")
    train = ["codegan", "train", "lrm", "--store", str(config.store), "--model.metadata", str(out)]
    return Done([out], [*train, "--out", "runs/lrm"])


def describer(weights: Path) -> Describe:
    """Return what makes vectors (n, 512) of pictures (n, 3, H, W), as `metadata` does for those of a store."""
    _check_file(weights, "--vgg-weights")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = _layers(weights, device)

    def describe(images_u8: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode(), repeatable():
            return _pooled(images_u8, layers, device)

    return describe


def _check_file(weights: Path, flag: str) -> None:
    if not weights.is_file():
        raise InputError(f"{weights}: is not a file", f"download {VGG_URL} and give it to {flag}")


def _layers(weights: Path, device: torch.device) -> nn.Sequential:
    return load_convolutions("vgg16", weights, device)[:_RELU5_3]


def _beside(store: Location) -> Path:
    if not isinstance(store, Path):
        raise UsageError(f"{store}: the vectors cannot lie beside a store elsewhere", "give --out FOLDER")
    return store.with_name(f"{store.name}-metadata")


def _is_there(out: Path, origin: dict[str, Any]) -> bool:
    """Whether `out` holds these very vectors.

    Raises `UsageError` when it holds anything but metadata and `MismatchError` when that is of another data set; what
    other weights made of the same images is replaced.
    """
    if not out.exists():
        return False
    try:
        _, present = load_bank(out)
    except (InputError, MismatchError) as error:
        raise UsageError(f"{out}: exists and is not metadata", "choose another --out") from error
    if present.get("data_fingerprint") != origin["data_fingerprint"]:
        raise MismatchError(
            f"{out}: holds metadata of {', '.join(present.get('data', ['other images']))}", "choose another --out"
        )
    return all(present.get(name) == value for name, value in origin.items())


@torch.inference_mode()
def _describe(images: ImageSet, layers: nn.Sequential, device: torch.device, batch_size: int) -> Tensor:
    """(N, 512), in the order of the images."""
    vectors: list[Tensor] = []
    with repeatable(), ProgressReport("metadata", len(images), "img") as report:
        for images_u8 in images.batches(batch_size):
            vectors.append(_pooled(images_u8, layers, device))
            report.update(sum(map(len, vectors)))
    return torch.cat(vectors)


def _pooled(images_u8: NDArray[np.uint8], layers: nn.Sequential, device: torch.device) -> Tensor:
    maps: Tensor = layers(imagenet_units(torch.from_numpy(images_u8).to(device)))
    return maps.mean((2, 3)).cpu()
