"""Networks that turn images into the vectors a score compares.

| name         | scores                           | network                                                     |
|--------------|----------------------------------|-------------------------------------------------------------|
| `inception`  | `fid`, `kid`                     | the Inception-v3 of published FID numbers, 2048 features    |
| `squeezenet` | `fd-squeezenet`, `kd-squeezenet` | torchvision's SqueezeNet 1.0, last fire module, 512 pooled  |
| `offline`    | `fd-offline`, `kd-offline`       | four fixed random convolutions, 259, needs no download      |

Every image is resized by clean-fid (Parmar, Zhang, Zhu 2022: antialiased bicubic on floats, one image at a time), and
this is the only module that imports it. Scores of different networks cannot be compared, hence their names.
"""

import hashlib
import http.client
import io
import os
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from cleanfid.resize import make_resizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from data.errors import CorruptError, InputError, MismatchError, UnsafeError, UsageError
from data.prefetch import prefetch
from data.storage import write_bytes
from data.torch_files import read_state_dict

FeatureName = Literal["inception", "squeezenet", "offline"]
_DISTANCES = {"fid": "fd", "kid": "kd"}

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_MAX_DOWNLOAD = 1 << 28  # bytes; the file has about 96 million


@dataclass(frozen=True)
class Features:
    """A feature network with its resizing: uint8 images (n, 3, H, W) of any size -> float32 (n, dim)."""

    name: FeatureName
    dim: int
    side: int  # pixels the network sees
    network: Callable[[Tensor], Tensor]  # (n, 3, side, side) in [0, 255] -> (n, dim)
    device: torch.device
    weights_sha256: str | None = None

    def score_name(self, metric: str) -> str:
        """The name under which `fid` or `kid` on these features is reported; only Inception's may be called so."""
        return metric if self.name == "inception" else f"{_DISTANCES[metric]}-{self.name}"

    @torch.inference_mode()
    def __call__(self, images_u8: NDArray[np.uint8]) -> NDArray[np.float32]:
        resize = make_resizer("PIL", False, "bicubic", (self.side, self.side))
        resized = np.stack(list(prefetch(resize, images_u8.transpose(0, 2, 3, 1))))
        batch = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        with repeatable():
            features: NDArray[np.float32] = self.network(batch).float().cpu().numpy()
        return features


def repeatable() -> AbstractContextManager[None]:
    """A GPU's features whatever its settings: else it rounds to TF32, or picks kernels that add in varying order."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def load_features(name: FeatureName, weights: Path | None, device: torch.device) -> Features:
    """The feature network `name`, with `weights` from a file; only `inception` can find its own (cache, download).

    Raises `InputError` for weights that are not there, `UnsafeError` for a file that may hold code, `CorruptError` or
    `MismatchError` for one that is damaged or another network's.
    """
    if weights is not None and not weights.is_file():
        raise InputError(f"{weights}: is not a file", "give the file of the weights to --feature-weights")
    if name == "inception":
        return _load_inception(weights, device)
    if name == "squeezenet":
        return _load_squeezenet(weights, device)
    if weights is not None:
        raise UsageError(f"{weights}: the offline features take no weights", "leave out --feature-weights")
    return Features("offline", _OFFLINE_DIM, 128, _OfflineNetwork().to(device), device)


def _load_inception(weights: Path | None, device: torch.device) -> Features:
    content = _inception_bytes(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but the file is what it is
        layers = torch.jit.load(io.BytesIO(content), map_location=device).eval().layers

    def network(images: Tensor) -> Tensor:
        """As clean-fid's InceptionV3W calls it: (n, 3, 299, 299) in [0, 255] -> (n, 2048)."""
        pooled: Tensor = layers((images - 128) / 128)
        return pooled.view(len(images), 2048)

    return Features("inception", 2048, 299, network, device, INCEPTION_SHA256)


def _inception_bytes(weights: Path | None) -> bytes:
    """The verified file: a TorchScript file is code, so no other is ever loaded."""
    if weights is not None:
        content = weights.read_bytes()
        if not _is_inception(content):
            raise UnsafeError(
                f"{weights}: is not NVIDIA's {INCEPTION_FILE}, and a TorchScript file can run code",
                f"download {INCEPTION_URL}, SHA-256 {INCEPTION_SHA256}",
            )
        return content
    cached = _cache_folder() / INCEPTION_FILE
    if not cached.is_file():
        _download_inception(cached)
    content = cached.read_bytes()
    if not _is_inception(content):
        raise CorruptError(f"{cached}: its SHA-256 is wrong", "delete the file; it is downloaded again")
    return content


def _is_inception(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == INCEPTION_SHA256


def _cache_folder() -> Path:
    if "CODEGAN_CACHE" in os.environ:
        return Path(os.environ["CODEGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codegan"


def _download_inception(target: Path) -> None:
    print(f"downloading {INCEPTION_URL}", flush=True)
    try:
        with urllib.request.urlopen(INCEPTION_URL, timeout=60) as response:
            content = response.read(_MAX_DOWNLOAD)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{target}: is not there, and {INCEPTION_URL} cannot be read ({error})",
            f"copy {INCEPTION_FILE} here and name it with --feature-weights, or use --features offline",
        ) from error
    if not _is_inception(content):
        raise CorruptError(
            f"{INCEPTION_URL}: what came back has the wrong SHA-256, nothing was kept",
            "try again, or name a good copy with --feature-weights",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", "set CODEGAN_CACHE to a folder you can write to") from error


def _load_squeezenet(weights: Path | None, device: torch.device) -> Features:
    if weights is None:
        raise UsageError(
            "--features squeezenet: needs ImageNet weights",
            "give a file of torchvision's squeezenet1_0 with --feature-weights, or use --features offline",
        )
    layers = load_convolutions("squeezenet1_0", weights, device)

    def network(images: Tensor) -> Tensor:
        maps: Tensor = layers(imagenet_units(images))
        return maps.mean(dim=(2, 3))

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Features("squeezenet", 512, 224, network, device, digest)


def load_convolutions(name: Literal["squeezenet1_0", "vgg16"], weights: Path, device: torch.device) -> nn.Sequential:
    """The part `features` of a network of torchvision, with weights from a file of its whole state.

    Raises `UnsafeError` for a file that may hold code, `CorruptError` or `MismatchError` for one that is damaged or
    another network's.
    """
    prefix = "features."
    tensors = {k.removeprefix(prefix): v for k, v in read_state_dict(weights).items() if k.startswith(prefix)}
    with torch.device("meta"):  # no random initialisation, which would draw from the global generator
        layers: nn.Sequential = torchvision.models.get_model(name, weights=None).features
    try:
        layers.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise MismatchError(
            f"{weights}: is not torchvision's {name} ({str(error).splitlines()[-1].strip()})",
            f"give the weights of {name} and of no other version",
        ) from error
    return layers.float().eval().requires_grad_(False).to(device)


def imagenet_units(images: Tensor) -> Tensor:
    """(n, 3, H, W) in [0, 255] -> what torchvision's networks were trained on."""
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
        words = np.random.Philox(key=0)  # its raw words, unlike numpy's or torch's samplers, are fixed for all versions
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
        maps = images / 127.5 - 1
        statistics = [maps.mean(dim=(2, 3))]
        for index, kernel in enumerate(self.buffers()):
            maps = functional.leaky_relu(functional.conv2d(maps, kernel, stride=min(index + 1, 2)), _SLOPE)
            deviation = maps.std(dim=(2, 3), correction=0) + _FLAT
            statistics += [maps.mean(dim=(2, 3)) / deviation, deviation.log()]
        return torch.cat(statistics, dim=1)
