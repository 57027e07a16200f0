"""A crash at any instant leaves the old state or the new one, and damage is found."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import CorruptError, LockedError, SpaceError, UnsafeError, UsageError
from data.files.atomic import commit_folder, lock, read_json, remove_partials, verify_folder, write_bytes, write_json

FILES = {"a.bin": bytes(range(200)), "b.json": b'{"x": 1}\n', "sub/c.bin": b"x" * 50}

# Fills and commits argv[1], but is killed just before the argv[2]-th call that touches the disk for good.
KILLED_WRITER = """
import os, pathlib, shutil, signal, sys
from data.files.atomic import commit_folder

left = int(sys.argv[2])

def dying(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

os.fsync, pathlib.Path.rename, shutil.rmtree = dying(os.fsync), dying(pathlib.Path.rename), dying(shutil.rmtree)
pathlib.Path.replace = dying(pathlib.Path.replace)
with commit_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "new.bin").write_bytes(b"new")
"""

LOCK_HOLDER = """
import pathlib, sys
from data.files.atomic import lock

with lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_midway_keeps_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SpaceError, match="file: no space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_makes_folders_and_json_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "b": "ü"}
    write_json(tmp_path / "new" / "v.json", value)
    assert read_json(tmp_path / "new" / "v.json") == value
    for broken in (b"{", b"\xff\xfe\x00"):
        (tmp_path / "v.json").write_bytes(broken)
        with pytest.raises(CorruptError, match=r"v\.json"):
            read_json(tmp_path / "v.json")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_not_written(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "v.json", {"a": [number]})
    assert names(tmp_path) == []


def test_every_folder_newly_made_is_synced_into_the_one_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, set[str]] = {}  # what a folder, by its inode, held when it was last synced

    def sync(descriptor: int) -> None:
        if os.path.isdir(descriptor):
            synced[os.fstat(descriptor).st_ino] = set(os.listdir(descriptor))

    monkeypatch.setattr(os, "fsync", sync)

    monkeypatch.chdir(tmp_path)
    for index, folder in enumerate((Path("a/b/c"), tmp_path / "d/e", tmp_path / "a/f")):
        write_bytes(folder / "file", b"x")
        with lock(folder / "locked"), commit_folder(folder / "locked" / "deep" / "committed"):
            pass
        write_bytes(folder / "locked" / "deep" / "file", b"x")
        made = [path for path in tmp_path.rglob("*") if path.is_dir() and path.name != "committed"]
        assert len(made) >= 4 * (index + 1)
        for path in (tmp_path, *made):
            held = {name for name in os.listdir(path) if name != ".lock"}
            assert held <= synced.get(path.stat().st_ino, set()), path


def test_a_lock_leaves_no_folder_that_it_made_and_nobody_filled(tmp_path: Path) -> None:
    with lock(tmp_path / "a" / "b"):
        assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path) == []
    (tmp_path / "a").mkdir()
    with lock(tmp_path / "a"), lock(tmp_path / "c" / "d"):
        (tmp_path / "c" / "file").touch()
    assert names(tmp_path) == ["a", "c"]
    assert names(tmp_path / "c") == ["file"]


def test_a_lock_is_not_named_by_errors_of_the_work_done_under_it(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError) as error, lock(tmp_path / "run"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    assert error.value.filename is None
    with pytest.raises(OSError, match="elsewhere is full"), lock(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "elsewhere is full")


def test_a_failed_commit_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for existing in (False, True):
        with pytest.raises(ZeroDivisionError), commit_folder(target) as folder:  # noqa: PT012
            (folder / "half.bin").write_bytes(b"half")
            raise ZeroDivisionError
        assert names(tmp_path) == (["target"] if existing else [])
        if not existing:
            with commit_folder(target) as folder:
                fill(folder)
    verify_folder(target)
    assert {name: (target / name).read_bytes() for name in FILES} == FILES


def test_a_commit_on_a_full_disk_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    with commit_folder(target) as folder:
        fill(folder)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SpaceError), commit_folder(target) as folder:
        (folder / "new.bin").write_bytes(b"new")
    verify_folder(target)
    assert (target / "a.bin").read_bytes() == FILES["a.bin"]


