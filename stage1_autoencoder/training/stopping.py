"""Requests to stop a training: Ctrl-C, SIGTERM, a closed terminal, and the warnings of batch systems."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from data.console import tell
from data.errors import Preempted, Terminated

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Others may come twice without meaning it: a terminal and its shell both hang up, and a warning precedes SIGTERM.
_INSISTENT = (signal.SIGINT, signal.SIGTERM)


def heeded_signals() -> list[signal.Signals]:
    """Return the signals that stop this process: all, but not SIGHUP under `nohup`, which lets it be ignored."""
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (number is signal.SIGHUP and is_nohup)]


class StopSignal:
    """Lets a loop finish its step and save after a signal; a second Ctrl-C or SIGTERM acts at once."""

    def __init__(self, answers: bool = False) -> None:
        """Take whether the first signal is answered by a line on stderr, as on one of several processes."""
        self.received: signal.Signals | None = None
        self._answers = answers
        self._waits = True
        self._stack = ExitStack()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        repeated = self.received in _INSISTENT and number in _INSISTENT
        if self.received is None or number in _INSISTENT:
            self.received = signal.Signals(number)
        if repeated or not self._waits:
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
        for number in heeded_signals():
            self._stack.callback(signal.signal, number, signal.signal(number, self._receive))
        if self._answers:
            self._stack.enter_context(self._answering())
        return self

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Inside, a thread answers: a handler would run only after the call into torch, which may take a minute."""
        woken, waking = socket.socketpair()
        waking.setblocking(False)
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._answer, args=[woken], daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            waking.close()  # which ends the thread
            thread.join()
            woken.close()

    def _answer(self, woken: socket.socket) -> None:
        while number := woken.recv(1):
            if number[0] in STOP_SIGNALS and self._waits:
                tell("saving after this step, then stopping; a second Ctrl-C stops without saving")
                return

    def raise_if_early(self, folder: Path, nimg: int, total: int) -> None:
        """Raise `KeyboardInterrupt` for Ctrl-C or `Preempted` for another signal, if images are left to show."""
        if nimg < total and self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if nimg < total:
            raise Preempted(
                f"{folder}: stopped after {nimg} of {total} images, all saved", "run the same command again"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
