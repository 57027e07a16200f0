"""Reading weights that others published, without running any code they may hold."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data.errors import CorruptError, InputError, MismatchError, UnsafeError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or .pth file.

    Raises `InputError` for a file that cannot be read, `UnsafeError` for a .pth that holds more than tensors,
    `CorruptError` for a damaged file and `MismatchError` for one that is not a state dict.
    """
    fix = "give a .safetensors file, or a .pth that holds a state dict and nothing else"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # torchvision publishes .pth files only. `weights_only` rebuilds tensors and plain containers and refuses
        # everything else, so no code of the file runs; this is the one place where the project reads a pickle.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error})", "check the path and its permissions"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, LookupError, ValueError) as error:
        raise CorruptError(f"{path}: is damaged, or is not a file of weights ({type(error).__name__})", fix) from error
    except Exception as error:  # the unpickler has an error class of its own for refusing
        raise UnsafeError(f"{path}: holds more than tensors and was not loaded", fix) from error
    named = isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not named:
        raise MismatchError(f"{path}: is not a state dict", fix)
    return content
