"""Weights are read from a .zip of a run as from its folder, and hostile or damaged archives are refused."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from data.errors import CodeganError, CorruptError, InputError, UnsafeError
from data.files import packed
from data.files.checkpoints import load_weights, save_weights
from data.files.packed import load_packed

STATE = {"kind": "generator", "nimg": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A run folder, with a training state and the best weights."""
    run = tmp_path_factory.mktemp("run")
    save_weights(run / "weights", {"generator": {"w": torch.arange(3.0)}}, {**STATE, "nimg": 2}, best=True)
    save_weights(run / "weights", {"generator": {"w": torch.arange(4.0)}}, STATE)
    (run / "config.json").write_text("{}")
    (run / "checkpoints" / "000000000003").mkdir(parents=True)
    (run / "checkpoints" / "000000000003" / "manifest.json").write_text('{"files": {}}')
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}{name}": content for name, content in files.items()}


LAYOUTS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "the folder": lambda files: below("photos/", files),
    "its files": lambda files: files,
    "deeper, by a file manager": lambda files: {
        **below("my runs/photos/", files),
        **below("__MACOSX/my runs/photos/._", files),
        "my runs/.DS_Store": b"",
    },
    "made on Windows": lambda files: {f"photos\\{name.replace('/', chr(92))}": data for name, data in files.items()},
    "its weights": lambda files: {name: data for name, data in files.items() if name.startswith("weights/")},
    "the files of its weights": lambda files: {
        name.removeprefix("weights/"): data for name, data in files.items() if name.startswith("weights/")
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_is_found_however_it_was_packed(files: dict[str, bytes], tmp_path: Path, layout: str) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(zipped(LAYOUTS[layout](files)))
    newest, best = load_packed(path), load_packed(path, best=True)
    assert newest.state == STATE
    assert torch.equal(newest.tensors["generator"]["w"], torch.arange(4.0))
    assert best.state["nimg"] == 2
    assert torch.equal(best.tensors["generator"]["w"], torch.arange(3.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zip"]


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def changed(files: dict[str, bytes], name: str, content: bytes) -> dict[str, bytes]:
    return {**files, name: content}


GENERATOR, MANIFEST = "weights/generator.safetensors", "weights/manifest.json"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: {"a.png": b""}, InputError, "holds no weights"),
        (lambda f: without(f, MANIFEST), InputError, "holds no weights"),
        (lambda f: {**below("a/", f), **below("b/", f)}, InputError, "holds 2 runs"),
        (lambda f: without(f, GENERATOR), CorruptError, "generator.safetensors is missing"),
        (lambda f: changed(f, GENERATOR, f[GENERATOR][:-1] + b"\1"), CorruptError, "checksum mismatch"),
        (lambda f: changed(f, GENERATOR, f[GENERATOR][:-1]), CorruptError, "bytes instead of"),
        (lambda f: changed(f, "weights/hook.pkl", b""), CorruptError, r"hook\.pkl is not in manifest"),
        (lambda f: changed(f, MANIFEST, b"[]"), CorruptError, "manifest.json does not hold"),
        (lambda f: changed(f, MANIFEST, b'{"files": {"generator.safetensors": 3}}'), CorruptError, "manifest.json"),
        (lambda f: changed(f, "weights//generator.safetensors", b"x"), UnsafeError, "twice"),
    ],
)
def test_what_is_no_whole_run_is_refused(
    files: dict[str, bytes],
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    error: type[CodeganError],
    message: str,
) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(zipped(change(files)))
    with pytest.raises(error, match=message) as caught:
        load_packed(path)
    assert str(path) in caught.value.what


def test_names_that_lead_outside_are_only_names(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "in" / "run.zip"
    path.parent.mkdir()
    path.write_bytes(zipped({**files, "../evil.txt": b"x", "/etc/evil": b"x"}))
    assert load_packed(path).state == STATE
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["in", "run.zip"]


def test_no_scored_weights_are_told(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(zipped({name: data for name, data in files.items() if "/best/" not in name}))
    with pytest.raises(InputError, match="no snapshot in it was scored"):
        load_packed(path, best=True)


def test_every_cut_and_every_other_file_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    whole, path = zipped(files), tmp_path / "run.zip"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptError):
            load_packed(path)
    path.write_bytes(b"\x80\x04." * 100)  # a pickle
    with pytest.raises(CorruptError, match="not a whole zip"):
        load_packed(path)


def test_large_contents_are_not_unpacked(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(zipped(changed(files, GENERATOR, bytes(4 << 20))))
    monkeypatch.setattr(packed, "MAX_BYTES", 1 << 20)
    with pytest.raises(UnsafeError, match="more than"):
        load_packed(path)


def test_a_member_that_lies_about_its_size_is_not_unpacked_beyond_it(files: dict[str, bytes], tmp_path: Path) -> None:
    """Its header says 100 bytes, and there are 64 MB."""
    content = zipped(changed(files, GENERATOR, bytes(64 << 20)))
    lying = content.replace(struct.pack("<L", 64 << 20), struct.pack("<L", 100))
    assert lying != content
    path = tmp_path / "run.zip"
    path.write_bytes(lying)
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(CorruptError):
        load_packed(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(files: dict[str, bytes], tmp_path: Path, compression: int) -> None:
    path = tmp_path / "run.zip"
    path.write_bytes(zipped(files, compression))
    with pytest.raises(InputError, match="compressed"):
        load_packed(path)


def test_encrypted_members_are_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(zipped(files))
    for start, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = content.find(start)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(start, at + 4)
    path = tmp_path / "run.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        load_packed(path)


def test_the_folder_and_its_zip_hold_the_same(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(data)
    path = tmp_path / "run.zip"
    path.write_bytes(zipped(files))
    folder = load_weights(tmp_path / "run" / "weights")
    assert json.dumps(folder.state) == json.dumps(load_packed(path).state)
    assert torch.equal(folder.tensors["generator"]["w"], load_packed(path).tensors["generator"]["w"])
