"""Killed, out of space or at NaN, a run loses at most what it did since its last snapshot, and never its way."""

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import DivergedError, Preempted, SpaceError, Terminated
from data.files.checkpoints import load_newest, load_weights
from data.files.runs import read_metrics
from stage2_codegen import snapshots
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.snapshots import Scorer
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS
from tests.training_runs import (
    arguments,
    assert_same_bits,
    assert_same_files,
    full_at,
    log_of,
    poisoned,
    start_command,
    state,
)

Configure = Callable[..., TrainConfig[Any]]
KILLS = int(os.environ.get("CODEGAN_KILLS", "3"))


@pytest.mark.timeout(300 + 10 * KILLS)
def test_a_run_killed_at_any_instant_ends_as_one_that_was_not(configure: Configure) -> None:
    """kill -9 at random instants of a process that trains, then the same command: same weights, same log."""
    whole, config = (configure("accel", out, kimg=0.16, snapshot_kimg=0.016) for out in ("whole", "killed"))
    began = time.monotonic()
    process = start_command(arguments(whole, "accel"))
    process.join()
    assert process.exitcode == 0
    instants = [random.Random(0).uniform(0, time.monotonic() - began) for _ in range(KILLS)]
    for instant in instants:
        process = start_command(arguments(config, "accel"))
        process.join(instant)
        process.kill()
        process.join()
    train("accel", config)
    assert_same_bits(whole.out, config.out)
    assert log_of(whole.out) == log_of(config.out)


