"""A worker's end of the line to its parent, `pipelines.launch`; apart from it, since every command loads this."""

import os
import signal
import socket
import sys
import threading
from typing import TextIO

LINE = "CODEGAN_LINE"  # the environment variable that holds the line's file descriptor


def messages() -> TextIO:
    """Where this process says why it fails: to stderr, or as a worker to its parent, with whom it then also ends."""
    if LINE not in os.environ:
        return sys.stderr
    line = socket.socket(fileno=int(os.environ.pop(LINE)))
    threading.Thread(target=_end_with_parent, args=[line], daemon=True).start()
    return line.makefile("w", encoding="utf-8")


def _end_with_parent(line: socket.socket) -> None:
    line.recv(1)  # nothing is ever sent down: this returns when the parent is gone
    os.killpg(0, signal.SIGKILL)
