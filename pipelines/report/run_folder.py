"""A finished or unfinished run as it lies on the disk, and what it refers to."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from PIL import Image

from data.errors import CorruptError, InputError
from data.files.atomic import read_json
from data.files.checkpoints import BEST, load_weights
from data.files.runs import CONFIG, config_error, find_config, read_metrics
from data.images import fit, open_images
from data.latents import LatentStore
from data.limits import Natural
from data.sizes import Size, StoredSize, as_size, size_text
from data.sources.decoding import Unreadable, decode
from data.sources.listing import list_entries
from data.sources.locations import data_flags, redacted
from data.spacing import evenly_spaced
from data.strict_json import misfit
from pipelines.report.commands import reproducing_command, score_command
from pipelines.report.missing import Missing, needing
from pipelines.sample import load_generator
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.image_generator import ImageGenerator

_ORIGINALS = 64
_NOT_READ = "is read only if it is named, since a run may come from someone else. This command names it:"


@dataclass(frozen=True)
class RunFolder:
    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    weights: dict[str, Any]  # the configuration beside the weights, {} before the first snapshot
    best_weights: dict[str, Any]  # beside those that scored best, {} where no snapshot was scored
    named_data: tuple[str, ...] = ()  # what may be read outside the folder, which the run itself has no say in
    named_store: str | None = None

    @classmethod
    def open(cls, folder: Path, named_data: tuple[str, ...] = (), named_store: str | None = None) -> Self:
        """Raises `InputError` for a folder that is not a run, `CorruptError` for damage that costs more than a section.

        Files beside a run are left to the sections that show them, see `beside`.
        """
        config, damaged = find_config(folder)
        if config is None and damaged:
            raise config_error(config, damaged)
        if config is None or misfit(config, _Kind):
            raise InputError(
                f"{folder}: is not a run", "give the --out folder of `codegan train` or `codegan train-ae`"
            )
        if problem := misfit(config, _Config):
            raise CorruptError(f"{folder / CONFIG}: does not hold what it should ({problem})", "train again")
        config = {name: value for name, value in config.items() if name != "crc32c"} | {"out": str(folder)}
        metrics, weights = read_metrics(folder, tolerate_cut=True), folder / "weights"
        return cls(folder, config, metrics, _described(weights), _described(weights / BEST), named_data, named_store)

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

    @property
    def train_command(self) -> str:
        """The command that made the run, and that goes on with it."""
        return reproducing_command(self.config)

    @property
    def check_command(self) -> str:
        return shlex.join(["codegan", "check", str(self.folder)])

    def score_command(self, measured: Mapping[str, Any] | None = None) -> str:
        """The command that scores the run, in the way that a file says it was `measured` before."""
        return score_command(self.folder, self.data or ["DATA"], measured or {})

    def beside[T](self, name: str, read: Callable[[Path], T], command: str) -> T | None:
        """A file beside the run as `read` takes it, None where there is none.

        Raises `Missing`, with the `command` that makes the file, where it is damaged.
        """
        path = self.folder / name
        if not path.is_file() or not self.holds(path):
            return None
        with needing(f"{name} of {self.name} cannot be read", "Delete it; this command makes it again:", command):
            return read(path)

    def holds(self, path: Path) -> bool:
        """Whether a file is one of the run's own, and not a link to another place."""
        return path.resolve().is_relative_to(self.folder.resolve())

    def need_weights(self) -> None:
        """Raises `Missing` before the first snapshot."""
        if not self.weights:
            sentence = "There are no weights yet; training writes them at every snapshot. This command goes on with it:"
            raise Missing(sentence, self.train_command)

    @cached_property
    def generator(self) -> ImageGenerator:
        """Raises `Missing` before the first snapshot."""
        self.need_weights()
        return load_generator(self.folder)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """Raises `Missing` before the first snapshot."""
        self.need_weights()
        weights = load_weights(self.folder / "weights")
        return Autoencoder.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], self.folder)

    @cached_property
    def store(self) -> LatentStore:
        """Raises `Missing` when it was not named, is not there, or is another one."""
        path = self.named_store
        if path is None:
            raise Missing(f"The store {self._recorded_store} {_NOT_READ}", self._full_report_command)
        with needing(f"The store {path} can no longer be read", "This command makes it:", self._encode_command):
            store = LatentStore.open(path)
            if store.seal["crc32c"] != self.config.get("store_checksum"):
                raise InputError("it is another one than the run was trained on", "put that one back")
            return store

    @cached_property
    def originals(self) -> list[tuple[str, Image.Image]]:
        """Name and picture of up to 64 originals evenly spaced over the data, fitted to the run's size.

        Raises `Missing` where the data were not named or cannot be opened.
        """
        size = as_size(self.weights.get("image_size") or self.config.get("size") or 256)
        if not self.data:
            self.need_weights()  # which name the data
        again = self._full_report_command
        if not self.named_data:
            raise Missing(f"The data set {self.data_name} {_NOT_READ}", again)
        with needing(f"The data set {self.data_name} can no longer be opened", "Run this where it can:", again):
            return _originals(self.named_data, size)

    @property
    def _recorded_store(self) -> str:
        return str(self.weights.get("store", self.config.get("store")))

    @property
    def _full_report_command(self) -> str:
        """The command that makes a report with all sections, of data and a store where the run says they are."""
        words = ["codegan", "report", "--run", str(self.folder), *data_flags(self.named_data or self.data, ())]
        store = ["--store", self.named_store or self._recorded_store] if self.is_generator else []
        return shlex.join([*words, *store])

    @property
    def _encode_command(self) -> str:
        known = self.weights or {"autoencoder_run": "AUTOENCODER", "store": self.config.get("store"), "image_size": 256}
        words = ["codegan", "encode", *data_flags(self.data or ["DATA"], ())]
        words += ["--autoencoder", str(known.get("autoencoder_run")), "--out", str(known.get("store"))]
        words += [
            "--size",
            size_text(as_size(known.get("image_size", 256))),
            "--dtype",
            str(known.get("dtype", "float16")),
        ]
        return shlex.join([*words, "--flip"] if known.get("flip") else words)


