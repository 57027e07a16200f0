"""Ctrl-C and SIGTERM during a training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from data.errors import Preempted, Terminated


class StopSignal:
    """Lets a loop finish its step and save after Ctrl-C or SIGTERM; a second signal acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._waits = True
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, signal.Signals(number)
        if not (first and self._waits):
            self._end()

    def _end(self) -> NoReturn:
        raise KeyboardInterrupt if self.received is signal.SIGINT else Terminated

    @contextmanager
    def at_once(self, when: bool = True) -> Iterator[None]:
        """Inside, if `when`, a signal acts at once, also one received before; for work that leaves nothing to save."""
        self._waits = not when
        try:
            if when and self.received is not None:
                self._end()
            yield
        finally:
            self._waits = True

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def raise_if_early(self, folder: Path, nimg: int, total: int) -> None:
        """Raise `KeyboardInterrupt` for Ctrl-C or `Preempted` for SIGTERM, if images are left to show."""
        if nimg < total and self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if nimg < total:
            raise Preempted(
                f"{folder}: stopped after {nimg} of {total} images, all saved", "run the same command again"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
