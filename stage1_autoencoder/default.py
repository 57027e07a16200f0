"""The autoencoders that are included in the package, trained once on free photographs (docs/autoencoder.md).

weights/factorF is a folder written by `save_weights` whose numbers are float16, which halves the download. `default` is
the name of the autoencoder of factor 4, `default:F` that of another.
"""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from data.advice import Action, Advice
from data.errors import CorruptError, MismatchError, UsageError
from data.files.atomic import read_json, verify_folder
from data.files.checkpoints import Checkpoint, Tensors, load_weights, save_weights

DEFAULT, DEFAULT_FACTOR = "default", 4
FORMAT = 1  # of config.json and its meaning; to be raised with any change that old versions would misread
WEIGHTS = Path(__file__).parent / "weights"


def is_default(name: str) -> bool:
    """Return whether this has the form of a name, even if there is no such autoencoder."""
    return re.fullmatch(f"{DEFAULT}(:[^/]*)?", name) is not None


def default_factors() -> list[int]:
    """Return the factors for which there are weights."""
    ends = (folder.name.removeprefix("factor") for folder in WEIGHTS.glob("factor*"))
    return sorted(int(end) for end in ends if end.isdecimal())


def find_default(name: str) -> Path:
    """Return the folder of the weights behind a name; raises `UsageError` when there are none."""
    factors = default_factors()
    if not factors:
        raise UsageError(
            f"{name}: there is no default autoencoder in this build",
            "train one on your images, and give its folder",
            Advice(Action.TRAIN_AUTOENCODER),
        )
    factor = name.partition(":")[2] or str(DEFAULT_FACTOR)
    if factor not in map(str, factors):
        raise UsageError(
            f"{name}: there is no default autoencoder of factor {factor}",
            f"choose from {', '.join(f'{DEFAULT}:{f}' for f in factors)}, or train one",
            Advice(Action.TRAIN_AUTOENCODER),
        )
    return WEIGHTS / f"factor{factor}"


def load_default(name: str) -> Checkpoint:
    """Load the weights behind a name, in float16, and check every byte.

    Raises `UsageError` when there are none, `CorruptError` on damage, `MismatchError` when a newer version made them.
    """
    folder = find_default(name)
    try:
        verify_folder(folder)
        _refuse_newer(name, read_json(folder / "config.json"))  # before tensors that only a newer version can read
        return load_weights(folder)
    except CorruptError as error:
        raise CorruptError(error.what, "install codegan again") from error
    except KeyError as error:
        raise CorruptError(f"{folder / 'config.json'}: has no {error}", "install codegan again") from error


def _refuse_newer(name: str, config: dict[str, Any]) -> None:
    if config["format"] > FORMAT:
        raise MismatchError(
            f"{name}: was made by codegan {config['codegan']}, which is newer than this version",
            "install that version, or remove this one and install it again",
        )


def save_default(tensors: Tensors, autoencoder: dict[str, int], **about: Any) -> Path:
    """Put weights of an `Autoencoder` of this configuration into the package, with facts `about` them; return where."""
    folder = WEIGHTS / f"factor{autoencoder['factor']}"
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    made = {"kind": "autoencoder", "format": FORMAT, "codegan": importlib.metadata.version("codegan")}
    save_weights(folder, {"autoencoder": halves}, {**made, "autoencoder": autoencoder, **about})
    return folder
