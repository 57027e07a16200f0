"""What a benchmark says of a verb is the verb's own."""

from pathlib import Path

import pytest

from benchmarks.verbs import run_verb


def test_memory_is_that_of_the_verb_and_not_of_the_benchmark(tmp_path: Path) -> None:
    ballast = bytearray(b"x") * (300 << 20)
    taken = run_verb(tmp_path, "look", "inspect scenes:4")
    assert 10 < taken["peak_mb"] < len(ballast) / 2**20 / 2
    assert taken["seconds"] > 0
    assert run_verb(tmp_path, "look", "inspect scenes:4") == taken  # not run again


def test_a_verb_that_fails_stops_the_benchmark_and_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="3"):
        run_verb(tmp_path, "look", "inspect missing")
    assert not (tmp_path / "steps").exists()
