"""A flipped bit is noticed or changes nothing that is read; a hostile file is refused in two lines, and never run."""

import io
import json
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from data.drawn import claim_folder
from data.errors import CodeganError, CorruptError
from data.files.atomic import MANIFEST, lock, write_json
from data.files.checkpoints import load_newest
from data.files.checksums import make_entry, with_checksum
from data.files.published import read_state_dict
from data.files.runs import MetricsLog, find_config, open_run, read_metrics
from data.images import open_images
from data.latents import LatentStore
from data.store.seal import SEAL, SEAL_COPY
from pipelines.check import check
from pipelines.configs import CheckConfig
from pipelines.report.run_folder import RunFolder
from stage2_codegen.image_generator import ImageGenerator
from tests.faults.journey import CONFIG, Parts, contents, journey, stopped_clock
from tests.faults.report import sample_of, share_of, show

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("single_thread"), pytest.mark.timeout(3600)]
FLIPS = share_of(10_000)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="module")
def whole(parts: Parts) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder, stopped_clock():
        journey(Path(folder) / "whole", parts)
        yield Path(folder) / "whole"


def read_all(root: Path) -> list[Any]:
    """Everything that a store and a run hand out."""
    store = LatentStore.open(root / "store")
    config, _ = find_config(root / "run")
    pipe = ImageGenerator.load(root / "run")
    drawn = [value.tolist() for value in (store.read(range(len(store))), store.labels)]
    state = load_newest(root / "run" / "checkpoints")
    assert state
    tensors = [{name: t.tolist() for name, t in part.items()} for part in state.tensors.values()]
    weights = [t.tolist() for t in pipe.generator.state_dict().values()]
    return [*drawn, store.keys, config, state.state, tensors, weights, read_metrics(root / "run")]


def test_flips(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit of one file of a store or a run, drawn at random; `check` looks first, and then all is read."""
    folder = whole.parent / "flipped"
    shutil.copytree(whole, folder)
    files = sorted(path for name in ("store", "run") for path in (folder / name).rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    draw, expected = np.random.default_rng(0), read_all(folder)
    noticed, harmless, silent, tracebacks = 0, 0, list[str](), list[str]()
    for _ in range(FLIPS):
        path = (
            files[draw.integers(len(files))]
            if draw.integers(2)
            else files[draw.choice(len(files), p=sizes / sizes.sum())]
        )
        content = path.read_bytes()
        at, bit = int(draw.integers(len(content))), int(draw.integers(8))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        case = f"{path.relative_to(folder)} bit {bit} of byte {at}"
        try:
            check(CheckConfig(path=folder / path.relative_to(folder).parts[0]))
            if read_all(folder) == expected:
                harmless += 1
            else:
                silent.append(case)
        except CorruptError:
            noticed += 1
        except Exception as error:
            tracebacks.append(f"{case}: {error!r}")
        path.write_bytes(content)
    capsys.readouterr()
    show(capsys, "flipped bits", FLIPS, noticed=noticed, harmless=harmless, silent=silent, tracebacks=tracebacks)
    assert not silent
    assert not tracebacks


# --- payloads ---


class Bomb:
    """A pickle of it makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def hostile_contents(canary: Path) -> dict[str, bytes]:
    """What may stand in the place of any file."""
    pickled = pickle.dumps(Bomb(canary))
    saved = io.BytesIO()
    torch.save({"a": Bomb(canary)}, saved)
    header = (1 << 60).to_bytes(8, "little")
    return {
        "nothing": b"",
        "zeros": bytes(5000),
        "a pickle": pickled,
        "torch's pickle": saved.getvalue(),
        "no UTF-8": b"\xff\xfe{\x00",
        "UTF-16": json.dumps({"a": 1}).encode("utf-16"),
        "null": b"null\n",
        "a list": b"[1, 2]\n",
        "an empty object": b"{}\n",
        "a text": b'"x"\n',
        "deep lists": b"[" * 100_000 + b"]" * 100_000,
        "deep objects": b'{"files":' * 50_000 + b"1" + b"}" * 50_000,
        "many digits": b'{"nimg": ' + b"9" * 5000 + b"}",
        "a large exponent": b'{"nimg": 1e999, "step": 1e999, "num": 1e999}',
        "NaN": b'{"step": NaN, "nimg": NaN, "wall_sec": NaN, "num": NaN}',
        "a key twice": b'{"files": {}, "files": {"../../x": {}}}',
        "negative": b'{"step": -1, "nimg": -1, "wall_sec": -1, "num": -1, "format": "png"}',
        "huge": b'{"step": 1099511627776, "nimg": 1e300, "num": 1099511627776}',
        "other types": b'{"step": "x", "nimg": [], "num": {}, "files": [], "attributes": 1, "kind": 3}',
        "an unpaired surrogate": b'{"kind": "\\ud800", "format": "\\ud800", "num": 1}',
        "an escaping name": b'{"files": {"../../secret": {"bytes": 1, "crc32c": 1}}}',
        "a name from the root": b'{"files": {"/etc/passwd": {"bytes": 1, "crc32c": 1}}}',
        "a huge header": header + b"{}",
        "a header with code": (40).to_bytes(8, "little") + b'{"a":{"dtype":"__import__","shape":[1]}}',
        "an offset beyond": (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9e9]}}   ',
        "tensors of another": save({"x": torch.zeros(1)}),
        "a link to a device": b"",
    }


