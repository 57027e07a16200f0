"""Several processes have one outcome: one exit code, one message, and nobody left behind."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data.errors import Preempted, UsageError, WorkerError
from data.files.atomic import lock
from data.files.checkpoints import load_newest
from pipelines import cli
from pipelines import launch as launching
from pipelines.launch import launch
from stage1_autoencoder.training import environment
from stage1_autoencoder.training.processes import make_accelerator
from tests.launched import set_group

DEADLINE_SEC = 240  # only so that a defect does not wait for ever
SLEEP = "time.sleep(1000)"
WORKER = """
import os, signal, sys, time
from pipelines.worker import messages
rank, told = int(os.environ["RANK"]), messages()

def fail(message, code):
    print(message, file=told, flush=True)
    sys.exit(code)

"""


def _worker(*lines: str) -> list[str]:
    """The command of a worker that knows its `rank` and can `fail` as `main` does."""
    return [sys.executable, "-c", WORKER + "\n".join(lines)]


def test_each_worker_gets_its_rank_and_a_share_of_the_cores(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    monkeypatch.setattr(environment, "_quota", lambda: math.inf)
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS MASTER_PORT"
    write = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[name] for name in '{names}'.split()))"
    launch(_worker(write, "print('said by', rank)"), 3)
    seen = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    port = seen[0].pop()
    assert seen == [[str(rank), str(rank), "3", "3", "127.0.0.1", "2", *([port] if rank else [])] for rank in range(3)]
    assert capfd.readouterr() == ("said by 0\n", "")


def test_threads_that_were_chosen_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    launch(_worker("assert os.environ['OMP_NUM_THREADS'] == '5'"), 2)


def test_a_failure_of_all_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        launch(_worker("print('noise', file=sys.stderr) if rank else 0", "fail('error: x\\n  fix: y', 5)"), 2)
    assert stop.value.code == 5
    assert capfd.readouterr().err == "error: x\n  fix: y\n"


def test_a_lost_connection_does_not_hide_why_it_was_lost(capfd: pytest.CaptureFixture[str]) -> None:
    script = ["time.sleep(1) if rank else 0", "fail('corrupt', 5) if rank else fail('lost', 10)"]
    with pytest.raises(SystemExit) as stop:
        launch(_worker(*script), 2)
    assert stop.value.code == 5
    assert capfd.readouterr().err == "corrupt\n"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_named_and_the_others_stop(
    rank: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "UNDISTURBED_SEC", 0.1)
    with pytest.raises(WorkerError, match=rf"process {rank} of 2 \(rank {rank}\) was killed by {number.name}"):
        launch(_worker(f"os.kill(os.getpid(), {number:d}) if rank == {rank} else {SLEEP}"), 2)


def test_a_worker_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "UNDISTURBED_SEC", 0.1)
    monkeypatch.setattr(launching, "STOPPING_SEC", 0.1)
    deaf = tmp_path / "deaf"
    script = [
        "if rank == 0:",
        f"    while not os.path.exists('{deaf}'): time.sleep(0.01)",
        "    fail('over', 3)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        f"open('{deaf}', 'w').write(str(os.getpid()))",
        SLEEP,
    ]
    with pytest.raises(SystemExit) as stop:
        launch(_worker(*script), 2)
    assert stop.value.code == 3
    assert not psutil.pid_exists(int(deaf.read_text()))


def test_what_a_worker_could_not_explain_is_shown_whole(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerError, match=r"process 1 of 2 \(rank 1\) failed with exit code 1"):
        launch(_worker("if rank: raise RuntimeError('unforeseen')"), 2)
    assert "RuntimeError: unforeseen" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, Preempted), (signal.SIGHUP, Preempted), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_signal_reaches_every_worker_once(
    number: signal.Signals, raised: type[BaseException], tmp_path: Path
) -> None:
    """In a process of its own; the workers write how often they were told, then die of it or end well."""
    count = [
        "told = []",
        f"signal.signal({number:d}, lambda *_: told.append(1))",
        f"open(f'{tmp_path}/ready{{rank}}', 'w').close()",
        "while not told: time.sleep(0.01)",
        "time.sleep(0.3)",
        f"open(f'{tmp_path}/told{{rank}}', 'w').write(str(len(told)))",
        f"signal.signal({number:d}, signal.SIG_DFL); os.kill(os.getpid(), {number:d})",
    ]
    parent = _parent(_worker(*count))
    _wait(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)))
    os.killpg(parent.pid, number)  # as a terminal does: to the whole group of the parent
    _, complaint = parent.communicate(timeout=DEADLINE_SEC)
    assert raised.__name__ in complaint
    assert [(tmp_path / f"told{rank}").read_text() for rank in (0, 1)] == ["1", "1"]


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    script = f"open(f'{tmp_path}/{{rank}}', 'w').write(str(os.getpid()))"
    parent = _parent(_worker(script, SLEEP))
    _wait(lambda: all((tmp_path / str(rank)).exists() and (tmp_path / str(rank)).read_text() for rank in (0, 1)))
    workers = [psutil.Process(int((tmp_path / str(rank)).read_text())) for rank in (0, 1)]
    parent.kill()
    parent.communicate()
    _wait(lambda: not any(_is_alive(worker) for worker in workers))


def _parent(command: list[str]) -> subprocess.Popen[str]:
    heeds = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # also where the tests run under nohup
    script = f"{heeds}; from pipelines.launch import launch; launch({command!r}, 2)"
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    set_group(monkeypatch, rank=0, size=2)
    with pytest.raises(UsageError, match=r"2 processes: more than this machine.s GPUs \(1\)"):
        make_accelerator()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    cli.run(["encode", "--data", "scenes:24@16", "--autoencoder", "pixels", "--size", "16", "--out", str(path)])
    return path


def _train(store: Path, kimg: float) -> list[str]:
    arguments = ["train", "accel", "--store", str(store), "--out", str(store.with_name("run")), "--kimg", str(kimg)]
    return [*arguments, "--batch-size", "4", "--snapshot-kimg", "0.04", "--model.width", "16", "--model.z-dim", "8"]


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *arguments, "--processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _outcome(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit code, and the lines of every error and fix that was shown."""
    _, shown = process.communicate(timeout=DEADLINE_SEC)
    assert "Traceback" not in shown
    return process.returncode, [line for line in shown.splitlines() if line.startswith(("error:", "  fix:"))]