@pytest.mark.parametrize(
    ("update", "expected", "saved"),
    [(0, Terminated, None), (2, Preempted, 24), (4, Terminated, 32)],  # snapshots are 4 updates apart
)
def test_sigterm_within_a_step_waits_for_it_unless_all_before_it_is_saved(
    update: int, expected: type[BaseException], saved: int | None, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first step may compile for minutes."""
    accel, config, updates = VARIANTS["accel"], configure("accel", "run"), itertools.count()

    def preempting(model: Any) -> Any:
        loss: Any = accel.loss(model)
        plain = loss.critic_loss

        def critic_loss(*args: Any) -> Any:
            if next(updates) == update:
                os.kill(os.getpid(), signal.SIGTERM)
            return plain(*args)

        loss.critic_loss = critic_loss
        return loss

    with monkeypatch.context() as patch:
        patch.setitem(VARIANTS, "accel", accel._replace(loss=preempting))
        with pytest.raises(expected):
            train("accel", config)
    checkpoint = load_newest(config.out / "checkpoints")
    assert (checkpoint and checkpoint.state["nimg"]) == saved
    train("accel", config)
    train("accel", configure("accel", "whole"))
    assert_same_bits(configure("accel", "whole").out, config.out)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)], ids=str
)
def test_a_signal_while_scoring_acts_at_once_and_costs_nothing(
    number: signal.Signals, expected: type[BaseException], configure: Configure
) -> None:
    def measure(_: object) -> dict[str, float]:
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    config = configure("accel", "run", score_kimg=0.032)
    with pytest.raises(expected):
        train("accel", config, lambda *_: Scorer(measure, {}))
    checkpoint = load_newest(config.out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state["nimg"] == 32
    train("accel", config)
    train("accel", configure("accel", "whole"))
    assert_same_bits(configure("accel", "whole").out, config.out)


def test_a_full_disk_while_saving_keeps_the_state_before(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure("accel", "run")
    train("accel", configure("accel", "run", kimg=0.032))
    before = state(config.out)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "opt_G.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(SpaceError) as caught:
            train("accel", config)
    assert caught.value.exit_code == 7
    after = state(config.out)
    assert all(torch.equal(value, after[group][key]) for group in before for key, value in before[group].items())
    train("accel", config)
    train("accel", configure("accel", "whole"))
    assert_same_bits(configure("accel", "whole").out, config.out)


def test_a_run_whose_disk_was_full_at_any_write_ends_with_the_files_of_one_that_was_not(configure: Configure) -> None:
    """Each write of the first snapshot fails in turn; the same command then makes what is missing."""
    short = {"kimg": 0.016, "snapshot_kimg": 0.008, "score_kimg": 0.008}

    def scorer(*_: object) -> Scorer:
        return Scorer(lambda pictures: {"fid": float(pictures([0]).mean())}, {"num": 1})

    writing = ("save_state", "save_weights", "save_png")
    whole = configure("dcgan", "whole", **short)
    with full_at(snapshots, writing, write=10**9) as written:
        train("dcgan", whole, scorer)
    assert written[:5] == ["append", "save_state", "save_weights", "append", "save_png"]
    for write in range(5):
        config = configure("dcgan", f"full-{write}", **short)
        with full_at(snapshots, writing, write), pytest.raises(OSError, match="No space"):
            train("dcgan", config, scorer)
        train("dcgan", config, scorer)
        assert_same_files(whole.out, config.out)


@pytest.mark.parametrize("minutes", [1e-9, 0])
def test_saves_by_the_clock_leave_a_run_as_it_would_be(
    minutes: float, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every step here, and without a grid or a row of health."""
    saved: list[int] = []
    save_state = snapshots.save_state

    def save_and_note(*args: Any) -> Path:
        saved.append(args[3].nimg)
        return save_state(*args)

    whole, config = configure("dcgan", "whole", snapshot_minutes=0), configure("dcgan", "run", snapshot_minutes=minutes)
    train("dcgan", whole)
    monkeypatch.setattr(snapshots, "save_state", save_and_note)
    train("dcgan", replace(config, kimg=0.04))
    assert load_weights(config.out / "weights").state["nimg"] == 40
    train("dcgan", config)
    assert saved == ([8, 16, 24, 32, 40, 48, 56, 64, 72, 80] if minutes else [32, 40, 64, 80])
    (config.out / "samples" / "000000040.png").unlink()  # the end of the shorter run
    assert sorted(path.name for path in (config.out / "checkpoints").iterdir()) == [f"{64:012d}", f"{80:012d}"]
    assert_same_bits(whole.out, config.out)
    assert {path.name for path in (whole.out / "samples").iterdir()} == {
        path.name for path in (config.out / "samples").iterdir()
    }


_ON_A_SMALL_DISK = """
import dataclasses, os, shutil, sys
from pathlib import Path
from data.files.checkpoints import load_newest, load_weights
from data.errors import SpaceError
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS

store, disk = map(Path, sys.argv[1:])
run, filler = disk / "run", disk / "filler"
model = VARIANTS["accel"].Config(width=16, z_dim=8)
config = TrainConfig(store=store, out=run, model=model, kimg=0.016, batch_size=8)
train("accel", config)
longer = dataclasses.replace(config, kimg=0.032)
for room in (0, 20_000, 400_000):  # for nothing, for a line of the log, for a part of a checkpoint
    descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(descriptor, 0, shutil.disk_usage(disk).free - room)
    os.close(descriptor)
    try:
        train("accel", longer)
    except SpaceError as error:
        assert error.exit_code == 7
    else:
        raise AssertionError("the disk was not full")
    assert load_newest(run / "checkpoints").state["nimg"] == 16
    assert load_weights(run / "weights").state["nimg"] == 16
    filler.unlink()
train("accel", longer)
assert load_newest(run / "checkpoints").state["nimg"] == 32
"""


def test_a_disk_that_is_really_full_keeps_the_state_before(store: Path, tmp_path: Path) -> None:
    """On a file system of 16 MB, in a mount namespace that ends with the process."""
    (tmp_path / "disk").mkdir()
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=16m tmpfs "$1"'
    try:
        subprocess.run([*mounted, mount, "sh", tmp_path / "disk"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    script = f'{mount} && exec {sys.executable} -c "$2" "$3" "$1"'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*mounted, script, "sh", tmp_path / "disk", _ON_A_SMALL_DISK, store],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_nan_rolls_back_to_the_checkpoint_and_the_log_says_so(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has nothing of the steps that were taken back."""
    config = configure("accel", "run", kimg=0.096, on_nan="rollback")
    with poisoned("accel", updates=[5]):  # the sixth step, after the checkpoint at the fourth
        train("accel", config)
    said = capsys.readouterr().err
    assert "warning: NaN or infinity before image 64; back to image 32 with half the learning rates (1 of" in said
    checkpoint = load_newest(config.out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state == {"nimg": 96, "step": 12, "rollbacks": 1}
    assert [row["nimg"] for row in read_metrics(config.out)] == [32, 32, 64, 80, 96, 96]
    assert [row["nimg"] for row in read_metrics(config.out) if row.get("rollbacks") == 1] == [32]


def test_a_save_by_the_clock_keeps_nothing_that_came_after_nan(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure("accel", "run", kimg=0.064, on_nan="rollback", snapshot_minutes=1e-9)
    with poisoned("accel", updates=[5]):
        train("accel", config)
    assert "NaN or infinity before image 48; back to image 40 with half" in capsys.readouterr().err


def test_rates_stay_halved_after_a_resume(configure: Configure) -> None:
    config = configure("accel", "whole", kimg=0.096, on_nan="rollback")
    with poisoned("accel", updates=[5]):
        train("accel", config)
    with poisoned("accel", updates=[5]):
        train("accel", configure("accel", "parts", kimg=0.064, on_nan="rollback"))
    train("accel", configure("accel", "parts", kimg=0.096))  # on_nan may change
    assert_same_bits(config.out, configure("accel", "parts").out)
    train("accel", configure("accel", "healthy", kimg=0.096))
    healthy, halved = state(configure("accel", "healthy").out)["G"], state(config.out)["G"]
    assert any(not torch.equal(value, halved[key]) for key, value in healthy.items())


def test_without_a_checkpoint_a_run_rolls_back_to_its_start(configure: Configure) -> None:
    """As one that began with half the rates, for accel has no other schedule."""
    with poisoned("accel", updates=[1]):
        train("accel", configure("accel", "rolled", on_nan="rollback"))
    rates = {key: value / 2 for key, value in {"lr": 2e-4, "critic_lr": 2e-4}.items()}
    train("accel", configure("accel", "slow", model=rates))
    assert_same_bits(configure("accel", "rolled").out, configure("accel", "slow").out)


def test_a_run_rolls_back_three_times_at_most(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("accel", "run", kimg=0.064, on_nan="rollback")
    with poisoned("accel", updates=range(5, 1000)), pytest.raises(DivergedError) as caught:
        train("accel", config)
    assert caught.value.exit_code == 8
    assert caught.value.fix == "start a new run with lower --model.lr and --model.critic-lr"
    assert capsys.readouterr().err.count("warning: NaN") == 3
    with poisoned("accel", updates=range(1000)), pytest.raises(DivergedError):
        train("accel", config)  # the count is in the checkpoint
    assert "warning: NaN" not in capsys.readouterr().err
    train("accel", config)
    checkpoint = load_newest(config.out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state == {"nimg": 64, "step": 8, "rollbacks": 3}
