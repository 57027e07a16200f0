"""Training state and weights on disk: numbers as safetensors, everything else as JSON, and nothing as a pickle.

A checkpoint is a folder committed by `commit_folder` of `data.files.atomic`, so it is either whole, with checksums, or
absent. Optimiser state is stored as flat named tensors ("17.exp_avg"), without the hyper-parameters, which are in the
configuration.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from data.errors import CorruptError, InputError, MismatchError, one_line
from data.files.atomic import commit_folder, discard_folder, read_json, verify_folder, write_json
from data.limits import Natural
from data.strict_json import misfit

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
KEPT = 2  # training states in a run
BEST = "best"  # folder below the weights for those that scored best


class Checkpoint(NamedTuple):
    tensors: dict[str, dict[str, Tensor]]  # by network or optimiser
    state: dict[str, Any]  # JSON values: nimg, step, ...


class Progress(NamedTuple):
    """How far training has come, as a checkpoint's state.json records it."""

    nimg: Natural = 0
    step: Natural = 0
    rollbacks: Natural = 0  # times it went back to a checkpoint after NaN


def _save_tensors(path: Path, tensors: Tensors) -> None:
    # save_file has an error class of its own, which would hide a full disk.
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # a header may name types that torch lacks
        raise CorruptError(f"{path}: is not a safetensors file ({error})", "restore it from a copy") from error


def save_state(
    folder: Path,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    progress: Progress,
    lasts: Callable[[int], bool] = lambda nimg: True,
) -> Path:
    """Commit a training state as `folder`/NIMG, then delete all others but the newest that `lasts`, by its NIMG.

    Until there is one that lasts, the newest of the others stays, in case the last one is damaged.
    """
    path = folder / f"{progress.nimg:012d}"
    with commit_folder(path) as partial:
        for name, network in networks.items():
            _save_tensors(partial / f"{name}.safetensors", network.state_dict())
        for name, optimizer in optimizers.items():
            _save_tensors(partial / f"{name}.safetensors", optimizer_tensors(optimizer))
        write_json(partial / "state.json", progress._asdict())
    others = [other for other in _committed(folder) if other != path]
    lasting = [other for other in others if lasts(int(other.name))]
    kept = lasting or ([] if lasts(progress.nimg) else others)
    for old in others:
        if old not in kept[: KEPT - 1]:
            discard_folder(old)
    return path


def load_state(folder: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> Progress:
    """Load the newest undamaged training state, if any, into the given objects; returns its progress, or else zero."""
    checkpoint = load_newest(folder)
    if checkpoint is None:
        return Progress()
    try:
        for name, network in networks.items():
            put_weights(network, checkpoint.tensors[name], folder)
        for name, optimizer in optimizers.items():
            load_optimizer_tensors(optimizer, checkpoint.tensors[name])
    except (LookupError, ValueError) as error:
        what = f"{folder}: its newest state is not that of this training ({one_line(error)})"
        raise MismatchError(what, f"remove {folder} to start again") from error
    return Progress(**{name: checkpoint.state[name] for name in Progress._fields if name in checkpoint.state})


def _committed(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("[0-9]*") if path.is_dir()), reverse=True)


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint, or None without any; damaged ones are named in a warning and skipped.

    One that cannot be read counts as damaged. Raises `CorruptError` when there are checkpoints and all are damaged.
    """
    failure = ""
    for path in _committed(folder):
        try:
            verify_folder(path)
            tensors = {file.stem: _load_tensors(file) for file in path.glob("*.safetensors")}
            return Checkpoint(tensors, read_json(path / "state.json", Progress))
        except CorruptError as error:
            failure = error.what
        except OSError as error:
            failure = f"{error.filename or path}: cannot be read ({error.strerror})"
        logger.warning("%s; trying an older checkpoint", failure)
    if failure:
        raise CorruptError(
            f"{folder}: no checkpoint is whole ({failure})",
            f"correct that, or remove {folder} to start again",
        )
    return None


def save_weights(folder: Path, tensors: Mapping[str, Tensors], config: Mapping[str, Any], best: bool = False) -> None:
    """Commit what inference needs: one safetensors file per network and `config.json`.

    With `best` they also become `folder`/best, which otherwise stays as it was.
    """
    with commit_folder(folder) as partial:
        for name, entries in tensors.items():
            _save_tensors(partial / f"{name}.safetensors", entries)
        write_json(partial / "config.json", config)
        if best:
            files = list(partial.iterdir())
            with commit_folder(partial / BEST) as copy:
                for file in files:
                    _link(file, copy / file.name)
        elif (folder / BEST).is_dir():
            shutil.copytree(folder / BEST, partial / BEST, copy_function=_link)


def described_weights(folder: Path) -> dict[str, Any]:
    """The configuration of the weights in `folder`; {} where there are none, or a byte of them is damaged."""
    try:
        verify_folder(folder)
        described: dict[str, Any] = read_json(folder / "config.json")
    except (CorruptError, OSError):
        return {}
    return described


def _link(source: str | Path, target: str | Path) -> None:
    """Let two folders share a file, since committed files are replaced but never changed."""
    try:
        os.link(source, target)
    except OSError:  # not every file system can
        shutil.copy2(source, target)


def load_weights(folder: Path) -> Checkpoint:
    """Read what `save_weights` wrote and check every byte; `state` is the configuration."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there are no weights here", "give the folder of a run that reached a snapshot")
    verify_folder(folder)
    tensors = {file.stem: _load_tensors(file) for file in folder.glob("*.safetensors")}
    return Checkpoint(tensors, read_json(folder / "config.json"))


def check_weights(weights: Checkpoint, shape: Any, networks: Collection[str], origin: str | Path) -> None:
    """Raise `CorruptError` unless weights hold these networks, and their configuration has a shape of
    `data.strict_json`.
    """
    missing = [name for name in networks if name not in weights.tensors]
    if problem := misfit(weights.state, shape) or (f"it has no {missing[0]}.safetensors" if missing else None):
        what = f"{origin}: its weights do not hold what they should ({problem})"
        raise CorruptError(what, "restore them from a copy, or train again")


def put_weights(network: nn.Module, tensors: Tensors, origin: str | Path) -> None:
    """Load weights into a network; raises `MismatchError` where they belong to another network or version."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).split(": ", 1)[-1][:120]
        raise MismatchError(
            f"{origin}: its weights do not fit this version's network ({reason} ...)",
            "train again, or use the version named in the run's config.json",
        ) from error


def fingerprint(tensors: Tensors, config: Mapping[str, Any]) -> str:
    """The identity of a network: 32 hexadecimal digits of SHA-256 over every weight and the configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors, keyed "PARAMETER_INDEX.NAME"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entries in state.items() for name, value in entries.items()}


def load_optimizer_tensors(optimizer: Optimizer, tensors: Tensors) -> None:
    """The inverse of `optimizer_tensors`; hyper-parameters stay as the optimiser was built."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # for fused optimisers, moments must have the strides of their weights
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
