"""A plan against runs that were really trained; what it measures in time is not judged."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.errors import SpaceError
from pipelines import cli, plan
from pipelines.plan import Taken, disk, measure, train_command
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, make_autoencoder, poisoned

TAKEN = Taken("cpu", 20, 0.5, 0.02, 100.0, 6_000_000, 2_000_000, 1_000_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 scenes as latents of 4 x 16 x 16, beside their autoencoder."""
    folder = tmp_path_factory.mktemp("plan")
    make_autoencoder(folder / "ae")
    encode(EncodeConfig(data=("scenes:40@32",), autoencoder=folder / "ae", out=folder / "store", size=(32,)))
    return folder / "store"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "STEPS", 4)


@pytest.fixture
def configure(store: Path, tmp_path: Path) -> Callable[..., TrainConfig[Any]]:
    def make(name: str, model: dict[str, Any] | None = None, **changes: Any) -> TrainConfig[Any]:
        fields = {"out": tmp_path / "run", "kimg": 0.032, "batch_size": 8, "precision": "fp32", **changes}
        return TrainConfig(store=store, model=VARIANTS[name].Config(**{**MODEL[name], **(model or {})}), **fields)

    return make


def _exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["codegan", "plan", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def _numbers(file: Path) -> int:
    """Bytes of a safetensors file after its header, whose length stands first."""
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    json.loads(content[8 : 8 + header])
    return len(content) - 8 - header


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("accel", {"kimg": 0.048, "snapshot_kimg": 0.001}),  # a snapshot at every step
        ("lrm", {"kimg": 0.061, "snapshot_kimg": 0.03}),  # images that are no multiple of the batch
        ("wgan-gp", {"kimg": 0.03, "precision": "bf16"}),  # only the last state is saved
        ("sle", {"kimg": 0.032, "snapshot_kimg": 0.016, "accumulate": 2}),
    ],
)
def test_disk_is_what_a_run_of_the_same_flags_fills(
    name: str, changes: dict[str, Any], configure: Callable[..., TrainConfig[Any]]
) -> None:
    config = configure(name, **changes)
    taken = measure(name, config)
    assert not config.out.exists()
    train(name, config)
    kept = sorted((config.out / "checkpoints").iterdir())
    states = [sum(map(_numbers, state.glob("*.safetensors"))) for state in kept]
    grids = list((config.out / "samples").iterdir())
    with Image.open(grids[0]) as grid:
        width, height = grid.size
    assert set(states) == {taken.checkpoint_bytes}
    (checkpoints, in_checkpoints), (_, in_weights), (drawn, in_grids) = disk(config, taken).items()
    at_once, snapshots = (int(label.split(": ")[1].split(",")[0]) for label in (checkpoints, drawn))
    assert in_checkpoints == states[0] * at_once
    assert len(kept) == min(2, at_once)
    assert in_weights == sum(map(_numbers, (config.out / "weights").glob("*.safetensors")))
    assert snapshots == len(grids)
    assert in_grids == len(grids) * 3 * width * height >= sum(path.stat().st_size for path in grids)


def test_it_leaves_nothing_behind_and_ends_with_a_command_that_trains(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in store.parent.rglob("*") if path.is_file()}

    monkeypatch.chdir(tmp_path)
    before = files()
    given = ["--store", str(store), "--kimg", "0.03", "--batch-size", "8", "--model.width", "16", "--model.z-dim", "8"]
    assert _exit_code(monkeypatch, *given, "accel") == 0  # the variant may stand last
    assert files() == before
    assert not list(tmp_path.iterdir())
    *table, last = capsys.readouterr().out.splitlines()
    rows = {line[:40].strip(): line[40:].split() for line in table if line}
    assert rows[""] == ["bf16", "fp32"]
    assert {len(cells) for label, cells in rows.items() if label.startswith(("ms", "images", "peak", "hours"))} == {2}
    assert last.startswith("next: codegan train accel ")
    cli.run(shlex.split(last)[2:])
    assert (tmp_path / "runs" / "new" / "weights").is_dir()


