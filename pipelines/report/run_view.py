"""A finished or unfinished run as it lies on the disk, what it refers to, and the commands that go on from it."""

import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeGuard

import numpy as np
from PIL import Image

from data.errors import CodeganError, CorruptError, InputError, one_line
from data.files.atomic import read_json
from data.files.checkpoints import BEST, load_weights
from data.files.runs import config_error, defaults, find_config, read_metrics, to_json
from data.images import fit, open_images
from data.latents import LatentStore
from data.sources.decoding import Unreadable, decode
from data.sources.listing import list_entries
from data.sources.locations import data_flags, redacted
from pipelines.sample import load_generator
from pipelines.scoring.config import UNBIASED_FROM
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.variants import VARIANTS

KINDS = {"generator": "train", "autoencoder": "train-ae"}  # the verb that makes such a run
_NOT_FLAGS = ("kind", "variant", "store_checksum", "data_fingerprint", "versions")
_SCORE_DEFAULTS = {"protocol": None, "features": "inception", "resize": "clean", "num": None, "seed": 0}
_ORIGINALS = 64


class Missing(Exception):
    """Something that a run does not have, and the command that makes it; the rest of the run is worth a look."""

    def __init__(self, sentence: str, command: str) -> None:
        super().__init__(sentence)
        self.sentence, self.command = sentence, command


@contextmanager
def needing(what: str, advice: str, command: str) -> Iterator[None]:
    """Turn whatever goes wrong into `Missing`: what a run refers to may be damaged, moved or of another version."""
    try:
        yield
    except Exception as error:
        reason = error.what if isinstance(error, CodeganError) else one_line(error)
        raise Missing(f"{what} ({reason}). {advice}", command) from error


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value read from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


@dataclass(frozen=True)
class RunView:
    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    weights: dict[str, Any]  # the configuration beside the weights, {} before the first snapshot
    best_weights: dict[str, Any]  # beside those that scored best, {} where no snapshot was scored

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises `InputError` for a folder that is not a run, `CorruptError` for damage that costs more than a section.

        Files beside a run are left to the sections that show them, see `side_file`.
        """
        config, damaged = find_config(folder)
        if config is None and damaged:
            raise config_error(config, damaged)
        if config is None or config.get("kind") not in KINDS:
            raise InputError(
                f"{folder}: is not a run", "give the --out folder of `codegan train` or `codegan train-ae`"
            )
        config = {name: value for name, value in config.items() if name != "crc32c"} | {"out": str(folder)}
        metrics = [_numbers(row) for row in read_metrics(folder, tolerate_cut=True) if isinstance(row, dict)]
        weights = folder / "weights"
        complete = [row for row in metrics if row.keys() >= {"nimg", "wall_sec"}]
        return cls(folder, config, complete, _described(weights), _described(weights / BEST))

    @property
    def name(self) -> str:
        return self.folder.resolve().name

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

    @property
    def data_name(self) -> str:
        return ", ".join(map(redacted, self.data))

    def side_file(self, name: str, command: str) -> dict[str, Any]:
        """A JSON object beside the run, {} where there is none; `Missing` for anything else in its place."""
        path = self.folder / name
        if not path.is_file():
            return {}
        with needing(f"{name} of {self.name} cannot be read", "Delete it; this command makes it again:", command):
            found = read_json(path)
            if not isinstance(found, dict):
                raise TypeError("it holds no JSON object")
            return found

    def need_weights(self) -> None:
        """Raises `Missing` before the first snapshot."""
        if not self.weights:
            sentence = "There are no weights yet; training writes them at every snapshot. This command goes on with it:"
            raise Missing(sentence, reproducing_command(self.config))

    @cached_property
    def generator(self) -> ImageGenerator:
        """Raises `Missing`, as all below do."""
        self.need_weights()
        with needing("The run's generator cannot be loaded", "This command looks for damage:", self._check_command):
            return load_generator(self.folder)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        self.need_weights()
        with needing("The run's autoencoder cannot be loaded", "This command looks for damage:", self._check_command):
            weights = load_weights(self.folder / "weights")
            return Autoencoder.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], self.folder)

    @cached_property
    def store(self) -> LatentStore:
        path = str(self.weights.get("store", self.config.get("store")))
        with needing(f"The store {path} can no longer be read", "This command makes it:", self._encode_command):
            store = LatentStore.open(path)
            if store.seal["crc32c"] != self.config.get("store_checksum"):
                raise InputError("it is another one than the run was trained on", "put that one back")
            return store

    @cached_property
    def originals(self) -> list[tuple[str, Image.Image]]:
        """Name and picture of up to 64 originals spread evenly over the data, fitted to the run's size."""
        size = int(self.weights.get("image_size") or self.config.get("size") or 256)
        if not self.data:
            self.need_weights()  # which name the data
        again = shlex.join(["codegan", "report", "--run", str(self.folder)])
        with needing(f"The data set {self.data_name} can no longer be opened", "Run this where it can:", again):
            return _originals(self.data, size)

    @property
    def _check_command(self) -> str:
        return shlex.join(["codegan", "check", str(self.folder)])

    @property
    def _encode_command(self) -> str:
        known = self.weights or {"autoencoder_run": "AUTOENCODER", "store": self.config.get("store"), "image_size": 256}
        words = ["codegan", "encode", *data_flags(self.data or ["DATA"], ())]
        words += ["--autoencoder", str(known.get("autoencoder_run")), "--out", str(known.get("store"))]
        words += ["--size", str(known.get("image_size")), "--dtype", str(known.get("dtype", "float16"))]
        return shlex.join([*words, "--flip"] if known.get("flip") else words)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinity among them, which charts count."""
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


def _described(weights: Path) -> dict[str, Any]:
    path = weights / "config.json"
    described = read_json(path) if path.is_file() else {}
    if not isinstance(described, dict):
        raise CorruptError(f"{path}: holds no JSON object", "restore the file from a copy, or go on with training")
    return described


def _originals(names: list[str], size: int) -> list[tuple[str, Image.Image]]:
    """Only those that are shown are decoded: opening a set as training does reads all of it."""
    if names[0].startswith("scenes:"):
        scenes = open_images(names, size=size)
        return [(scenes.keys[index], fit(scenes.pil(index), size)) for index in spread(len(scenes), _ORIGINALS)]
    entries, pictures = list_entries(names).entries, []
    for index in spread(len(entries), _ORIGINALS):
        with suppress(Unreadable):
            pictures.append((entries[index].key, fit(decode(entries[index].read()), size)))
    if not pictures:
        raise InputError("it holds no pictures", "give it its pictures back")
    return pictures


def spread(total: int, count: int) -> list[int]:
    """At most `count` of the numbers below `total`, evenly spaced, the first and the last among them."""
    return [int(index) for index in np.unique(np.linspace(0, max(0, total - 1), count).round())] if total else []


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry with its dotted name."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def reproducing_command(config: Mapping[str, Any]) -> str:
    """The command line whose resolved configuration is this config.json."""
    words = ["codegan", KINDS[config["kind"]], *([config["variant"]] if "variant" in config else [])]
    given = {name: value for name, value in config.items() if name not in _NOT_FLAGS}
    return shlex.join([*words, *_flags(given, _defaults(config))])


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has without flags; a variant that this version does not know has no defaults."""
    if config["kind"] == "autoencoder":
        return defaults(TrainAEConfig)
    known = VARIANTS.get(config.get("variant", ""))
    model = {"model": to_json(defaults(known.Config))} if known else {}
    return defaults(TrainConfig) | model