def test_a_rank_that_dies_ends_the_training_which_then_resumes(store: Path) -> None:
    checkpoints = store.with_name("run") / "checkpoints"
    parent = _start(_train(store, kimg=1000))
    _wait(lambda: any(checkpoints.glob("[0-9]*")) or parent.poll() is not None)
    assert parent.poll() is None, parent.communicate()
    workers = psutil.Process(parent.pid).children()
    next(worker for worker in workers if worker.environ()["RANK"] == "1").kill()
    code, (what, _) = _outcome(parent)
    assert (code, what) == (10, "error: process 1 of 2 (rank 1) was killed by SIGKILL")
    assert not any(_is_alive(worker) for worker in workers)
    kept = load_newest(checkpoints)
    assert kept is not None
    cli.run(_train(store, kimg=(kept.state["nimg"] + 4) / 1000))
    resumed = load_newest(checkpoints)
    assert resumed is not None
    assert resumed.state["step"] == kept.state["step"] + 1


def test_a_damaged_shard_is_named_once(store: Path, flip_bit: Callable[[Path, int], None]) -> None:
    shard = next(path for path in (store / "latents" / "c").rglob("*") if path.is_file())
    flip_bit(shard, 100)
    code, (what, _) = _outcome(_start(_train(store, kimg=1)))
    assert code == 5
    assert str(shard) in what


def test_a_locked_store_is_refused_once(tmp_path: Path) -> None:
    encode = ["encode", "--data", "scenes:4@16", "--autoencoder", "pixels", "--size", "16"]
    with lock(tmp_path / "store"):
        code, (what, _) = _outcome(_start([*encode, "--out", str(tmp_path / "store")]))
    assert code == 9
    assert f"process {os.getpid()}" in what