@pytest.mark.parametrize(
    ("name", "model", "changes"),
    [
        ("accel", {}, {"compile": True, "autoencoder": Path("elsewhere/ae"), "on_nan": "rollback", "mirror": True}),
        (
            "sngan",
            {"spectral_norm_last": False, "standardise": True},
            {"precision": "bf16", "seed": 7, "mirror": False},
        ),
        ("giu", {"generator_giu": (4, 8), "critic_giu": ()}, {"accumulate": 4}),
        ("gca", {"host": "sagan", "side": 4}, {"kimg": 1e-3, "snapshot_kimg": 0.5}),
        ("lrm", {"augment": "colour,cutout"}, {"out": Path("a folder/with spaces")}),
    ],
)
def test_the_command_has_the_flags_of_its_configuration(
    name: str,
    model: dict[str, Any],
    changes: dict[str, Any],
    configure: Callable[..., TrainConfig[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, parsed = configure(name, model, **changes), list[Any]()
    monkeypatch.setattr("stage2_codegen.train.train", lambda *arguments: parsed.append(arguments[:2]))
    cli.run(train_command(name, config)[1:])
    assert parsed == [(name, config)]


@pytest.mark.parametrize("every", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("n_critic", [1, 2, 5, 6])
def test_rounds_of_steps_hold_equally_many_lazy_penalties(every: int, n_critic: int) -> None:
    """So a median over rounds counts them; no shorter round has the property."""
    period = plan._period(AccelConfig(penalty_every=every, n_critic=n_critic))
    penalties = [sum(u % every == 0 for u in range(s * n_critic, (s + 1) * n_critic)) for s in range(200)]

    def counts(length: int) -> set[int]:
        return {sum(penalties[start : start + length]) for start in range(200 - length)}

    assert [length for length in range(1, period + 1) if len(counts(length)) == 1] == [period]


def test_a_lazy_penalty_is_measured_over_whole_rounds(configure: Callable[..., TrainConfig[Any]]) -> None:
    taken = measure("accel", configure("accel", {"penalty_every": 3}))
    assert taken.steps == 6  # the 4 asked for, made whole


@pytest.fixture(autouse=True)
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that computes in bf16."""
    monkeypatch.setattr(plan, "fast_precision", lambda: "bf16")


def test_what_the_hardware_lacks_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "fast_precision", lambda: "fp32")
    shown = _planned(monkeypatch, capsys, {"fp32": TAKEN})
    assert "bf16" not in shown
    assert shown.splitlines()[-1].endswith("--precision fp32")


def _planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: dict[str, Taken], *flags: str
) -> str:
    """What is printed where the precisions take this."""

    def looked_up(name: str, config: TrainConfig[Any]) -> Taken:
        return taken[str(config.precision)]

    monkeypatch.setattr(plan, "measure", looked_up)
    cli.run(["plan", "accel", "--store", "stores/a", *flags])
    return capsys.readouterr().out


@pytest.mark.parametrize(("speed", "best"), [(2.0, "bf16"), (1.01, "fp32"), (0.5, "fp32")])
def test_bf16_is_recommended_when_it_is_faster(
    speed: float, best: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = {"fp32": TAKEN, "bf16": TAKEN._replace(step_sec=TAKEN.step_sec / speed)}
    shown = _planned(monkeypatch, capsys, taken)
    assert f"recommended: --precision {best}; bf16 is {speed:.2f} times as fast" in shown
    assert shown.splitlines()[-1].endswith("--precision bf16") == (best == "bf16")


def test_a_given_precision_is_measured_alone_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a second a step at batches of 25: 200 kimg take 8,000 steps, which are 1.11 hours."""
    shown = _planned(monkeypatch, capsys, {"fp32": TAKEN}, "--precision", "fp32", "--batch-size", "25")
    cells = {line[:40].strip(): line[40:].split() for line in shown.splitlines()}
    assert cells["images/s"] == ["50.0"]
    assert cells["hours for 200 kimg, without snapshots"] == ["1.11"]
    assert cells["in all"] == ["40.0"]  # 3 x 6 + 2 + 20 x 1 MB
    assert "recommended" not in shown
    assert "faster disk" in _planned(
        monkeypatch, capsys, {"fp32": TAKEN._replace(data_share=0.3)}, "--precision", "fp32"
    )


def _exhaust(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> None:
    """Training in these precisions has no memory to start with."""
    plain = plan.prepare

    def prepare(name: str, config: TrainConfig[Any]) -> Any:
        if config.precision in precisions:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return plain(name, config)

    monkeypatch.setattr(plan, "prepare", prepare)


def test_when_one_precision_does_not_fit_the_other_is_planned(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _exhaust(monkeypatch, "fp32")
    assert _exit_code(monkeypatch, "accel", "--store", str(store), "--model.width", "16") == 0
    shown = capsys.readouterr()
    assert "warning: fp32: out of memory at --batch-size 16" in shown.err
    assert "try: --accumulate 2, or a smaller --batch-size" in shown.err
    assert shown.out.splitlines()[-1].endswith("--precision bf16 --model.width 16")


def test_parts_are_advised_only_where_the_batch_divides(
    configure: Callable[..., TrainConfig[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _exhaust(monkeypatch, "fp32")
    for batch, accumulate, advice in ((8, 2, "--accumulate 4"), (6, 3, "--accumulate 6"), (5, 1, "a smaller")):
        with pytest.raises(SpaceError) as caught:
            measure("accel", replace(configure("accel"), batch_size=batch, accumulate=accumulate))
        assert caught.value.fix.startswith(advice)


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["acel", "--store", "STORE"], 2, "did you mean accel"),
        (["--store", "STORE", "acel"], 2, "codegan plan projected --help"),
        (["accel"], 2, "--help"),
        (["accel", "--store", "STORE", "--kimg", "0"], 2, "more than 0"),
        (["accel", "--store", "STORE", "--batch-size", "9", "--accumulate", "2"], 2, "multiple of 2"),
        (["giu", "--store", "STORE", "--model.group-channels", "5"], 2, ""),
        (["accel", "--store", "STORE", "--processes", "2"], 2, "leave out"),
        (["accel", "--store", "missing"], 3, "codegan encode"),
        (["lrm", "--store", "STORE", "--model.metadata", "missing"], 3, ""),
        (["accel", "--store", "STORE", "--autoencoder", "OTHER"], 4, "--autoencoder"),
        (["accel", "--store", "CUT"], 5, "codegan encode"),
    ],
)
def test_wrong_input_ends_as_in_training(
    arguments: list[str],
    code: int,
    hint: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"STORE": str(store), "OTHER": str(tmp_path / "other"), "CUT": str(tmp_path / "cut")}
    make_autoencoder(tmp_path / "other", seed=1)
    _copy_cut(store, tmp_path / "cut")
    assert _exit_code(monkeypatch, *(places.get(word, word) for word in arguments)) == code
    what, fix = capsys.readouterr().err.splitlines()
    assert what.startswith("error: ")
    assert fix.startswith("  fix: ")
    assert hint in fix
    assert {path.name for path in tmp_path.iterdir()} == {"other", "cut"}


def _copy_cut(store: Path, target: Path) -> None:
    """A copy whose largest file lacks its last byte."""
    files = [path for path in store.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    for path in files:
        copy = target / path.relative_to(store)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: -1 if path == largest else None])


def test_no_memory_and_nan_end_with_their_codes(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["accel", "--store", str(store), "--model.width", "16"]
    with poisoned("accel", updates=range(100)):
        assert _exit_code(monkeypatch, *flags) == 8
    _exhaust(monkeypatch, "fp32", "bf16")
    assert _exit_code(monkeypatch, *flags) == 7
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("plan ")]
    assert [line.split(":")[0] for line in lines] == ["error", "  fix"] * 2
