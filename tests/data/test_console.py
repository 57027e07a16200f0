"""Progress is told while steps are slow, and a reader that has gone away ends no work."""

import errno
import io
import sys
import time

import pytest

from data import console
from data.console import ProgressReport, tell, warn


def test_a_slow_step_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_LINE_EVERY_SEC", 0.02)
    deadline, shown = time.monotonic() + 60, ""
    with ProgressReport("train", 20, "img") as report:
        report.update(4, {"loss": 0.5})
        while shown.count("since then") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            shown += capsys.readouterr().err
    assert "train: 4/20 img  20%  loss 0.5  0 s since then" in shown.splitlines()
    time.sleep(0.05)
    assert not capsys.readouterr().err  # the thread has ended


def test_values_are_shown_until_there_are_new_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_LINE_EVERY_SEC", 0.0)
    report = ProgressReport("train", 20, "img")
    report.update(4, {"loss": 0.5})
    report.update(8)
    assert all("loss 0.5" in line for line in capsys.readouterr().err.splitlines())
    report.update(20, {"loss": 0.25})
    assert "loss 0.25" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO])
def test_a_reader_that_has_gone_away_ends_no_work(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.TextIOBase):
        def write(self, text: str) -> int:
            raise OSError(code, "closed")

    monkeypatch.setattr(sys, "stderr", Closed())
    tell("something")
    warn("something", "nothing")
    with ProgressReport("train", 1, "img") as report:
        report.update(1)
