"""The Inception-v3 of published FID numbers: NVIDIA's TorchScript translation of the weights of 2015, verified."""

import hashlib
import http.client
import io
import os
import urllib.request
import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from data.errors import CorruptError, InputError, MismatchError, UnsafeError, UsageError
from data.files.atomic import write_bytes

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_MAX_DOWNLOAD = 1 << 28  # bytes; the file has about 96 million
_POOLINGS = {64: 1, 192: 2}  # which max-pooling takes maps of so many channels


def cache_folder() -> Path:
    """Where downloads and features are kept: $CODEGAN_CACHE, else codegan in $XDG_CACHE_HOME or ~/.cache."""
    if "CODEGAN_CACHE" in os.environ:
        return Path(os.environ["CODEGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codegan"


class Inception:
    """(n, 3, H, W) in [-1, 1] -> pooled features and class probabilities (n, 2048 + 1008), or maps of a single layer.

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
        maps, ahead = images, _POOLINGS[channels]
        for layer in self.layers.children():
            ahead -= not layer.state_dict()
            if not ahead:
                break
            maps = layer(maps)
        if maps.shape[1] != channels:
            raise MismatchError(
                f"Inception: has maps of {maps.shape[1]} channels where {channels} were looked for",
                "use --features offline, and report this",
            )
        return maps


def _verified_bytes(weights: Path | None) -> bytes:
    """The verified file: a TorchScript file is code, so no other is ever loaded."""
    if weights is not None:
        content = weights.read_bytes()
        if not _is_inception(content):
            raise UnsafeError(
                f"{weights}: is not NVIDIA's {INCEPTION_FILE}, and a TorchScript file can run code",
                f"download {INCEPTION_URL}, SHA-256 {INCEPTION_SHA256}",
            )
        return content
    cached = cache_folder() / INCEPTION_FILE
    if not cached.is_file():
        _download(cached)
    content = cached.read_bytes()
    if not _is_inception(content):
        raise CorruptError(f"{cached}: its SHA-256 is wrong", "delete the file; it is downloaded again")
    return content


def _is_inception(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == INCEPTION_SHA256


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
    if not _is_inception(content):
        raise CorruptError(
            f"{INCEPTION_URL}: what came back has the wrong SHA-256, nothing was kept",
            "try again, or name a good copy with --feature-weights",
        )
    try:
        write_bytes(target, content)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", "set CODEGAN_CACHE to a folder you can write to") from error
