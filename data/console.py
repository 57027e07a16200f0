"""Output while a verb runs: a progress bar on a terminal, plain lines elsewhere."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY_SEC = 10.0


class ProgressReport:
    """Progress over `total` items; with `show=False`, as on ranks other than the first, nothing is printed."""

    def __init__(self, label: str, total: int, unit: str, show: bool = True) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._bar = _make_bar(unit) if show and sys.stderr.isatty() else None
        self._plain = show and self._bar is None
        self._task = self._bar.add_task(label, total=total, extra="") if self._bar else None
        self._began = self._printed = self._updated = time.monotonic()
        self._first: int | None = None
        self._last = 0
        self._values: Mapping[str, float] = {}
        self._extra = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print_slow_steps, daemon=True)

    def __enter__(self) -> Self:
        if self._plain:
            self._thread.start()
        if self._bar:
            with suppress(OSError):  # the terminal is closed, here and below
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._plain:
            self._thread.join()
        if self._bar:
            with suppress(OSError):
                self._bar.stop()

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Report that `done` items in all are done, and show `values`, or else the last ones, beside the rate."""
        now = time.monotonic()
        if self._first is None or done < self._last:  # at the start, or after a rollback
            self._first, self._began = done, now
        self._last, self._updated = done, now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        pace = [f"{rate:.1f} {self._unit}/s"] if rate > 0 else []
        self._values = values or self._values
        self._extra = "  ".join([*pace, *(f"{k} {v:.4g}" for k, v in self._values.items())])
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, extra=self._extra)
        elif self._plain and (now - self._printed >= _LINE_EVERY_SEC or done >= self._total):
            left = f"{(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
            self._print(left)

    def _print(self, remark: str) -> None:
        self._printed = time.monotonic()
        done = f"{self._label}: {self._last}/{self._total} {self._unit}"
        percent = f"{100 * self._last // max(self._total, 1)}%"
        tell("  ".join(part for part in (done, percent, self._extra, remark) if part))

    def _print_slow_steps(self) -> None:
        """Print a line where nothing was reported for a while, as a thread."""
        while not self._ended.wait(_LINE_EVERY_SEC):
            waited = time.monotonic() - self._updated
            if waited >= _LINE_EVERY_SEC:
                self._print(f"{waited:.0f} s since then")


def _make_bar(unit: str) -> "Progress":
    from rich.console import Console  # late: slow to load, and help shows no bar
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
        console=Console(stderr=True),
    )


def scan_progress(show: bool = True) -> Callable[[int, int], None]:
    """A callback (files done, files in all) that prints a line every ten seconds while a data set is read."""
    printed = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal printed
        if show and time.monotonic() - printed >= _LINE_EVERY_SEC:
            printed = time.monotonic()
            tell(f"reading: {done}/{total} files")

    return progress


def open_streams() -> None:
    """Open the null device in place of standard streams that are closed, whose numbers files would otherwise take."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is this one
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


def tell(text: str) -> None:
    """Print to stderr. That nobody reads on, as after a terminal was closed, is no reason to end the work."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def warn(what: str, advice: str) -> None:
    """Print two lines about something that is not an error yet: what was observed, and what to try."""
    tell(f"warning: {what}\n  try: {advice}")


def finish(wrote: Iterable[Any], next_command: list[str] | None = None) -> None:
    """Print the last lines of a verb: what it wrote, and what to type next."""
    for path in wrote:
        print(f"wrote {path}")
    if next_command:
        print(f"next: {shlex.join(next_command)}")