def _claim(folder: Path) -> None:
    with lock(folder):
        claim_folder(folder, 1)


def _go_on(folder: Path) -> None:
    open_run(folder / "run", CONFIG)
    load_newest(folder / "run" / "checkpoints")
    MetricsLog(folder / "run", 8)


READERS: dict[str, Callable[[Path], object]] = {
    "check the store": lambda root: check(CheckConfig(path=root / "store")),
    "check the run": lambda root: check(CheckConfig(path=root / "run")),
    "read": read_all,
    "report": lambda root: RunFolder.open(root / "run"),
    "go on": _go_on,
    "draw again": lambda root: _claim(root / "drawn"),
    "read weights": lambda root: read_state_dict(root / "run" / "weights" / "generator.safetensors"),
}


READERS_OF = {
    "store": ["check the store", "read"],
    "run": ["check the run", "read", "report", "go on", "read weights"],
    "drawn": ["draw again"],
}


class Tally:
    """Runs readers on hostile files, and counts what came of it."""

    def __init__(self, box: Path) -> None:
        self.box, self.canary = box, box / "canary"
        self.count = self.refused = 0
        self.executed: list[str] = []
        self.escaped: list[str] = []
        self.tracebacks: list[str] = []
        (box / "secret").write_bytes(b"s")
        self._outside = self._listing()

    def _listing(self) -> list[str]:
        return sorted(path.name for path in self.box.iterdir() if path.name not in ("root", "canary"))

    def read(self, case: str, reader: Callable[[], object]) -> None:
        self.count += 1
        try:
            reader()
        except CodeganError:
            self.refused += 1
        except OSError as error:
            if not error.filename:  # the command line tells of one that names a file
                self.tracebacks.append(f"{case}: {error!r}")
        except Exception as error:
            self.tracebacks.append(f"{case}: {error!r}")
        if self.canary.exists():
            self.executed.append(case)
            self.canary.unlink()
        if self._listing() != self._outside or (self.box / "secret").read_bytes() != b"s":
            self.escaped.append(case)

    def show(self, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        capsys.readouterr()
        found = {"executed": self.executed, "escaped": self.escaped, "tracebacks": self.tracebacks}
        show(capsys, kind, self.count, refused=self.refused, **found)
        assert not self.executed
        assert not self.escaped
        assert not self.tracebacks


@pytest.fixture
def tally(whole: Path) -> Iterator[Tally]:
    with tempfile.TemporaryDirectory(dir=whole.parent) as box:
        yield Tally(Path(box))


def test_payloads_in_the_place_of_a_file(whole: Path, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """Every payload in the place of every file, before every reader of its folder."""
    names = sorted(contents(whole))
    payloads = hostile_contents(tally.canary)
    cases = [(name, kind, reader) for name in names for kind in payloads for reader in READERS_OF[name.split("/")[0]]]
    root = tally.box / "root"
    shutil.copytree(whole, root)
    for name, kind, reader in sample_of(cases):
        path = root / name
        path.unlink()
        path.symlink_to("/dev/zero") if kind == "a link to a device" else path.write_bytes(payloads[kind])
        tally.read(f"{name}, {kind}, {reader}", lambda reader=reader: READERS[reader](root))  # type: ignore[misc]
        for folder in ("store", "run", "drawn"):
            shutil.rmtree(root / folder, ignore_errors=True)
        shutil.copytree(whole, root, dirs_exist_ok=True)
    tally.show(capsys, "payloads in the place of a file")


ODD: list[Any] = [
    None,
    -1,
    0,
    2**20,
    2**40,
    10**30,
    1e300,
    "x",
    "\0",
    "../../secret",
    [],
    [1],
    {},
    True,
    [[]],
    {"a": {}},
]


def reseal_store(root: Path, field: str, value: Any) -> None:
    """A store whose checksum holds although a field was changed."""
    group = json.loads((root / "store" / SEAL).read_text())
    seal = {name: entry for name, entry in group["attributes"]["codegan"].items() if name not in ("crc32c", field)}
    group["attributes"]["codegan"] = with_checksum(seal | ({} if value is Ellipsis else {field: value}))
    for name in (SEAL, SEAL_COPY):
        (root / "store" / name).write_text(json.dumps(group, indent=1) + "\n")


def reseal_weights(root: Path, field: str, value: Any) -> None:
    """Weights whose manifest is right although a field of their configuration was changed."""
    folder = root / "run" / "weights"
    config = json.loads((folder / "config.json").read_text())
    config.pop(field)
    write_json(folder / "config.json", config | ({} if value is Ellipsis else {field: value}))
    files = [path for path in folder.iterdir() if path.name != MANIFEST]
    write_json(folder / MANIFEST, {"files": {path.name: make_entry([path.read_bytes()]) for path in files}})


def reseal_config(root: Path, field: str, value: Any) -> None:
    config = json.loads((root / "run" / "config.json").read_text())
    config = {name: entry for name, entry in config.items() if name not in ("crc32c", field)}
    for name in ("config.json", ".config.json"):
        write_json(root / "run" / name, with_checksum(config | ({} if value is Ellipsis else {field: value})))


def fields_of(root: Path, name: str) -> Mapping[str, Any]:
    content: dict[str, Any] = json.loads((root / name).read_text())
    return content["attributes"]["codegan"] if name.endswith(SEAL) else content


def test_values_that_make_no_sense_under_a_right_checksum(
    whole: Path, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tally.box / "root"
    kinds = {
        "store/zarr.json": (reseal_store, ["check the store", "read"]),
        "run/weights/config.json": (reseal_weights, ["check the run", "read", "report"]),
        "run/config.json": (reseal_config, ["check the run", "report", "go on"]),
    }
    cases = [
        (name, field, value, reader)
        for name, (_, readers) in kinds.items()
        for field in fields_of(whole, name)
        if field != "crc32c"
        for value in (..., *ODD)
        for reader in readers
    ]
    for name, field, value, reader in sample_of(cases):
        shutil.copytree(whole, root)
        kinds[name][0](root, field, value)
        tally.read(f"{name}, {field} = {value!r}, {reader}", lambda reader=reader: READERS[reader](root))  # type: ignore[misc]
        shutil.rmtree(root)
    tally.show(capsys, "values that make no sense, resealed")


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 4 if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + b"data".ljust(512, b"\0") + bytes(1024)


def zip_of(name: str, content: bytes = b"data", **changes: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for field, value in changes.items():
            setattr(archive.filelist[0], field, value)
    return made.getvalue()


NAMES = ("../x.png", "/x.png", "a/../../x.png", "..\\x.png", "C:\\x.png", "x\0.png", "\ud800.png", "a" * 5000 + ".png")


def archives() -> Iterator[tuple[str, bytes]]:
    for name in NAMES:
        with suppress(UnicodeEncodeError, ValueError):
            yield "x.tar", tar_of(name)
        with suppress(UnicodeEncodeError, ValueError):
            yield "x.zip", zip_of(name)
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE)
    for kind in (*kinds, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, b"?"):
        for target in ("/etc/passwd", "../../secret", "/dev/zero", "x.png"):
            yield "x.tar", tar_of("x.png", kind, target)
        for size in (1 << 20, 1 << 40, 1 << 62):
            yield "x.tar", tar_of("x.png", kind, size=size)
    for size in (1 << 20, 1 << 32, 1 << 62):
        yield "x.tar", tar_of("x.png", size=size)
    for field in ("file_size", "compress_size", "header_offset"):
        for value in (0, 5, 1 << 20, (1 << 32) - 2, 1 << 40):
            yield "x.zip", zip_of("x.png", b"data", **{field: value})
    yield "x.zip", zip_of("x.png", bytes(100 << 20))
    for content in (b"[" * 100_000, b'{"labels": ' + b"[" * 100_000, b'{"labels": [["x.png", ' + b"9" * 5000 + b"]]}"):
        yield "x.zip", zip_of("dataset.json", content)
        yield "x.tar", tar_of("x.json")[:512] + content.ljust(1 << 17, b"\0") + bytes(1024)
    for end in range(0, 700, 50):
        yield "x.zip", zip_of("x.png")[:end]
        yield "x.tar", tar_of("x.png")[:end]


def test_archives(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (name, content) in enumerate(sample_of([*archives()])):
        root = tally.box / "root"
        root.mkdir()
        (root / name).write_bytes(content)
        tally.read(f"{number}, {name}", lambda root=root, name=name: open_images(root / name, max_skip=1))  # type: ignore[misc]
        shutil.rmtree(root)
    tally.show(capsys, "archives")
