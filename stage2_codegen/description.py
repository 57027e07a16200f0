"""The shape of what is written beside a generator's weights, which may come from someone else."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from data.errors import MismatchError
from data.files.checkpoints import Checkpoint, check_weights
from data.limits import Limit, Natural
from data.sizes import StoredShape, StoredSize
from data.strict_json import misfit
from stage1_autoencoder.networks import Form
from stage2_codegen.configs.registry import CONFIGS


@dataclass(frozen=True)
class _Scale:
    mean: list[float]
    std: list[Annotated[float, Limit(above=0)]]


@dataclass(frozen=True)
class _Description:
    kind: Literal["generator"]
    variant: str
    model: dict[str, Any]
    code_shape: StoredShape
    scale: _Scale
    image_size: StoredSize
    autoencoder: Form
    autoencoder_fingerprint: str
    nimg: Natural
    classes: list[str] | None = None


def check_generator(weights: Checkpoint, origin: object) -> None:
    """Raise `CorruptError` unless weights and their description have the shape that a generator needs, and
    `MismatchError` where its parts do not belong together.
    """
    check_weights(weights, _Description, ("generator", "autoencoder"), str(origin))
    config, fix = weights.state, "restore its weights from a copy, or train again"
    known = CONFIGS.get(config["variant"])
    if known and (problem := misfit(config["model"], known)):
        raise MismatchError(f"{origin}: its model is not one of {config['variant']} ({problem})", fix)
    channels, *sides = config["code_shape"]
    if any(len(config["scale"][name]) != channels for name in ("mean", "std")):
        raise MismatchError(f"{origin}: its scale is not that of codes of {channels} channels", fix)
    image_size, factor = config["image_size"], config["autoencoder"]["factor"]
    if [side * factor for side in sides] != (image_size if isinstance(image_size, list) else [image_size] * 2):
        raise MismatchError(f"{origin}: its images of {image_size} are not those of its codes", fix)
