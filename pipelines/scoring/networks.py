"""The networks that extract features from images.

| name         | scores                                            | network                                        |
|--------------|---------------------------------------------------|------------------------------------------------|
| `inception`  | `fid`, `kid`, `is`                                | Inception-v3 of published numbers, 2048        |
| `squeezenet` | `fd-squeezenet`, `kd-squeezenet`, `is-squeezenet` | torchvision's SqueezeNet 1.0, last module, 512 |
| `offline`    | `fd-offline`, `kd-offline`                        | four fixed random convolutions, 259            |

Each image is resized on its own, as clean-fid does it (Parmar, Zhang, Zhu 2022), and this is the only module that
imports clean-fid. `clean` is antialiased bicubic on floats; `legacy_pytorch` is the bilinear interpolation without
antialiasing of older numbers, whose inputs were in [-1, 1] where `clean` has (x - 128) / 128. Scores of different
networks or resizings cannot be compared, hence their names.
"""

import hashlib
import http.client
import io
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from cleanfid.resize import make_resizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from data.cache import cache_folder
from data.errors import CorruptError, InputError, MismatchError, UnsafeError, UsageError
from data.files.atomic import write_bytes
from data.files.published import read_state_dict
from data.prefetch import prefetch
from data.seeds import OFFLINE_FEATURES
from pipelines.scoring.config import Resize
from stage2_codegen.configs.choices import FeatureName

_OTHER_NAMES = {"fid": "fd", "kid": "kd"}
_THREADS = min(8, torch.get_num_threads())


def score_name(features: str, metric: str) -> str:
    """What a metric on these features is called in scores.json: fid, kid and is are names of Inception's alone."""
    if features == "inception" and metric in ("fid", "kid", "is"):
        return metric
    return f"{_OTHER_NAMES.get(metric, metric)}-{features}"


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with its resizing: uint8 images (n, 3, H, W) of any size -> float32 features (n, dim)."""

    name: FeatureName
    dim: int
    side: int  # pixels the network sees
    forward: Callable[[Tensor], Tensor]  # (n, 3, side, side) in [0, 255] -> (n, dim), or (n, dim + classes)
    device: torch.device
    weights_sha256: str | None = None
    resize: Resize = "clean"
    maps: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """For each kind of `sifid`: images in their own size, (n, 3, H, W) in [0, 255], to (n, channels, h, w)."""

    def score_name(self, metric: str) -> str:
        """What a metric on these features is called in scores.json."""
        return score_name(self.name, metric)

    def __call__(self, images_u8: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.extract(self.prepare(images_u8))[:, : self.dim]

    def prepare(self, images_u8: NDArray[np.uint8]) -> Tensor:
        """Images as the network takes them, on the CPU."""
        clean = make_resizer("PIL", False, "bicubic", (self.side, self.side))
        resize = clean if self.resize == "clean" else partial(_resize_legacy, side=self.side)
        resized = np.stack(list(prefetch(resize, images_u8.transpose(0, 2, 3, 1), threads=_THREADS)))
        return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def extract(self, prepared: Tensor) -> NDArray[np.float32]:
        """Features, with class probabilities where the network has them, (n, dim + classes)."""
        with repeatable():
            features: NDArray[np.float32] = self.forward(prepared.to(self.device)).float().cpu().numpy()
        return features


def _resize_legacy(image_u8: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """As clean-fid does, whose own function switches off all warnings of the process; (H, W, 3) -> (side, side, 3)."""
    image = torch.from_numpy(np.ascontiguousarray(image_u8)).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)
    pixels: NDArray[np.float32] = resized[0].permute(1, 2, 0).clamp(0, 255).numpy()
    return pixels


def repeatable() -> AbstractContextManager[None]:
    """Makes a GPU give the same features every time: it may otherwise round to TF32, or add in varying order."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def load_features(
    name: FeatureName, weights: Path | None, device: torch.device, resize: Resize = "clean"
) -> FeatureNetwork:
    """The network `name`, with `weights` from a file; only `inception` finds its own, in the cache or on the web.

    Raises `InputError` for weights that are not there, `UnsafeError` for a file that may hold code, `CorruptError` or
    `MismatchError` for one that is damaged or another network's.
    """
    if weights is not None and not weights.is_file():
        raise InputError(f"{weights}: is not a file", "give the file of the weights to --feature-weights")
    if name == "inception":
        return _load_inception(weights, device, resize)
    if name == "squeezenet":
        return _load_squeezenet(weights, device, resize)
    if weights is not None:
        raise UsageError(f"{weights}: the offline features take no weights", "leave out --feature-weights")
    network = _OfflineNetwork().to(device)
    maps = {"sifid-offline": network.early_maps}
    return FeatureNetwork("offline", _OFFLINE_DIM, 128, network, device, None, resize, maps)


