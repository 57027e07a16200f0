"""A race is on equal terms, told as it was, and stops at once where it could only fail later."""

import json
import os
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import race_entrants, race_rivals
from benchmarks.race import find_pictures, find_weights
from benchmarks.race_entrants import Look, Pictures, Terms, race, settings, timed
from benchmarks.race_report import standalone, tables
from benchmarks.race_rivals import CUDA_ONLY, save_samples, without_cuda
from pipelines.report.charts import Line, line_chart

TERMS = Terms(Pictures("scenes:4@64", 64), minutes=4.0, threads=1)


def test_wrong_weights_and_missing_pictures_end_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"flowers256\.tar: is not a file") as pictures:
        find_pictures(tmp_path, "flowers64")
    with pytest.raises(SystemExit, match="is not a file") as nothing:
        find_weights(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "weights" / "squeezenet1_0.pth")
    with pytest.raises(SystemExit, match="squeezenet1_0") as others:
        find_weights(tmp_path)
    assert not any("\n" in str(error.value) for error in (pictures, nothing, others))


def test_the_clock_of_a_resumed_run_rests_until_its_log_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, go = tmp_path / "metrics.jsonl", tmp_path / "go"
    log.write_text("of before the stop")
    os.utime(log, (1, 1))
    script = "import pathlib, sys, time\ngo, log = map(pathlib.Path, sys.argv[1:])\n"
    script += "while not go.exists(): time.sleep(0.01)\nlog.write_text('new')\nsys.exit(75)"
    slept: list[float] = []

    def sleep(seconds: float) -> None:  # the child cannot go on before the race has looked at its log
        slept.append(time.monotonic())
        go.touch()

    monkeypatch.setattr(race_entrants.time, "sleep", sleep)
    spent = timed([sys.executable, "-c", script, str(go), str(log)], TERMS, log=log)
    assert slept
    assert spent <= time.monotonic() - slept[0]


def test_a_stopped_run_has_told_so_and_a_failed_one_ends_the_race() -> None:
    stopped = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\ntime.sleep(60)"
    assert timed([sys.executable, "-c", stopped], TERMS, seconds=0.0) < 60
    with pytest.raises(SystemExit, match="ended with 3"):
        timed([sys.executable, "-c", "raise SystemExit(3)"], TERMS)


def test_an_entrant_that_is_done_is_not_raced_again_and_others_terms_are_refused(tmp_path: Path) -> None:
    looks = [Look(2, 31.5, 160), Look(8, 121.0, 640)]
    described = {"minutes": 4.0, "threads": 1, "data": "scenes:4@64", "size": 64, "settings": settings("sle", 64)}
    (tmp_path / "race.json").write_text(json.dumps({**described, "looks": looks}))
    assert race("sle", TERMS, tmp_path) == looks
    with pytest.raises(SystemExit, match="other terms"):
        race("sle", TERMS._replace(threads=2), tmp_path)
    assert (tmp_path / "race.json").exists()


def test_the_table_tells_the_last_look_of_each(tmp_path: Path) -> None:
    names = ("fd-squeezenet", "kd-squeezenet", "precision-squeezenet", "recall-squeezenet", "fd-offline")
    races = {"sle": [Look(1, 60.0, 100), Look(2, 120.0, 300)], "mimicry-sngan": [Look(2, 150.0, 4500)]}
    for entrant, worth in (("sle", 1.0), ("mimicry-sngan", 2.0)):
        for features in ("squeezenet", "offline"):
            folder = tmp_path / entrant / "scores" / f"2-{features}"
            folder.mkdir(parents=True)
            entries = {name: {"value": worth, "real_floor": 0.5, "num_real": 4} for name in names}
            (folder / "scores.json").write_text(json.dumps(entries))
    lines = tables(races, tmp_path, TERMS.pictures, tmp_path / "weights.pth")
    assert "| sle | 300 | 2.5 | 2.0 | 1 | 1 | 1 | 1 | 1 |" in lines
    assert "| mimicry-sngan | 4,500 | 30.0 | 2.5 | 2 | 2 | 2 | 2 | 2 |" in lines
    assert "| two halves of 4 real pictures | | | | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 |" in lines


def test_curves_are_a_whole_file_with_every_entrant_in_its_colour() -> None:
    lines = [Line(name, [(1, 3 + number), (2, number)], number) for number, name in enumerate(("sle", "accel"))]
    root = ElementTree.fromstring(standalone([line_chart("a & b", "", lines, "minutes").svg] * 2, ["sle", "accel"]))
    svg = "{http://www.w3.org/2000/svg}"
    kinds = [line.get("class") for line in root.iter(f"{svg}polyline")]
    assert kinds == ["line-0", "line-1"] * 2
    assert [text.text for text in root.findall(f"{svg}text")] == ["sle", "accel"]
    style = root.findtext(f"{svg}style")
    assert style
    assert all(f".{kind}{{color:" in style for kind in kinds)


class _Noise:
    """A rival that draws its own random numbers."""

    def step(self) -> int:
        return 1

    def draw(self, count: int) -> NDArray[np.uint8]:
        return (torch.rand(count, 3, 8, 8) * 255).byte().numpy()


def test_looks_draw_the_same_seeds_and_leave_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race_rivals, "SAMPLES", 32)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for number in ("1", "2"):
        save_samples(_Noise(), tmp_path / number)
        torch.testing.assert_close(torch.rand(1), expected[int(number) - 1 : int(number)])
    first, second = (sorted((tmp_path / number).glob("*.png")) for number in ("1", "2"))
    assert len(first) == 32
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert first[0].read_bytes() != first[1].read_bytes()


def test_another_version_of_a_rival_is_refused() -> None:
    source = "\n".join(line for line, _ in CUDA_ONLY)
    assert "cuda" not in without_cuda(source)
    with pytest.raises(SystemExit, match="another version"):
        without_cuda(source.replace("self.cuda(rank)", "self.to(rank)"))
