"""Runs of `codegan` as a user types them, timed, and done once however often a benchmark is repeated."""

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.2


def run_verb(out: Path, step: str, command: str) -> dict[str, Any]:
    """Run `codegan COMMAND` in the folder `out`; what it took, also kept there for a repeat of this script."""
    record = out / "steps" / f"{step}.json"
    if not record.exists():
        began = time.perf_counter()
        words = [sys.executable, "-m", "pipelines", *command.split()]
        process = subprocess.Popen(words, cwd=out, stdout=sys.stderr)  # our own output is the table alone
        peak_mb = _peak_mb(process)
        if process.returncode:
            raise SystemExit(f"codegan {command}: ended with {process.returncode}")
        record.parent.mkdir(exist_ok=True)
        taken = {"command": command, "seconds": time.perf_counter() - began, "peak_mb": peak_mb}
        record.write_text(json.dumps(taken))
    return {"step": step, **json.loads(record.read_text())}


def _peak_mb(process: subprocess.Popen[bytes]) -> float:
    """Wait for the process to end; its largest resident memory.

    From Linux's high-water mark, read until the process has gone, so what grows in its last moment is missed. It starts
    anew at exec, where `ru_maxrss` keeps what the parent, a benchmark with its own copy of torch, held at the fork.
    """
    peak_kb = 0
    while process.returncode is None:
        # a process that has ended but was not yet waited for has no such line
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
            peak_kb = int(found[1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    return peak_kb / 1024