def _flags(config: Mapping[str, Any], assumed: Mapping[str, Any], prefix: str = "--") -> list[str]:
    words: list[str] = []
    for name, value in config.items():
        flag, default = name.replace("_", "-"), assumed.get(name)
        if isinstance(value, dict):
            words += _flags(value, default if isinstance(default, dict) else {}, f"{prefix}{flag}.")
        elif isinstance(value, bool):  # a switch, which there is only for what is not the default
            words += [] if value == default else [f"{prefix}{'' if value else 'no-'}{flag}"]
        elif value not in (None, []):
            words += [prefix + flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def score_command(run: RunView, measured: Mapping[str, Any] | None = None) -> list[str]:
    """The command that scores a run, in the way that a file says it was `measured` before."""
    words = ["codegan", "score", "--run", str(run.folder), *data_flags(run.data or ["DATA"], ())]
    known = measured or {}
    for name, default in _SCORE_DEFAULTS.items():
        if (value := known.get(name)) not in (None, default):
            words += [f"--{name}", str(value)]
    if isinstance(metrics := known.get("metrics"), list):
        words += ["--metrics", *map(str, metrics)]
        if "lpips-diversity" in metrics:
            words += ["--vgg-weights", "FILE"]
        if "fid" in metrics and known.get("features") == "inception" and known.get("num", 0) < UNBIASED_FROM:
            words += ["--force-fid"]
    if known.get("features") == "squeezenet":
        words += ["--feature-weights", "FILE"]
    return [*words, "--best"] if known.get("best") else words


def next_command(run: RunView) -> list[str]:
    """What to type after looking at the report."""
    if not run.weights:
        return shlex.split(reproducing_command(run.config))
    if not run.is_generator:
        flags = data_flags(run.data or ["DATA"], ())
        return ["codegan", "encode", *flags, "--autoencoder", str(run.folder), "--out", "stores/latents"]
    if not (run.folder / "scores.json").is_file():
        return score_command(run)
    return ["codegan", "sample", "--run", str(run.folder), "--out", "samples", "--num", "64"]
