"""How many faults are tried, and a row for each kind of them as docs/reliability.md has it."""

import os
from collections.abc import Sequence

import pytest

SHARE = float(os.environ.get("CODEGAN_FAULTS", "0.003"))  # of all faults, to try


def share_of(count: int) -> int:
    """How many of `count` faults are tried: enough for a test to be one, whatever the share."""
    return max(5, round(count * SHARE))


def sample_of[T](cases: Sequence[T]) -> Sequence[T]:
    """The share of these cases, evenly spaced."""
    count = min(len(cases), share_of(len(cases)))
    return [cases[index * len(cases) // count] for index in range(count)]


def show(capsys: pytest.CaptureFixture[str], kind: str, count: int, **outcomes: Sequence[object] | int) -> None:
    """Print a row: the kind, how many there were, and how many had each outcome."""
    counts = {name: found if isinstance(found, int) else len(found) for name, found in outcomes.items()}
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    with capsys.disabled():
        print(f"\n| {kind} | {count:,} | {told} |")
        for name, found in outcomes.items():
            if name in ("lost", "silent", "executed", "tracebacks") and not isinstance(found, int):
                print("\n".join(f"    {name}: {case}" for case in found[:5]))
