"""Whatever interrupts a stage of work, nothing finished is lost and the same call ends as if never interrupted.

The variable CODEGAN_FAULTS is the share of all faults that are tried.
"""

import errno
import os
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data.errors import CodeganError, Preempted, SpaceError
from data.files.atomic import MANIFEST, verify_folder
from data.store.seal import find_damage, find_stores
from tests.faults.journey import STAGES, Parts, Stage, backward_clock, contents, die, fault_at, stopped_clock
from tests.faults.report import share_of, show

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("single_thread"), pytest.mark.timeout(3600)]
KILLS, OTHERS = share_of(5000), share_of(500)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="module", autouse=True)
def one_clock() -> Iterator[None]:
    with stopped_clock():
        yield


class Uninterrupted(NamedTuple):
    """What a stage leaves, and how often it touches the disk."""

    stage: Stage
    files: dict[str, bytes]
    calls: int


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory, where a sync takes no time; a process that is killed loses nothing that it has written anyway."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def stages(parts: Parts, folder: Path) -> list[Uninterrupted]:
    found = []
    for name, stage in STAGES.items():
        with fault_at(0, die) as calls:
            stage(folder / name, parts)
        found.append(Uninterrupted(stage, contents(folder / name), calls[0]))
    return found


def damaged(root: Path) -> list[str]:
    """What is committed and not whole."""
    found = []
    for manifest in root.rglob(MANIFEST):
        if not any(part.startswith(".") for part in manifest.relative_to(root).parts):
            try:
                verify_folder(manifest.parent)
            except CodeganError as error:
                found.append(error.what)
    sealed = [store for store in find_stores(root) if (store / "zarr.json").is_file()]
    return found + [name for store in sealed for name in find_damage(store)[1]]


def killed_at(number: int, stage: Stage, root: Path, parts: Parts, output: Path) -> int:
    """Fork a stage that is killed at a call; its exit status, and in `output` what it said of an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch, none of which works meanwhile
        child = os.fork()
    if child == 0:
        try:
            with fault_at(number, die):
                stage(root, parts)
            os._exit(0)
        except BaseException:
            output.write_text(traceback.format_exc())
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_kills(parts: Parts, stages: list[Uninterrupted], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kill is at a random call; every fourth stage is killed twice."""
    draw, done, lost, tracebacks = np.random.default_rng(0), 0, list[str](), list[str]()
    root, error = folder / "root", folder / "error"
    while done < KILLS:
        stage, expected, calls = stages[draw.integers(len(stages))]
        for _ in range(2 if draw.integers(4) == 0 else 1):
            status = killed_at(int(draw.integers(1, calls + 1)), stage, root, parts, error)
            done += status == signal.SIGKILL
            if error.exists():
                tracebacks.append(error.read_text())
                error.unlink()
            lost += damaged(root)
        lost += resumed(stage, root, parts, expected)
    show(capsys, "kills", done, lost=lost, tracebacks=tracebacks)
    assert not lost
    assert not tracebacks


def resumed(stage: Stage, root: Path, parts: Parts, expected: dict[str, bytes]) -> list[str]:
    """Which files of a stage that goes on to its end differ from those of an uninterrupted one."""
    stage(root, parts)
    found = contents(root)
    shutil.rmtree(root)
    return [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> None:
    raise KeyboardInterrupt


def stop() -> None:
    raise Preempted("stopped", "go on")


@pytest.mark.parametrize(("kind", "fault"), [("full disks", fill_disk), ("interrupts", interrupt), ("stops", stop)])
def test_faults_that_are_raised(
    kind: str,
    fault: Callable[[], None],
    parts: Parts,
    stages: list[Uninterrupted],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw, lost, tracebacks = np.random.default_rng(1), list[str](), list[str]()
    for _ in range(OTHERS):
        stage, expected, calls = stages[draw.integers(len(stages))]
        with fault_at(int(draw.integers(1, calls + 1)), fault):
            try:
                stage(folder / "root", parts)
            except (SpaceError, Preempted, KeyboardInterrupt):
                pass
            except Exception as error:
                if getattr(error, "errno", None) != errno.ENOSPC:  # which the command line turns into a SpaceError
                    tracebacks.append(repr(error))
        lost += damaged(folder / "root")
        lost += resumed(stage, folder / "root", parts, expected)
    show(capsys, kind, OTHERS, lost=lost, tracebacks=tracebacks)
    assert not lost
    assert not tracebacks


def test_clocks_that_run_backwards(
    parts: Parts, stages: list[Uninterrupted], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, lost = np.random.default_rng(2), list[str]()
    for _ in range(OTHERS):
        stage, expected, calls = stages[draw.integers(len(stages))]
        with backward_clock():
            with pytest.raises(KeyboardInterrupt), fault_at(int(draw.integers(1, calls + 1)), interrupt):
                stage(folder / "root", parts)
            lost += resumed(stage, folder / "root", parts, expected)
    show(capsys, "clocks running backwards", OTHERS, lost=lost)
    assert not lost
