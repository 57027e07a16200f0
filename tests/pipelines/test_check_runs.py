"""`codegan check` on a run: damage is exit code 5, and what a kill leaves is none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from data.errors import CorruptError
from data.files.atomic import MANIFEST
from data.files.checkpoints import Progress, save_state, save_weights
from data.files.runs import CONFIG, MetricsLog, open_run
from data.sources.locations import CONFIG_COPY
from pipelines.check import check
from pipelines.configs import CheckConfig


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path, network = tmp_path / "run", nn.Linear(2, 2)
    open_run(path, {"kind": "generator", "seed": 0})
    log = MetricsLog(path, 0)
    for nimg in (8, 16):
        log.append(nimg // 8, nimg, {"loss/g": 0.5})
        save_state(path / "checkpoints", {"G": network}, {}, Progress(nimg, nimg // 8))
    save_weights(path / "weights", {"generator": network.state_dict()}, {"kind": "generator"})
    return path


def test_a_run_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(CheckConfig(path=run))
    assert capsys.readouterr().out == f"{run}: run is whole, 3 committed folders verified\n"


def test_what_a_kill_leaves_is_no_damage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An old checkpoint half deleted, weights half replaced, and a line of the log half written."""
    for name, leftover in (
        ("checkpoints/000000000008", "checkpoints/.partial-000000000008"),
        ("weights", ".partial-old-weights"),
    ):
        (run / name).rename(run / leftover)
        next((run / leftover).glob("*.safetensors")).unlink()
        assert (run / leftover / MANIFEST).is_file()
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "ni')
    check(CheckConfig(path=run))
    note, verdict = capsys.readouterr().out.splitlines()
    assert note == f"{run / 'metrics.jsonl'}: its last line was cut by a kill; a resume drops it"
    assert verdict == f"{run}: run is whole, 1 committed folders verified"


def test_a_run_killed_before_its_log_is_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(tmp_path, {"kind": "generator"})
    check(CheckConfig(path=tmp_path))
    assert "run is whole" in capsys.readouterr().out


@pytest.mark.parametrize("name", [CONFIG, CONFIG_COPY])
def test_any_damaged_byte_of_the_configuration_is_found(
    name: str, run: Path, flip_bit: Callable[[Path, int], None]
) -> None:
    whole = (run / name).read_bytes()
    for offset in range(0, len(whole) - 1, 3):
        flip_bit(run / name, offset)
        with pytest.raises(CorruptError, match=r"config\.json") as refused:
            check(CheckConfig(path=run))
        assert refused.value.fix.startswith("run the command of this run again")
        (run / name).write_bytes(whole)
    check(CheckConfig(path=run))


def test_other_damage_is_named(run: Path, flip_bit: Callable[[Path, int], None]) -> None:
    log = run / "metrics.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[3:])
    with pytest.raises(CorruptError, match=r"metrics\.jsonl: line 1"):
        check(CheckConfig(path=run))
    log.write_bytes(whole)
    flip_bit(run / "checkpoints" / "000000000016" / "G.safetensors", -3)
    with pytest.raises(CorruptError, match=r"G\.safetensors"):
        check(CheckConfig(path=run))


def test_a_configuration_without_a_checksum_is_said_to_be_unverified(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / CONFIG_COPY).unlink()
    earlier = json.loads((run / CONFIG).read_text())
    del earlier["crc32c"]
    (run / CONFIG).write_text(json.dumps(earlier))
    check(CheckConfig(path=run))
    assert f"{run / CONFIG}: not verified" in capsys.readouterr().out