def _load_inception(weights: Path | None, device: torch.device, resize: Resize) -> FeatureNetwork:
    inception = Inception(weights, device)
    middle, scale = (128.0, 128.0) if resize == "clean" else (127.5, 127.5)

    def forward(images: Tensor) -> Tensor:
        return inception((images - middle) / scale)

    maps = {
        "sifid-64": lambda images: inception.before_pooling(images / 127.5 - 1, 64),
        "sifid-192": lambda images: inception.before_pooling(images / 127.5 - 1, 192),
    }
    return FeatureNetwork("inception", 2048, 299, forward, device, INCEPTION_SHA256, resize, maps)


INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_MAX_DOWNLOAD = 1 << 28  # bytes; the file has about 96 million
_POOLINGS = {64: 0, 192: 1}  # which of the max-poolings takes maps of so many channels


class Inception:
    """The Inception-v3 of published FID numbers: NVIDIA's TorchScript translation of the weights of 2015, verified.

    (n, 3, H, W) in [-1, 1] -> pooled features and class probabilities (n, 2048 + 1008), or the maps of one layer.

    Raises `UnsafeError` for any file but the known one, `InputError` when it is not there and cannot be downloaded,
    `CorruptError` when it is damaged.
    """

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        content = _verified_bytes(weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but the file is what it is
            network = torch.jit.load(io.BytesIO(content), map_location=device).eval()
        self.layers: nn.Module = network.layers
        self.class_weights: Tensor = network.output.weight  # (1008, 2048)

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities are without the bias of the last layer, as in the original score (Salimans et al. 2016)."""
        features = self.layers(images).view(len(images), -1)
        return torch.cat([features, (features @ self.class_weights.T).softmax(dim=1)], dim=1)

    def before_pooling(self, images: Tensor, channels: Literal[64, 192]) -> Tensor:
        """Maps before the first max-pooling, of 64 channels, or before the second, of 192.

        The poolings are the first layers without weights. Raises `MismatchError` for maps of other channels.
        """
        layers = list(self.layers.children())
        poolings = [position for position, layer in enumerate(layers) if not layer.state_dict()]
        maps: Tensor = nn.Sequential(*layers[: poolings[_POOLINGS[channels]]])(images)
        if maps.shape[1] != channels:
            raise MismatchError(
                f"Inception: has maps of {maps.shape[1]} channels where {channels} were expected",
                "use --features offline, and report this",
            )
        return maps


def _verified_bytes(weights: Path | None) -> bytes:
    """The verified file: a TorchScript file is code, so no other is ever loaded."""
    path = weights or cache_folder() / INCEPTION_FILE
    if weights is None and not path.is_file():
        _download(path)
    content = path.read_bytes()
    if _sha256(content) == INCEPTION_SHA256:
        return content
    if weights is None:
        raise CorruptError(f"{path}: its SHA-256 is wrong", "delete the file, and it will be downloaded again")
    raise UnsafeError(
        f"{path}: is not NVIDIA's {INCEPTION_FILE}, and a TorchScript file can run code",
        f"download {INCEPTION_URL}, SHA-256 {INCEPTION_SHA256}",
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _download(target: Path) -> None:
    print(f"downloading {INCEPTION_URL}", flush=True)
    try:
        with urllib.request.urlopen(INCEPTION_URL, timeout=60) as response:
            content = response.read(_MAX_DOWNLOAD)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{target}: is not there, and {INCEPTION_URL} cannot be read ({error})",
            f"copy {INCEPTION_FILE} here and name it with --feature-weights, or use --features offline",
        ) from error
    if _sha256(content) != INCEPTION_SHA256:
        raise CorruptError(
            f"{INCEPTION_URL}: the download has the wrong SHA-256, and was not kept",
            "try again, or name a good copy with --feature-weights",
        )
    try:
        write_bytes(target, content)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", "set CODEGAN_CACHE to a folder you can write to") from error


def _load_squeezenet(weights: Path | None, device: torch.device, resize: Resize) -> FeatureNetwork:
    if weights is None:
        raise UsageError(
            "--features squeezenet: needs ImageNet weights",
            "give a file of torchvision's squeezenet1_0 with --feature-weights, or use --features offline",
        )
    layers = load_convolutions("squeezenet1_0", weights, device)
    classifier = load_convolutions("squeezenet1_0", weights, device, "classifier")

    def forward(images: Tensor) -> Tensor:
        maps: Tensor = layers(imagenet_units(images))
        return torch.cat([maps.mean(dim=(2, 3)), classifier(maps).flatten(1).softmax(dim=1)], dim=1)

    return FeatureNetwork("squeezenet", 512, 224, forward, device, _sha256(weights.read_bytes()), resize)


def load_convolutions(
    name: Literal["squeezenet1_0", "vgg16"],
    weights: Path,
    device: torch.device,
    part: Literal["features", "classifier"] = "features",
) -> nn.Sequential:
    """One part of a network of torchvision, with weights from a file of its whole state.

    Raises `UnsafeError` for a file that may hold code, `CorruptError` or `MismatchError` for one that is damaged or
    another network's.
    """
    prefix = f"{part}."
    tensors = {k.removeprefix(prefix): v for k, v in read_state_dict(weights).items() if k.startswith(prefix)}
    with torch.device("meta"):  # no random initialisation, which would draw from the global generator
        layers: nn.Sequential = getattr(torchvision.models.get_model(name, weights=None), part)
    try:
        layers.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise MismatchError(
            f"{weights}: is not torchvision's {name} ({str(error).splitlines()[-1].strip()})",
            f"give the weights of {name}, not of another version",
        ) from error
    return layers.float().eval().requires_grad_(False).to(device)


def imagenet_units(images: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [0, 255], with the mean and deviation that torchvision's networks were trained on."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=images.device).view(3, 1, 1)
    return (images / 255 - mean) / std


_OFFLINE_CHANNELS = (16, 24, 40, 48)  # of maps with 126, 62, 30 and 14 pixels a side
_OFFLINE_DIM = 3 + 2 * sum(_OFFLINE_CHANNELS)
_SLOPE = 0.2
_FLAT = 0.01  # deviation below which a map counts as flat


class _OfflineNetwork(nn.Module):
    """Fixed random features: mean colour, then of each channel of four layers its relative mean and log deviation.

    (n, 3, 128, 128) in [0, 255] -> (n, 259). The first layer's kernels have zero mean: left in, brightness drowns
    sharpness and noise. Logarithms weigh a halved contrast alike at all scales. Nothing here knows what an object is.
    """

    def __init__(self) -> None:
        super().__init__()
        # Philox's raw words, unlike numpy's or torch's samplers, are fixed for all versions.
        words = np.random.Philox(key=OFFLINE_FEATURES)
        channels = 3
        for index, width in enumerate(_OFFLINE_CHANNELS):
            fan_in = channels * 9
            uniform = (words.random_raw(width * fan_in) >> np.uint64(11)) * 2.0**-53
            bound = (6 / ((1 + _SLOPE**2) * fan_in)) ** 0.5  # He et al. 2015
            kernel = ((2 * uniform - 1) * bound).reshape(width, channels, 3, 3)
            if index == 0:
                kernel -= kernel.mean(axis=(2, 3), keepdims=True)
            self.register_buffer(f"kernel{index}", torch.from_numpy(kernel.astype(np.float32)))
            channels = width

    def forward(self, images: Tensor) -> Tensor:
        statistics = [(images / 127.5 - 1).mean(dim=(2, 3))]
        for maps in self._maps(images):
            deviation = maps.std(dim=(2, 3), correction=0) + _FLAT
            statistics += [maps.mean(dim=(2, 3)) / deviation, deviation.log()]
        return torch.cat(statistics, dim=1)

    def early_maps(self, images: Tensor) -> Tensor:
        """The 24 maps of the second layer, at half the size."""
        _, maps, *_ = self._maps(images)
        return maps

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        maps = images / 127.5 - 1
        for index, kernel in enumerate(self.buffers()):
            maps = functional.leaky_relu(functional.conv2d(maps, kernel, stride=min(index + 1, 2)), _SLOPE)
            yield maps
