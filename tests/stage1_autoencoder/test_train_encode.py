"""Stage one as a user runs it: interrupted, resumed, repeated and fed with what it must refuse."""

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.errors import CodeganError, DivergedError, MismatchError, UsageError
from data.files.checkpoints import save_weights
from data.files.runs import read_metrics
from data.images import open_images, to_float
from data.latents import LatentStore
from data.sources.locations import file_sizes
from pipelines import cli
from stage1_autoencoder import step
from stage1_autoencoder import train as training
from stage1_autoencoder.configs import EncodeConfig, TrainAEConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.step import lr_shares
from stage1_autoencoder.train import split, train
from stage1_autoencoder.training.updates import FiniteGuard
from tests.training_runs import assert_same_files, full_at, start_command

pytestmark = pytest.mark.usefixtures("single_thread")
BATCH, STEPS = 2, 6


def configure(out: Path, steps: int = STEPS) -> TrainAEConfig:
    return TrainAEConfig(
        data=("scenes:12@32",),
        out=out,
        size=32,
        width=4,
        code_channels=3,
        discriminator_width=4,
        batch_size=BATCH,
        kimg=steps * BATCH / 1000,
        warmup_kimg=2 * BATCH / 1000,  # both optimisers have state when the run is cut
        lr_ramp_kimg=0.004,
        code_noise=0.1,
        mirror=True,
        jitter=0.1,
        snapshot_kimg=1.0,
        threads=1,
    )


def flags(config: TrainAEConfig) -> list[str]:
    switches = ["--mirror"] if config.mirror else []
    names = {name: value for name, value in vars(config).items() if name != "mirror"} | {"data": config.data[0]}
    return [*switches, *(part for name, value in names.items() for part in (f"--{name.replace('_', '-')}", str(value)))]


def newest(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    folder = max((run / "checkpoints").iterdir())
    return {file.stem: load_file(file) for file in folder.glob("*.safetensors")}


def assert_same_state(one: Path, other: Path) -> None:
    first, second = newest(one), newest(other)
    assert (
        first.keys() == second.keys() == {"autoencoder", "discriminator", "ema", "opt_autoencoder", "opt_discriminator"}
    )
    for name, tensors in first.items():
        assert tensors.keys() == second[name].keys()
        assert [key for key, value in tensors.items() if not torch.equal(value, second[name][key])] == []


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: signal.Signals) -> None:
    """Send this process a signal in the middle of a training step."""
    update, taken = step.update_ema, itertools.count(1)

    def update_and_interrupt(*args: Any) -> None:
        update(*args)
        if next(taken) == steps:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(step, "update_ema", update_and_interrupt)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests that compare with it
    folder = tmp_path_factory.mktemp("ae") / "run"
    train(configure(folder))
    torch.set_num_threads(threads)
    return folder


def test_a_run_writes_what_is_promised(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) == [
        "checkpoints", "config.json", "metrics.jsonl", "reconstructions.json", "samples", "skipped.jsonl", "weights",
    ]  # fmt: skip
    (row,) = read_metrics(run)
    assert (row["step"], row["nimg"]) == (STEPS, STEPS * BATCH)
    assert row.keys() >= {"loss/l1", "loss/adversarial", "loss/discriminator"}
    assert Autoencoder.load(run).config == {"factor": 4, "code_channels": 3, "width": 4}
    assert [path.name for path in (run / "samples").iterdir()] == [f"{STEPS * BATCH:09d}.png"]


def test_a_run_resumed_in_a_fresh_process_is_the_uninterrupted_one_bit_for_bit(run: Path, tmp_path: Path) -> None:
    config = configure(tmp_path / "run", steps=3)
    train(config)
    process = start_command(["train-ae", *flags(replace(config, kimg=configure(run).kimg))])
    process.join()
    assert process.exitcode == 0
    assert_same_state(run, tmp_path / "run")
    assert Autoencoder.load(tmp_path / "run").fingerprint == Autoencoder.load(run).fingerprint
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [3, 6]


def test_ctrl_c_exits_130_and_the_same_command_finishes_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["codegan", "train-ae", *flags(config)])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:  # noqa: PT012
        interrupt_after(patch, 3, signal.SIGINT)
        cli.main()
    assert stopped.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not (config.out / "reconstructions.json").exists()
    with pytest.raises(SystemExit) as finished:
        cli.main()
    assert finished.value.code == 0
    assert_same_state(run, config.out)


