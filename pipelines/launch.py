"""Several processes of one command on this machine, with one outcome.

The parent starts the workers, waits, and takes over the exit code and the message of the first that failed. Parent and
worker share a socket, the line: the worker's message goes up on it, and when it breaks the parent is gone, so that the
worker ends, too. Workers have sessions of their own; a signal, also Ctrl-C, reaches them through the parent, once.
"""

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import NamedTuple

from data.console import tell
from data.errors import Preempted, WorkerError
from pipelines.worker import LINE
from stage1_autoencoder.training.environment import thread_settings
from stage1_autoencoder.training.stopping import heeded_signals

KEPT_BYTES = 1 << 14  # of what a worker says, the end
# Most survivors of a failure end by themselves, because a connection broke, and may say better than it what happened.
UNDISTURBED_SEC, STOPPING_SEC = 5, 20


class _End(NamedTuple):
    rank: int
    code: int  # below 0: the signal that killed it
    message: str  # "" unless it ended with an error that it understood
    stderr: str


def launch(command: list[str], processes: int) -> None:
    """Run `command` as ranks 0 ... processes - 1 and return when all have succeeded.

    The first failure decides what is raised: `SystemExit` with a worker's own code, after its message on stderr;
    `Preempted` or `KeyboardInterrupt` when it died of a signal that was passed on to it; else `WorkerError`.
    """
    passed_on: list[signal.Signals] = []
    end = asyncio.run(_run(command, processes, passed_on))
    if end is None:
        return
    if end.message:
        tell(end.message.rstrip("\n"))
        raise SystemExit(end.code)
    if -end.code in passed_on:
        if -end.code == signal.SIGINT:
            raise KeyboardInterrupt
        raise Preempted("stopped; what was finished is kept", "run the same command again")
    if end.stderr:
        tell(end.stderr.rstrip("\n"))
    raise WorkerError(f"process {end.rank} of {processes} (rank {end.rank}) {_how(end.code)}", _advice(end.code))


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


def _advice(code: int) -> str:
    if code == -signal.SIGKILL:
        return "if memory ran out, lower --batch-size; the same command goes on from what was saved"
    return "the same command goes on from what was saved"


async def _run(command: list[str], processes: int, passed_on: list[signal.Signals]) -> _End | None:
    """The end of the worker whose failure explains the others', or None; collects the signals that were passed on."""
    workers: list[Process] = []
    ends: list[_End] = []

    def pass_on(number: signal.Signals) -> None:
        passed_on.append(number)
        _send(workers, number)

    for number in heeded_signals():
        asyncio.get_running_loop().add_signal_handler(number, pass_on, number)
    shared = _shared_environment(processes)
    running = set()
    for rank in range(processes):
        ours, theirs = socket.socketpair()
        with theirs:
            workers.append(await _start(command, rank, shared, theirs.fileno()))
        running.add(asyncio.create_task(_follow(rank, workers[rank], ours, ends)))
    if passed_on:  # while they were being started
        _send(workers, passed_on[-1])
    while running and not any(end.code for end in ends):
        _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    if running:
        _, running = await asyncio.wait(running, timeout=UNDISTURBED_SEC)
    failures = [end for end in ends if end.code]
    if running:
        if not passed_on:  # to one that is saving, a second signal means at once
            _send(workers, signal.SIGTERM)
        _, running = await asyncio.wait(running, timeout=STOPPING_SEC)
    if running:
        _kill(workers)
        await asyncio.wait(running)
    # A lost connection is what the others see of a failure.
    return next((end for end in failures if end.code != WorkerError.exit_code), failures[0] if failures else None)


def _send(workers: list[Process], number: signal.Signals) -> None:
    for worker in workers:
        if worker.returncode is None:
            worker.send_signal(number)


def _kill(workers: list[Process]) -> None:
    """With what they started: a grandchild would keep the worker's stderr open."""
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)


def _shared_environment(processes: int) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free now
    return (
        thread_settings(processes)
        | os.environ
        | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
    )


async def _start(command: list[str], rank: int, shared: dict[str, str], line: int) -> Process:
    """Rank 0 has the terminal; of the others only the end of stderr may ever be shown."""
    return await asyncio.create_subprocess_exec(
        *command,
        env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), LINE: str(line)},
        stdin=DEVNULL,
        stdout=DEVNULL if rank else None,
        stderr=PIPE if rank else None,
        pass_fds=[line],
        start_new_session=True,
    )


async def _follow(rank: int, worker: Process, line: socket.socket, ends: list[_End]) -> None:
    """Append to `ends` how this worker ended."""
    reader, writer = await asyncio.open_connection(sock=line)
    message, stderr = await asyncio.gather(_last_of(reader), _last_of(worker.stderr))
    ends.append(_End(rank, await worker.wait(), message, stderr))
    writer.close()


async def _last_of(stream: asyncio.StreamReader | None) -> str:
    kept = b""
    while stream and (piece := await stream.read(KEPT_BYTES)):
        kept = (kept + piece)[-KEPT_BYTES:]
    return kept.decode(errors="replace")