@dataclass(frozen=True)
class _Kind:
    kind: Literal["generator", "autoencoder"]


@dataclass(frozen=True)
class _Config:
    """The shape of what the report reads of a run's configuration; it shows the other fields as they are."""

    variant: str = ""
    model: dict[str, Any] | None = None
    data: list[str] | None = None
    store: str = ""
    size: StoredSize | None = None


@dataclass(frozen=True)
class _Described:
    """The shape of what the report reads beside a run's weights."""

    image_size: StoredSize | None = None
    nimg: Natural = 0
    data: list[str] | None = None
    store: str = ""
    autoencoder_run: str = ""
    dtype: str = ""
    flip: bool = False


def _described(weights: Path) -> dict[str, Any]:
    path = weights / "config.json"
    return read_json(path, _Described, "restore the file from a copy, or go on with training") if path.is_file() else {}


def _originals(names: Sequence[str], size: Size) -> list[tuple[str, Image.Image]]:
    """Only those that are shown are decoded: opening a set as training does reads all of it."""
    if names[0].startswith("scenes:"):
        scenes = open_images(names, size=size)
        return [(scenes.keys[index], fit(scenes.pil(index), size)) for index in evenly_spaced(len(scenes), _ORIGINALS)]
    entries, pictures = list_entries(names).entries, []
    for index in evenly_spaced(len(entries), _ORIGINALS):
        with suppress(Unreadable):
            pictures.append((entries[index].key, fit(decode(entries[index].read()), size)))
    if not pictures:
        raise InputError("it holds no pictures", "give it its pictures back")
    return pictures


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry with its dotted name."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