@pytest.mark.parametrize("replacing", [False, True])
def test_a_killed_commit_leaves_a_whole_folder_or_none(tmp_path: Path, replacing: bool) -> None:
    outcomes = []
    for calls in range(20):
        parent = tmp_path / str(calls)
        target = parent / "target"
        if replacing:
            with commit_folder(target) as folder:
                fill(folder)
        killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, target, str(calls)], check=False).returncode
        if target.exists():
            verify_folder(target)
            outcomes.append("new" if (target / "new.bin").exists() else "old")
        else:
            outcomes.append("none")
            if replacing:  # killed between two renames: the old one is whole beside it
                verify_folder(parent / ".partial-old-target")
        with commit_folder(target) as folder:  # nothing left behind is in the way of the next two
            fill(folder)
        with commit_folder(target) as folder:
            fill(folder)
        verify_folder(target)
        remove_partials(parent)
        assert names(parent) == ["target"]
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
    first = "old" if replacing else "none"
    assert outcomes[0] == first
    assert outcomes[-1] == "new"
    assert outcomes.count("none") <= 1 or not replacing


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    with commit_folder(tmp_path / "target") as folder:
        fill(folder)
    verify_folder(tmp_path / "target")
    return tmp_path / "target"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_flip_anywhere_is_found(committed: Path, flip_bit: Callable[[Path, int], None], name: str) -> None:
    path = committed / name
    content = path.read_bytes()
    for offset in range(len(content)):
        flip_bit(path, offset)
        with pytest.raises(CorruptError):
            verify_folder(committed)
        path.write_bytes(content)
    verify_folder(committed)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_cut_or_foreign_file_is_named(committed: Path, name: str) -> None:
    path = committed / name
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(CorruptError, match=f"{path}: is missing"):
        verify_folder(committed)
    path.write_bytes(content[:-1])
    if name != "manifest.json":  # whose last byte is a newline
        with pytest.raises(CorruptError, match=str(path)):
            verify_folder(committed)
    path.write_bytes(content)
    (committed / "foreign.bin").write_bytes(b"?")
    with pytest.raises(CorruptError, match=r"foreign\.bin"):
        verify_folder(committed)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"files": []}', '{"files": {"a.bin": {}}}', '{"files": {"a": 1}}'])
def test_a_manifest_of_another_shape_is_damage(committed: Path, manifest: str) -> None:
    (committed / "manifest.json").write_text(manifest)
    with pytest.raises(CorruptError):
        verify_folder(committed)


def test_a_second_process_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOCK_HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=rf"process {holder.pid}\b"), lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert names(tmp_path) == []


def test_a_file_cannot_be_locked_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"), lock(tmp_path / "file"):
        pass


def test_killed_between_its_two_renames_a_commit_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run" / "weights"

    def write(content: str) -> None:
        with commit_folder(folder) as partial:
            (partial / "file").write_text(content)

    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.name == ".partial-weights":
            raise KeyboardInterrupt
        return rename(path, target)

    for recover in (lambda: remove_partials(tmp_path), lambda: write("next")):
        write("old")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                write("new")
        assert not folder.exists()
        recover()
        verify_folder(folder)
        assert (folder / "file").read_text() in ("old", "next")
        assert [path.name for path in folder.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize("name", [".lock", f".partial-{os.getpid()}-file"], ids=["lock", "partial"])
def test_a_link_in_the_place_of_a_file_of_ours_is_not_written_through(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    if name == ".lock":
        with pytest.raises(OSError, match=r"\.lock"), lock(tmp_path / "run"):
            pass
    else:
        write_bytes(tmp_path / "run" / "file", b"new")
        assert (tmp_path / "run" / "file").read_bytes() == b"new"
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["checkpoints", "samples", "latents/c"])
def test_a_folder_that_is_a_link_to_another_place_is_not_written_to(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(tmp_path)
    with pytest.raises(UnsafeError, match="is a link out of"), lock(run):
        pass
    (run / name).unlink()
    (run / "elsewhere").mkdir()
    (run / name).symlink_to(run / "elsewhere")
    with lock(run):
        pass


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_manifest_cannot_have_files_read_outside_its_folder(committed: Path, name: str) -> None:
    (committed.parent / "secret").write_bytes(b"")
    write_json(committed / "manifest.json", {"files": {name: {"bytes": 0, "crc32c": 0}}})
    with pytest.raises(CorruptError, match="is not the name of a file inside the folder"):
        verify_folder(committed)


BAD_ENTRIES = [{"bytes": -1, "crc32c": 0}, {"bytes": 1, "crc32c": 1 << 32}, {"bytes": 1e3, "crc32c": 0}]


@pytest.mark.parametrize("entry", BAD_ENTRIES)
def test_numbers_that_make_no_sense_are_damage(committed: Path, entry: dict[str, float]) -> None:
    write_json(committed / "manifest.json", {"files": {"a.bin": entry}})
    with pytest.raises(CorruptError, match="does not hold what it should"):
        verify_folder(committed)
