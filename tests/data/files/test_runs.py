"""A run is resumed only as what it was started as, and its log reads as if it had never stopped."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import CorruptError, MismatchError, UsageError
from data.files.checksums import checksum_holds
from data.files.runs import CONFIG, MetricsLog, defaults, find_config, open_run, read_metrics, to_json
from data.sources.locations import CONFIG_COPY


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
    assert checksum_holds(stored)
    del stored["crc32c"]
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


def test_a_run_of_an_earlier_version_had_the_defaults_of_newer_flags(tmp_path: Path) -> None:
    run, now = tmp_path / "run", Config(tmp_path / "run")
    assert defaults(Config) == {"kimg": 1.0, "seed": 0, "model": Model()}
    open_run(run, {"out": str(run), "kimg": 1.0, "model": {"width": 8}})
    (run / "weights").mkdir()
    for other in (Config(run, seed=3), Config(run, model=Model(sides=(4,)))):
        with pytest.raises(MismatchError, match=r"(seed: 0 then, 3|model\.sides: \[4, 8\] then, \[4\]) now"):
            open_run(run, to_json(other), earlier=defaults(Config))
    with pytest.raises(MismatchError, match="seed: None then, 0 now"):
        open_run(run, to_json(now))
    open_run(run, to_json(now), earlier=defaults(Config))
    config, _ = find_config(run)
    assert config is not None
    assert config["seed"] == 0
    assert config["model"] == {"width": 8, "sides": [4, 8]}


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
    assert read_metrics(tmp_path) == [json.loads(whole)]
    path.write_text(whole[:12] + "\n" + whole)
    with pytest.raises(CorruptError, match="line 1"):
        MetricsLog(tmp_path, nimg=10)
    path.write_bytes(whole.encode() + whole.encode()[:12] + b"\xff")
    with pytest.raises(CorruptError, match="line 2"):
        read_metrics(tmp_path)
    assert read_metrics(tmp_path, tolerate_cut=True) == [json.loads(whole)]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _change_a_field(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def _lose_the_checksum(path: Path) -> None:
    path.write_text(path.read_text().replace('"crc32c"', '"crc31c"'))


damaged = pytest.mark.parametrize("damage", [_empty, _cut, _change_a_field, _lose_the_checksum, Path.unlink])


@damaged
@pytest.mark.parametrize("name", [CONFIG, CONFIG_COPY])
def test_a_damaged_configuration_is_found_and_written_anew_from_its_twin(
    name: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_run(tmp_path, to_json(Config(tmp_path)))
    (tmp_path / "weights").mkdir()
    whole = (tmp_path / CONFIG).read_bytes()
    damage(tmp_path / name)
    if (name, damage) != (CONFIG_COPY, Path.unlink):  # without it a run lacks nothing
        assert find_config(tmp_path) == (json.loads(whole), [tmp_path / name])
    with pytest.raises(MismatchError, match="seed: 0 then, 1 now"):
        open_run(tmp_path, to_json(Config(tmp_path, seed=1)))
    with caplog.at_level(logging.WARNING):
        open_run(tmp_path, to_json(Config(tmp_path)))
    assert (tmp_path / CONFIG).read_bytes() == (tmp_path / CONFIG_COPY).read_bytes() == whole
    assert find_config(tmp_path) == (json.loads(whole), [])


def test_a_run_without_a_whole_configuration_is_left_as_it_is(tmp_path: Path) -> None:
    open_run(tmp_path, to_json(Config(tmp_path)))
    (tmp_path / "weights").mkdir()
    for name in (CONFIG, CONFIG_COPY):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CorruptError, match=r"config\.json") as refused:
        open_run(tmp_path, to_json(Config(tmp_path)))
    assert "remove" not in refused.value.fix
    assert (tmp_path / CONFIG).read_bytes() == b""


def test_a_configuration_of_an_earlier_version_gains_a_checksum(tmp_path: Path) -> None:
    earlier = {**to_json(Config(tmp_path)), "versions": {"codegan": "0.1.0"}}
    (tmp_path / CONFIG).write_text(json.dumps(earlier))
    (tmp_path / "weights").mkdir()
    assert find_config(tmp_path) == (earlier, [])
    with pytest.raises(MismatchError, match="seed"):
        open_run(tmp_path, to_json(Config(tmp_path, seed=1)))
    open_run(tmp_path, to_json(Config(tmp_path)))
    assert checksum_holds(json.loads((tmp_path / CONFIG).read_text()))
