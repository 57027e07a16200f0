"""A run is resumed only as what it was started as, and its log reads as if it had never stopped."""

import dataclasses
import json
from pathlib import Path

import pytest

from data.errors import CorruptError, MismatchError, UsageError
from data.runs import MetricsLog, open_run, read_metrics, to_json


@dataclasses.dataclass(frozen=True)
class Model:
    width: int = 8
    sides: tuple[int, ...] = (4, 8)


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path
    kimg: float = 1.0
    seed: int = 0
    model: Model = Model()


def test_the_same_configuration_resumes_and_what_may_change_is_updated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, to_json(Config(run)), ["kimg"])
    open_run(run, to_json(Config(run, kimg=2.0)), ["kimg"])
    stored = json.loads((run / "config.json").read_text())
    versions = stored.pop("versions")
    assert versions.keys() >= {"python", "torch", "codegan"}
    assert stored == {"out": str(run), "kimg": 2.0, "seed": 0, "model": {"width": 8, "sides": [4, 8]}}


def test_every_other_difference_is_refused_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, to_json(Config(run)))
    (run / "checkpoints" / "000000000016").mkdir(parents=True)
    before = (run / "config.json").read_bytes()
    with pytest.raises(MismatchError) as refused:
        open_run(run, to_json(Config(run, kimg=2.0, seed=3, model=Model(width=9))), ["kimg"])
    assert "seed: 0 then, 3 now" in refused.value.what
    assert "model.width: 8 then, 9 now" in refused.value.what
    assert "kimg" not in refused.value.what
    with pytest.raises(MismatchError, match="extra"):
        open_run(run, {**to_json(Config(run)), "extra": 1})
    assert (run / "config.json").read_bytes() == before


def test_before_the_first_checkpoint_everything_may_differ(tmp_path: Path) -> None:
    """A command that failed before it trained is corrected by typing it again."""
    run = tmp_path / "run"
    open_run(run, to_json(Config(run)))
    for name in ("metrics.jsonl", "skipped.jsonl", ".lock", "checkpoints/.partial-000000000016/state.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    open_run(run, to_json(Config(run, seed=3, model=Model(width=9))))
    stored = json.loads((run / "config.json").read_text())
    assert (stored["seed"], stored["model"]["width"]) == (3, 9)


@pytest.mark.parametrize("name", ["checkpoints/000000000016", "weights", "samples", "notes.txt"])
def test_a_folder_with_more_than_a_start_keeps_its_configuration(name: str, tmp_path: Path) -> None:
    """Weights alone are a trained run whose checkpoints were removed; what no run writes is someone's."""
    run = tmp_path / "run"
    open_run(run, to_json(Config(run)))
    (run / name).mkdir(parents=True)
    with pytest.raises(MismatchError, match="seed"):
        open_run(run, to_json(Config(run, seed=3)))


def test_a_configuration_that_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ViT"]}')
    with pytest.raises(MismatchError, match="architectures"):
        open_run(tmp_path, to_json(Config(tmp_path)))
    assert json.loads((tmp_path / "config.json").read_text()) == {"architectures": ["ViT"]}


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match="not a run"):
        open_run(tmp_path, {})
    with pytest.raises(UsageError, match="is a file"):
        open_run(tmp_path / "photo.png", {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    open_run(tmp_path / "empty", {})


def test_the_log_drops_steps_that_are_taken_again_and_its_clock_goes_on(tmp_path: Path) -> None:
    lines = [{"step": s, "nimg": 10 * s, "wall_sec": 100.0 * s, "loss/g": 0.5} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = MetricsLog(tmp_path, nimg=20)
    assert read_metrics(tmp_path) == lines[:2]
    log.append(3, 30, {"loss/g": 0.25})
    *kept, last = read_metrics(tmp_path)
    assert kept == lines[:2]
    assert (last["step"], last["nimg"], last["loss/g"]) == (3, 30, 0.25)
    assert last["wall_sec"] >= 200.0


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    log = MetricsLog(tmp_path, nimg=0)
    assert read_metrics(tmp_path) == []
    assert log.wall_sec() >= 0


def test_a_line_cut_by_a_crash_is_dropped_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps({"step": 1, "nimg": 10, "wall_sec": 1.0}) + "\n"
    path.write_text(whole + whole[:12])
    with pytest.raises(CorruptError, match="line 2"):
        read_metrics(tmp_path)
    MetricsLog(tmp_path, nimg=10)
    assert path.read_text() == whole
    path.write_text(whole[:12] + "\n" + whole)
    with pytest.raises(CorruptError, match="line 1"):
        MetricsLog(tmp_path, nimg=10)
