"""LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", section 3)."""

import hashlib
import warnings
from pathlib import Path

from torch import Tensor, nn

from data.errors import InputError, MismatchError, UsageError
from data.files.published import read_state_dict
from stage2_codegen.frozen.context import Frozen

VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"


class MeanDistance(nn.Module):
    """(images, images), both (N, 3, H, W) in [-1, 1] -> their mean LPIPS distance over the batch."""

    def __init__(self, lpips: nn.Module) -> None:
        super().__init__()
        self.lpips = lpips

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        distances: Tensor = self.lpips(images, others)
        return distances.mean()


def load_lpips(vgg_weights: Path) -> Frozen:
    """Load a `MeanDistance` on VGG-16, with the identity of its weights.

    `vgg_weights` is a file of torchvision's vgg16; the calibration comes with the package `lpips`. Raises `UsageError`
    without that package, `InputError` without the file, `MismatchError` for another network's weights, and whatever
    `read_state_dict` raises for a bad file.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise UsageError("lpips: is not installed", "pip install 'codegan[perceptual]'") from error
    if not vgg_weights.is_file():
        raise InputError(f"{vgg_weights}: is not a file", f"download {VGG_URL} and give it with --model.vgg-weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision as was usual before version 0.13
        # `pnet_rand` keeps it from downloading VGG's weights, which come from the file instead.
        lpips = LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False)
    _load_trunk(lpips.net, vgg_weights)
    return Frozen(MeanDistance(lpips).eval(), hashlib.sha256(vgg_weights.read_bytes()).hexdigest())


def _load_trunk(trunk: nn.Module, path: Path) -> None:
    """Load torchvision's `features.0`, ... into the package's VGG, which calls them `slice1.0`, ..., `slice5.28`."""
    published = read_state_dict(path)
    names = {name: f"features.{name.partition('.')[2]}" for name in trunk.state_dict()}
    try:
        trunk.load_state_dict({name: published[theirs] for name, theirs in names.items()})
    except (LookupError, RuntimeError) as error:
        raise MismatchError(f"{path}: is not torchvision's vgg16", f"give {VGG_URL}") from error
