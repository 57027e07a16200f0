"""The autoencoders that come with the package, trained once on free photographs (docs/autoencoder.md).

weights/factorF is a folder of `data.checkpoints.save_weights` whose numbers are float16, which halves the download.
`default` names the one of factor 4, `default:F` another.
"""

import re
from pathlib import Path
from typing import Any

from data.checkpoints import Checkpoint, Tensors, load_weights, save_weights
from data.errors import MismatchError, UsageError

DEFAULT, DEFAULT_FACTOR = "default", 4
FORMAT = 1  # of config.json, and of what it means; a change that old versions would misread raises it
WEIGHTS = Path(__file__).parent / "weights"


def is_default(name: str) -> bool:
    """Whether this is the form of a name, also of one that does not exist."""
    return re.fullmatch(f"{DEFAULT}(:[0-9]+)?", name) is not None


def default_factors() -> list[int]:
    """Those there are weights for."""
    return sorted(int(folder.name.removeprefix("factor")) for folder in WEIGHTS.glob("factor[0-9]*"))


def load_default(name: str) -> Checkpoint:
    """The weights behind a name, in float16, every byte checked.

    Raises `UsageError` when there are none, `CorruptError` on damage, `MismatchError` when a newer version made them.
    """
    factor, factors = int(name.partition(":")[2] or DEFAULT_FACTOR), default_factors()
    if not factors:
        raise UsageError(
            f"{name}: there is no default autoencoder in this build",
            "train one on your images with `codegan train-ae`, and give its folder",
        )
    if factor not in factors:
        raise UsageError(
            f"{name}: there is no default autoencoder of factor {factor}",
            f"choose from {', '.join(f'{DEFAULT}:{f}' for f in factors)}, or train one with `codegan train-ae`",
        )
    weights = load_weights(WEIGHTS / f"factor{factor}")
    if weights.state["format"] > FORMAT:
        raise MismatchError(f"{name}: was made by a newer version of codegan", "install that version")
    return weights


def save_default(tensors: Tensors, autoencoder: dict[str, int], **about: Any) -> Path:
    """Put weights of an `Autoencoder` of this configuration into the package, with what else is to be known of them."""
    folder = WEIGHTS / f"factor{autoencoder['factor']}"
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    described = {"kind": "autoencoder", "format": FORMAT, "autoencoder": autoencoder, **about}
    save_weights(folder, {"autoencoder": halves}, described)
    return folder