def test_sigterm_while_reconstructions_are_measured_acts_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["codegan", "train-ae", *flags(config)])
    for code in (75, 0):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:  # noqa: PT012
            if code:
                patch.setattr(training, "reconstruction_table", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            cli.main()
        assert stopped.value.code == code
        assert_same_state(run, config.out)


def test_a_run_whose_disk_was_full_at_any_write_ends_with_the_files_of_one_that_was_not(
    run: Path, tmp_path: Path
) -> None:
    written = ["append", "save_state", "save_weights", "save_png", "write_json"]
    for write in range(len(written)):
        config = configure(tmp_path / f"full-{write}")
        with full_at(training, written[1:], write) as called, pytest.raises(OSError, match="No space"):
            train(config)
        assert called == written[: write + 1]
        train(config)
        assert_same_files(run, config.out)


@pytest.mark.parametrize("minutes", [1e-9, 0])
def test_saves_by_the_clock_leave_a_run_as_it_would_be(run: Path, tmp_path: Path, minutes: float) -> None:
    """After every step here, and without a preview."""
    config = replace(configure(tmp_path / "run"), snapshot_minutes=minutes)
    with full_at(training, ["save_state"], 10**9) as called:
        train(config)
    assert called.count("save_state") == (STEPS if minutes else 1)
    assert_same_files(run, config.out)


def test_a_run_is_not_resumed_with_other_settings(run: Path) -> None:
    with pytest.raises(MismatchError, match="seed: 0 then, 1 now"):
        train(replace(configure(run), seed=1))


def test_a_run_is_not_resumed_with_other_pictures(tmp_path: Path) -> None:
    """Of a larger set other pictures are held out, and some of them have been trained on."""
    (tmp_path / "pictures").mkdir()
    scenes = open_images("scenes:5@32")
    for index in range(4):
        scenes.pil(index).save(tmp_path / "pictures" / f"{index}.png")
    config = replace(configure(tmp_path / "run"), data=(str(tmp_path / "pictures"),))
    train(config)
    scenes.pil(4).save(tmp_path / "pictures" / "4.png")
    with pytest.raises(MismatchError, match="data_fingerprint"):
        train(replace(config, kimg=2 * config.kimg))


def test_a_run_that_never_came_to_a_checkpoint_starts_again_with_other_settings(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path / "run")
    for lr, code in ((1e30, 8), (config.lr, 0)):
        monkeypatch.setattr(sys, "argv", ["codegan", "train-ae", *flags(replace(config, lr=lr))])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == code
        assert code == 0 or f"lower --lr; --init {config.out} starts from the weights" in capsys.readouterr().err
    assert_same_state(run, config.out)


def test_a_training_whose_pictures_are_lost_ends_with_the_last_snapshot_kept(tmp_path: Path) -> None:
    config = replace(configure(tmp_path / "run", steps=20), lr=3.0, snapshot_kimg=0.004)
    with pytest.raises(DivergedError, match="worse than plain grey before image 20") as lost:
        train(config)
    assert f"--init {config.out} starts from the weights" in lost.value.fix
    assert newest(config.out)
    config = replace(configure(tmp_path / "grey", steps=20), data=(str(tmp_path / "greys"),), mirror=False, jitter=0.0)
    for index in range(2):
        (tmp_path / "greys").mkdir(exist_ok=True)
        Image.new("L", (32, 32), 127 + index).save(tmp_path / "greys" / f"{index}.png")
    train(config)  # grey itself is as good as plain grey


def test_large_gradients_are_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def update(self: FiniteGuard, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
        optimizer.zero_grad()

    monkeypatch.setattr(FiniteGuard, "update", update)
    monkeypatch.setattr("stage1_autoencoder.step.MAX_GRADIENT_NORM", 1e-3)
    train(replace(configure(tmp_path / "run"), adversarial_weight=0.0))
    np.testing.assert_allclose(norms, [1e-3] * STEPS, rtol=1e-2)


def test_learning_rates_rise_once_and_fall_to_zero_over_the_last_kimg(tmp_path: Path) -> None:
    config = replace(configure(tmp_path, steps=10), lr_ramp_kimg=0.008, lr_decay_kimg=0.01)
    shares = [lr_shares(config, nimg) for nimg in range(0, 20, BATCH)]
    assert [rise for rise, _ in shares] == [0.25, 0.5, 0.75, *[1.0] * 7]
    assert [fall for _, fall in shares] == [*[1.0] * 6, 0.8, 0.6, 0.4, 0.2]
    plain = replace(config, lr_ramp_kimg=0.0, lr_decay_kimg=0.0)
    assert {lr_shares(plain, nimg) for nimg in range(0, 20, BATCH)} == {(1.0, 1.0)}


@pytest.mark.parametrize("name", ["code_noise", "jitter", "lr_ramp_kimg", "lr_decay_kimg"])
def test_what_cannot_be_negative_is_refused(tmp_path: Path, name: str) -> None:
    negative: dict[str, Any] = {name: -0.1}
    with pytest.raises(UsageError, match="out of range"):
        train(replace(configure(tmp_path / "run"), **negative))
    assert not (tmp_path / "run").exists()


def test_fine_tuning_begins_with_the_weights_given_and_tells_the_gain(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(configure(tmp_path / "tuned"), init=run, lr=1e-9)
    train(config)
    printed = capsys.readouterr().out
    assert f"before, by {run}: reconstruction of 1 held-out images" in printed
    before, after = Autoencoder.load(run).state_dict(), Autoencoder.load(config.out).state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    measured = json.loads((config.out / "reconstructions.json").read_text())
    assert measured["rows_before"] == json.loads((run / "reconstructions.json").read_text())["rows"]
    np.testing.assert_allclose(measured["rows"][0]["mse"], measured["rows_before"][0]["mse"], rtol=1e-3)


def test_fine_tuning_into_another_form_is_refused_naming_the_right_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as refused:
        train(replace(configure(tmp_path / "tuned"), init=run, width=8))
    assert refused.value.fix == "give --factor 4 --code-channels 3 --width 4"
    assert not (tmp_path / "tuned").exists()


def test_held_out_images_are_never_trained_on() -> None:
    for count in (2, 19, 40, 6000):
        train_indices, held_out = split(count, seed=0)
        assert sorted([*train_indices, *held_out]) == list(range(count))
        assert len(held_out) == min(max(count // 20, 1), 256)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(random.integers(0, 256, (20, 24 + index, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def encoding(run: Path, pictures: Path, **changes: Any) -> EncodeConfig:
    fields: dict[str, Any] = {"size": (16,), "dtype": "float32", "batch_size": 2, "threads": 1}
    where = {"data": (str(pictures),), "autoencoder": run, "out": pictures.parent / "store"}
    return EncodeConfig(**{**where, **fields, **changes})


@torch.inference_mode()
def encode_alone(run: Path, pixels: np.ndarray) -> np.ndarray:
    latents = Autoencoder.load(run).encode(to_float(torch.from_numpy(np.ascontiguousarray(pixels))[None]))
    return np.asarray(latents[0])


def test_a_store_holds_each_image_encoded_on_its_own(run: Path, pictures: Path) -> None:
    encode(encoding(run, pictures))
    store, images = LatentStore.open(pictures.parent / "store"), open_images(pictures, size=16)
    expected = np.stack([encode_alone(run, images.image(index)) for index in range(5)])
    np.testing.assert_allclose(store.read(range(5)), expected, atol=2e-6)
    assert store.keys == images.keys
    assert store.fingerprint == Autoencoder.load(run).fingerprint
    store.verify()


def test_flipped_rows_are_encodings_of_mirrored_images(run: Path, pictures: Path) -> None:
    encode(encoding(run, pictures, flip=True))
    store, images = LatentStore.open(pictures.parent / "store"), open_images(pictures, size=16)
    assert len(store) == 10
    assert store.keys == [key for key in images.keys for _ in range(2)]
    latents = store.read(range(10))
    for index in range(5):
        np.testing.assert_allclose(latents[2 * index], encode_alone(run, images.image(index)), atol=2e-6)
        mirrored = encode_alone(run, images.image(index)[:, :, ::-1])
        np.testing.assert_allclose(latents[2 * index + 1], mirrored, atol=2e-6)
        assert np.abs(mirrored - latents[2 * index][:, :, ::-1]).max() > 1e-3  # a mirrored latent is something else


def test_encoding_again_changes_nothing_and_other_settings_are_refused(
    run: Path, pictures: Path, tiny_autoencoder: Autoencoder, capsys: pytest.CaptureFixture[str]
) -> None:
    config = encoding(run, pictures)
    encode(config)
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    capsys.readouterr()
    encode(config)
    assert "is complete already" in capsys.readouterr().out
    other = pictures.parent / "other"
    described = {"kind": "autoencoder", "autoencoder": tiny_autoencoder.config}
    save_weights(other / "weights", {"autoencoder": tiny_autoencoder.state_dict()}, described)
    for changes in ({"autoencoder": other}, {"dtype": "int8"}, {"size": (20,)}, {"flip": True}, {"precision": "bf16"}):
        with pytest.raises((MismatchError, UsageError)):
            encode(replace(config, **changes))
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_an_interrupted_store_is_finished_by_the_same_autoencoder_only(
    run: Path, pictures: Path, tiny_autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.store.writer.default_shard_rows", lambda shape, dtype: 2)
    straight = encoding(run, pictures, out=pictures.parent / "straight")
    encode(straight)
    config = encoding(run, pictures)
    forward, calls = Autoencoder.encode, itertools.count()

    def encode_once(self: Autoencoder, images: torch.Tensor) -> torch.Tensor:
        if next(calls):
            raise KeyboardInterrupt
        return forward(self, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(Autoencoder, "encode", encode_once)
        encode(config)
    other = pictures.parent / "other"
    described = {"kind": "autoencoder", "autoencoder": tiny_autoencoder.config}
    save_weights(other / "weights", {"autoencoder": tiny_autoencoder.state_dict()}, described)
    with pytest.raises(MismatchError, match="another autoencoder"):
        encode(replace(config, autoencoder=other))
    encode(config)
    names = file_sizes(straight.out)
    assert names == file_sizes(config.out)
    assert all((straight.out / name).read_bytes() == (config.out / name).read_bytes() for name in names)


def test_pixels_are_stored_unless_a_run_has_that_name(
    run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    config = encoding(Path("pixels"), pictures)
    encode(config)
    store = LatentStore.open(config.out)
    assert (store.code_shape, store.seal["autoencoder_run"]) == ((3, 16, 16), "pixels")
    shutil.copytree(run, "pixels")
    encode(replace(config, out=pictures.parent / "latents"))
    store = LatentStore.open(pictures.parent / "latents")
    assert store.fingerprint == Autoencoder.load(run).fingerprint
    assert store.seal["autoencoder_run"] == str(Path("pixels").resolve())


def broken(pictures: Path) -> None:
    for path in pictures.iterdir():
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("prepare", "changes", "code"),
    [
        (None, {"size": (18,)}, 2),
        (None, {"size": (0,)}, 2),
        (None, {"size": (16, 20, 16)}, 2),
        (None, {"size": (16, 18)}, 2),
        (None, {"batch_size": 0}, 2),
        (None, {"threads": 0}, 2),
        (None, {"shard_rows": 0}, 2),
        (None, {"data": ()}, 2),
        (None, {"autoencoder": Path("default:8")}, 2),
        (None, {"repair": True}, 3),
        (None, {"autoencoder": Path("no-such-run")}, 3),
        (shutil.rmtree, {}, 3),
        (broken, {}, 3),
    ],
)
def test_what_cannot_be_encoded_is_refused_and_leaves_no_store(
    run: Path, pictures: Path, prepare: Callable[[Path], None] | None, changes: dict[str, Any], code: int
) -> None:
    if prepare:
        prepare(pictures)
    with pytest.raises(CodeganError) as refused:
        encode(encoding(run, pictures, **changes))
    assert refused.value.exit_code == code
    assert not encoding(run, pictures).out.exists()


def test_a_store_cannot_be_a_file_or_an_occupied_folder(run: Path, pictures: Path) -> None:
    (pictures.parent / "file").touch()
    for out in (pictures.parent / "file", pictures):
        with pytest.raises(UsageError):
            encode(encoding(run, pictures, out=out))
    assert len(list(pictures.iterdir())) == 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size": 34}, 2),
        ({"size": 16}, 2),
        ({"kimg": 0.0}, 2),
        ({"seed": -1}, 2),
        ({"factor": 3, "size": 33}, 2),
        ({"factor": 0}, 2),
        ({"width": 0}, 2),
        ({"data": ("no-such-folder",)}, 3),
        ({"data": ("scenes:1@32",)}, 3),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_run(
    tmp_path: Path, changes: dict[str, Any], code: int
) -> None:
    with pytest.raises(CodeganError) as refused:
        train(replace(configure(tmp_path / "run"), **changes))
    assert refused.value.exit_code == code
    assert not (tmp_path / "run").exists()
