"""A finished or unfinished run as it lies on the disk, and the commands that made it and go on from it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from data.errors import InputError
from data.runs import read_metrics
from data.storage import read_json

KINDS = {"generator": "train", "autoencoder": "train-ae"}  # the verb that makes such a run
_NOT_FLAGS = ("kind", "variant", "store_checksum", "versions")


@dataclass(frozen=True)
class RunView:
    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    weights: dict[str, Any]  # the configuration beside the weights, {} before the first snapshot

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises `InputError` for a folder that is not a run, `CorruptError` for JSON that does not parse."""
        path = folder / "config.json"
        config = read_json(path) if path.is_file() else None
        if not isinstance(config, dict) or config.get("kind") not in KINDS:
            raise InputError(
                f"{folder}: is not a run", "give the --out folder of `codegan train` or `codegan train-ae`"
            )
        weights = folder / "weights" / "config.json"
        metrics = [row for row in read_metrics(folder, tolerate_cut=True) if "nimg" in row]
        return cls(folder, config, metrics, read_json(weights) if weights.is_file() else {})

    @property
    def is_generator(self) -> bool:
        return bool(self.config["kind"] == "generator")

    @property
    def last(self) -> dict[str, Any]:
        return self.metrics[-1] if self.metrics else {}

    @property
    def nimg(self) -> int:
        return int(self.last.get("nimg", self.weights.get("nimg", 0)))

    @property
    def data(self) -> list[str]:
        """DATA as it was given, or [] when the run does not know it."""
        return list((self.weights if self.is_generator else self.config).get("data", []))

    def optional_json(self, name: str) -> Any:
        path = self.folder / name
        return read_json(path) if path.is_file() else None


def reproducing_command(config: Mapping[str, Any]) -> str:
    """The command line whose resolved configuration is this config.json."""
    words = ["codegan", KINDS[config["kind"]], *([config["variant"]] if "variant" in config else [])]
    words += _flags({name: value for name, value in config.items() if name not in _NOT_FLAGS})
    return shlex.join(words)


def _flags(config: Mapping[str, Any], prefix: str = "--") -> list[str]:
    words: list[str] = []
    for name, value in config.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(value, dict):
            words += _flags(value, f"{flag}.")
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def score_command(run: RunView) -> list[str]:
    return ["codegan", "score", "--run", str(run.folder), "--data", *(run.data or ["DATA"])]


def next_command(run: RunView) -> list[str]:
    """What to type after looking at the report."""
    if not run.weights:
        return shlex.split(reproducing_command(run.config))
    if not run.is_generator:
        data = run.data or ["DATA"]
        return ["codegan", "encode", "--data", *data, "--autoencoder", str(run.folder), "--out", "stores/latents"]
    if not (run.folder / "scores.json").is_file():
        return score_command(run)
    return ["codegan", "sample", "--run", str(run.folder), "--out", "samples", "--num", "64"]
