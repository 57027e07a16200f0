"""Threads are as many as the cores that are granted, and sleep where other programs keep these busy."""

import math
import os
from pathlib import Path

import psutil
import pytest

from data.errors import UsageError
from stage1_autoencoder.training import environment
from stage1_autoencoder.training.environment import granted_cores, share_cores, shares_cores, thread_settings


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine of eight, without a quota and with nothing in the environment."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5, 7}, raising=False)
    monkeypatch.setattr(environment, "_quota", lambda: math.inf)
    for name in ("CODEGAN_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "RANK"):
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("quota", "processes", "threads"),
    [(math.inf, 1, None), (math.inf, 2, "2"), (math.inf, 8, "1"), (9.0, 1, None), (1.5, 1, "2"), (0.1, 1, "1")],
)
def test_threads_are_as_many_as_cores_are_granted(
    quota: float, processes: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_quota", lambda: quota)
    assert thread_settings(processes).get("OMP_NUM_THREADS") == threads


def test_the_number_that_is_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEGAN_THREADS", "3")
    assert thread_settings() == thread_settings(processes=2) == {"OMP_NUM_THREADS": "3"}
    for wrong in ("two", "0", "-1", "1.5"):
        monkeypatch.setenv("CODEGAN_THREADS", wrong)
        with pytest.raises(UsageError, match="is not a number of threads"):
            thread_settings()


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("3:cpu,cpuacct:/a\n2:memory:/a", {f"cpu,cpuacct/a/cpu.cfs_{n}_us": "200000" for n in ("quota", "period")}, 1),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/gone", {}, math.inf),
    ],
)
def test_quotas_of_control_groups_are_read(
    groups: str, files: dict[str, str], cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "own").write_text(groups)
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content)
    assert environment._quota(tmp_path / "cgroup", tmp_path / "own") == cores
    assert environment._quota(own=tmp_path / "none") == math.inf
    assert 1 <= granted_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("busy", "given", "passive"),
    [
        ([100, 0, 100, 0, 100, 0, 100, 0], {}, False),  # the cores of others
        ([0, 30, 0, 10, 0, 0, 0, 0], {}, False),
        ([0, 30, 0, 30, 0, 0, 0, 0], {}, True),
        ([0, 100, 0, 100, 0, 0, 0, 0], {"OMP_NUM_THREADS": "2"}, False),
        ([0, 100, 0, 100, 0, 100, 0, 0], {"OMP_NUM_THREADS": "2"}, True),
        ([100] * 8, {"OMP_WAIT_POLICY": "active"}, False),
        ([100] * 8, {"RANK": "1"}, False),  # whose parent has looked
    ],
)
def test_threads_sleep_where_too_few_cores_are_idle(
    busy: list[float], given: dict[str, str], passive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: busy)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert shares_cores() == passive
