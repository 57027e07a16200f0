"""Runs of `codegan` as a user types them, timed, and done once however often a benchmark is repeated."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run_verb(out: Path, step: str, command: str) -> dict[str, Any]:
    """Run `codegan COMMAND` in the folder `out`; what it took, also kept there for a repeat of this script."""
    record = out / "steps" / f"{step}.json"
    if not record.exists():
        began = time.perf_counter()
        words = [sys.executable, "-m", "pipelines", *command.split()]
        process = subprocess.Popen(words, cwd=out, stdout=sys.stderr)  # our own output is the table alone
        _, status, usage = os.wait4(process.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise SystemExit(f"codegan {command}: ended with {code}")
        record.parent.mkdir(exist_ok=True)
        taken = {"command": command, "seconds": time.perf_counter() - began, "peak_mb": usage.ru_maxrss / 1024}
        record.write_text(json.dumps(taken))
    return {"step": step, **json.loads(record.read_text())}
