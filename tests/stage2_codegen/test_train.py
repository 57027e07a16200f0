"""The training loop as a user meets it: resumed bit for bit, one process or two, and never silently broken."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.errors import DivergedError, InputError, MismatchError, UsageError
from data.files.checkpoints import load_newest, load_weights, save_weights
from data.files.runs import read_metrics
from data.store.writer import LatentWriter
from pipelines import cli
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen import setup
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, arguments, assert_same_bits, make_autoencoder, poisoned, start_command, state

Configure = Callable[..., TrainConfig[Any]]
every_variant = pytest.mark.parametrize("name", VARIANTS)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in VARIANTS),
        ("accel", "bf16"),
        ("sle", "bf16"),
    ],  # bf16 without and with batch norm
)
def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(name: str, precision: str, configure: Configure) -> None:
    train(name, configure(name, "whole", kimg=0.056, precision=precision))
    for kimg in (0.024, 0.056):
        train(name, configure(name, "parts", kimg, precision=precision))
    assert_same_bits(configure(name, "whole").out, configure(name, "parts").out)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("name", ["wgan-gp", "lrm"])
def test_a_resumed_run_with_augmentation_is_bit_for_bit_an_uninterrupted_one(name: str, configure: Configure) -> None:
    """For variants that have none by default; lrm's is of several scales."""
    model = {"augment": "jitter,translation,cutout"}
    assert VARIANTS[name].Config().augment == ""
    train(name, configure(name, "whole", kimg=0.056, model=model))
    for kimg in (0.024, 0.056):
        train(name, configure(name, "parts", kimg, model=model))
    assert_same_bits(configure(name, "whole").out, configure(name, "parts").out)
    train(name, configure(name, "plain", kimg=0.056))
    plain, augmented = (state(configure(name, out).out)["G"] for out in ("plain", "whole"))
    assert any(not torch.equal(plain[key], augmented[key]) for key in plain)


def test_resume_in_fresh_processes_after_sigterm(configure: Configure) -> None:
    """Stopped from outside, exit 75, and the same command goes on to the same bits."""
    config = configure("accel", "stopped", kimg=0.4, snapshot_kimg=100)
    process = start_command(arguments(config, "accel"))
    while not read_metrics(config.out, tolerate_cut=True) and process.is_alive():  # of the tenth step
        time.sleep(0.02)
    process.terminate()
    process.join(120)
    assert process.exitcode in (75, 0)  # a fast machine may have finished
    whole = configure("accel", "whole", kimg=0.4, snapshot_kimg=100)
    for run in (config, whole):  # in processes of their own: another number of threads would add in another order
        process = start_command(arguments(run, "accel"))
        process.join(120)
        assert process.exitcode == 0
    assert_same_bits(whole.out, config.out)


_BOTH_RANKS = """
import dataclasses, itertools, json, math, os, sys
from pathlib import Path
import torch
from stage2_codegen import setup
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS

store, folder = map(Path, sys.argv[1:3])
models = {name: VARIANTS[name].Config(**fields) for name, fields in json.loads(sys.argv[3]).items()}
for name, model in models.items():
    train(name, TrainConfig(store=store, out=folder / name, model=model, kimg=0.008, batch_size=8))
for name in ("accel", "r3"):
    whole = TrainConfig(store=store, out=folder / f"{name}-in-parts", model=models[name], kimg=0.008, batch_size=8)
    train(name, dataclasses.replace(whole, accumulate=2))

accel, updates = VARIANTS["accel"], itertools.count()

def poisonous(config):  # NaN on one rank, at the sixth update
    loss = accel.loss(config)
    plain = loss.critic_loss
    def critic_loss(*args):
        value, logs = plain(*args)
        return value * (math.nan if next(updates) == 5 and os.environ["RANK"] == "1" else 1), logs
    loss.critic_loss = critic_loss
    return loss

VARIANTS["accel"] = accel._replace(loss=poisonous)
long = TrainConfig(store=store, out=folder / "rolled-back", model=models["accel"], kimg=0.08, batch_size=8)
train("accel", dataclasses.replace(long, on_nan="rollback", snapshot_minutes=1e-9))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def on_two_ranks(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo ranks made: a step of every variant in folders of their names, and the runs after it."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "both.py"
    script.write_text(_BOTH_RANKS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(script), str(store), str(folder)]
    launcher += [json.dumps({name: fields for name, fields in MODEL.items() if name != "projected"})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "projected"])
def test_two_processes_are_two_ranks_with_the_gradients_of_one(
    name: str, configure: Configure, on_two_ranks: Path
) -> None:
    """Same global batch on one and on two gloo ranks: the first step's gradients agree to rounding.

    Gradients, which Adam keeps as its first moment, and not the weights of later steps: Adam divides each gradient by
    its own size, so that rounding errors of vanishing gradients become whole steps. A bias before batch normalisation
    has such a gradient: the bound is 1e-4 of a tensor's own size, or what rounding leaves of the largest. The drift of
    `projected` multiplies rounding by 50; `test_ranks.py` compares it in float64.
    """
    config = configure(name, "one", kimg=0.008)
    train(name, config)
    assert read_metrics(on_two_ranks / name)[-1]["ranks"] == 2
    _assert_same_first_step(config.out, on_two_ranks / name)


@pytest.mark.parametrize("name", ["accel", "r3"])
def test_two_ranks_with_their_batches_in_two_parts_have_the_gradients_of_one(
    name: str, configure: Configure, on_two_ranks: Path
) -> None:
    config = configure(name, "one", kimg=0.008)
    train(name, config)
    _assert_same_first_step(config.out, on_two_ranks / f"{name}-in-parts")


def _assert_same_first_step(one_rank: Path, two_ranks: Path) -> None:
    one, two = state(one_rank), state(two_ranks)
    for group in ("opt_critic", "opt_G"):
        largest = max(value.abs().max().item() for key, value in one[group].items() if key.endswith(".exp_avg"))
        for key in (key for key in one[group] if key.endswith(".exp_avg")):
            bound = max(1e-4 * one[group][key].abs().max().item(), 1e-5 * largest)
            torch.testing.assert_close(two[group][key], one[group][key], rtol=0, atol=bound)
    for group in ("G", "critic"):  # running statistics and estimates of singular values, too
        for key in (key for key in one[group] if "running" in key or "._" in key):
            torch.testing.assert_close(two[group][key], one[group][key], rtol=1e-4, atol=1e-4)


def test_all_ranks_roll_back_when_one_meets_nan(on_two_ranks: Path) -> None:
    checkpoint = load_newest(on_two_ranks / "rolled-back" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state == {"nimg": 80, "step": 10, "rollbacks": 1}
    assert all(value.isfinite().all() for group in checkpoint.tensors.values() for value in group.values())


def test_seed_decides_the_run(configure: Configure) -> None:
    for out, seed in (("a", 0), ("b", 1)):
        train("accel", configure("accel", out, kimg=0.016, seed=seed))
    a, b = (state(configure("accel", out).out)["G"] for out in ("a", "b"))
    assert any(not torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("accel", {"augment": "colour"}),
        ("giu", {"group_channels": 5}),
        ("giu", {"critic_giu": (16,)}),
        ("sagan", {"generator_attention": (5,)}),
        ("gca", {"side": 16}),
        ("lrm", {"long_range_size": 64}),
        ("sle", {"reconstruct": "lpips"}),
    ],
)
def test_what_a_variant_cannot_be_is_refused_and_leaves_no_run(
    name: str, model: dict[str, Any], configure: Configure
) -> None:
    config = configure(name, "run", model=model)
    with pytest.raises(UsageError):
        train(name, config)
    assert not config.out.exists()


def test_nan_is_stopped_before_the_update(configure: Configure) -> None:
    """Exit code 8; what was committed before stays the newest state and is finite."""
    config = configure("accel", "nan")
    train("accel", configure("accel", "nan", kimg=0.032))
    good = state(config.out)
    with poisoned("accel", updates=range(100)), pytest.raises(DivergedError) as caught:
        train("accel", config)
    assert caught.value.exit_code == 8
    assert "--on-nan rollback" in caught.value.fix
    for group, tensors in state(config.out).items():
        for key, value in tensors.items():
            assert torch.equal(value, good[group][key])
            assert value.isfinite().all()


def test_changed_configuration_is_refused_by_name(configure: Configure) -> None:
    train("accel", configure("accel", "run", kimg=0.016))
    with pytest.raises(MismatchError, match=r"model\.lr.*seed"):
        train("accel", configure("accel", "run", kimg=0.032, seed=3, model={"lr": 1e-3}))


def test_a_command_that_failed_before_it_trained_is_corrected_in_the_same_folder(configure: Configure) -> None:
    command = arguments(configure("lrm", "run", kimg=0.008), "lrm")
    with pytest.raises(InputError, match="no vectors"):
        cli.run([*command, "--model.metadata", "missing"])
    cli.run(command)
    train("lrm", configure("lrm", "whole", kimg=0.008))
    assert_same_bits(configure("lrm", "whole").out, configure("lrm", "run").out)
    with pytest.raises(MismatchError, match=r"model\.metadata"):
        cli.run([*command, "--model.metadata", "missing"])


def test_a_store_of_pixels_means_no_run_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_autoencoder(tmp_path / "pixels")
    pixels = Autoencoder.built_in("pixels")
    described = {"fingerprint": pixels.fingerprint, "autoencoder": pixels.config, "data": ["none"], "image_size": 16}
    writer = LatentWriter(tmp_path / "store", 8, (3, 16, 16), "float16", {**described, "autoencoder_run": "pixels"})
    writer.write_shard(0, np.zeros((8, 3, 16, 16), np.float32))
    writer.seal([str(i) for i in range(8)])
    model = VARIANTS["dcgan"].Config(**MODEL["dcgan"])
    config = TrainConfig(store=tmp_path / "store", out=tmp_path / "run", model=model, kimg=0.008, batch_size=8)
    train("dcgan", config)
    assert ImageGenerator.load(config.out)(seeds=[0]).shape == (1, 3, 16, 16)
    with pytest.raises(MismatchError, match="another autoencoder"):
        train("dcgan", replace(config, autoencoder=Path("pixels")))


def test_wrong_autoencoder_is_refused(configure: Configure, tmp_path: Path) -> None:
    make_autoencoder(tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="another autoencoder"):
        train("accel", configure("accel", "run", autoencoder=tmp_path / "other"))
    with pytest.raises(InputError):
        train("accel", configure("accel", "run", autoencoder=tmp_path / "missing"))
    assert not (tmp_path / "run").exists()


def test_senseless_numbers_are_refused_before_there_is_a_run(configure: Configure) -> None:
    changes: list[dict[str, Any]] = [{"kimg": 0}, {"batch_size": 0}, {"snapshot_kimg": -1}, {"seed": -1}]
    changes += [{"accumulate": 0}, {"accumulate": 3}]
    changes += [{"kimg": math.nan}, {"kimg": math.inf}, {"snapshot_kimg": math.nan}, {"score_kimg": math.inf}]
    fields = {"n_critic": 0, "penalty_every": 0, "z_dim": 0, "lr": -1.0, "critic_lr": -1.0, "beta1": 1.5, "beta2": 1.0}
    for change in [*changes, *({"model": {name: value}} for name, value in fields.items())]:
        with pytest.raises(UsageError):
            train("accel", configure("accel", "run", **change))
        assert not configure("accel", "run").out.exists()


@every_variant
def test_images_depend_on_their_seed_alone(name: str, configure: Configure) -> None:
    """The run folder alone is enough, and neither order nor company changes a picture."""
    config = configure(name, "run", kimg=0.032)
    train(name, config)
    pipe = ImageGenerator.load(config.out)
    together = pipe(seeds=[5, 6, 7, 8, 9])
    assert together.shape == (5, 3, 32, 32)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(pipe(seeds=[8, 5]), together[[3, 0]])
    assert (together[0] != together[1]).any()
    assert sorted(path.name for path in (config.out / "samples").iterdir()) == ["000000032.png"]


def test_loading_builds_no_critic_and_leaves_the_random_numbers_alone(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("accel", "run", kimg=0.008)
    train("accel", config)
    monkeypatch.setitem(VARIANTS, "accel", VARIANTS["accel"]._replace(Critic=lambda *_: pytest.fail("built a critic")))
    before = torch.get_rng_state()
    pipe = ImageGenerator.load(config.out)
    assert torch.equal(torch.get_rng_state(), before)
    expected = state(config.out)["G_ema"]
    assert all(torch.equal(value, expected[key]) for key, value in pipe.generator.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [{"variant": "acel"}, {"model": {"widht": 8}}, {"model": {"width": -1}}, {"code_shape": [4, 17, 17]}],
)
def test_a_run_of_another_version_is_refused(change: dict[str, Any], configure: Configure) -> None:
    config = configure("accel", "run", kimg=0.008)
    train("accel", config)
    weights = load_weights(config.out / "weights")
    save_weights(config.out / "weights", weights.tensors, {**weights.state, **change})
    with pytest.raises((UsageError, MismatchError)):
        ImageGenerator.load(config.out)


def test_metrics_name_what_happened(configure: Configure) -> None:
    config = configure("accel", "run", kimg=0.16)
    train("accel", config)
    rows = [row for row in read_metrics(config.out) if "loss/g" in row]
    assert [row["nimg"] for row in rows] == [80, 160]
    assert {"step", "wall_sec", "loss/g", "loss/critic", "score/real", "score/fake", "penalty/gp"} <= rows[-1].keys()
    assert 0 <= rows[-1]["time/data_share"] <= 1
    assert rows[-1]["memory/peak_mb"] > 50  # torch alone takes more
    health = [row for row in read_metrics(config.out) if "health/pairwise_ratio" in row]
    assert [row["nimg"] for row in health] == [32, 64, 96, 128, 160]
    assert all({"health/channel_shift", "health/critic_gap", "health/grid"} <= row.keys() for row in health)


def test_a_tracker_has_the_same_numbers_and_writes_into_the_run_alone(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = configure("accel", "run", tracker="tensorboard")
    train("accel", config)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (events,) = (config.out / "tracker").rglob("events.*")
    seen = EventAccumulator(str(events.parent)).Reload()
    row = next(row for row in read_metrics(config.out) if "loss/g" in row)
    for key in ("loss/g", "loss/critic", "penalty/gp"):
        (scalar,) = seen.Scalars(key)
        assert (scalar.step, scalar.value) == (row["nimg"], pytest.approx(row[key]))
    assert len(seen.Scalars("health/critic_gap")) == 3


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for tracker, package in (("tensorboard", "'codegan[tracking]'"), ("wandb", "wandb")):
        with pytest.raises(UsageError) as caught:
            train("accel", configure("accel", "run", tracker=tracker))
        assert caught.value.fix == f"pip install {package}"
    assert not (configure("accel", "run").out).exists()


def test_precision_is_chosen_by_the_machine_once(
    configure: Callable[..., TrainConfig[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on as it began, on whatever machine; what is asked for is done."""
    for fast, asked, begun in (("bf16", None, "bf16"), ("fp32", None, "fp32"), ("bf16", "fp32", "fp32")):
        monkeypatch.setattr(setup, "fast_precision", lambda fast=fast: fast)
        config = configure("dcgan", f"{fast}-{asked}", kimg=0.016, precision=asked)
        assert setup.prepare("dcgan", config).step.precision == begun
        train("dcgan", config)
        monkeypatch.setattr(setup, "fast_precision", lambda fast=fast: {"bf16": "fp32", "fp32": "bf16"}[fast])
        train("dcgan", replace(config, kimg=0.024))
        assert json.loads((config.out / "config.json").read_text())["precision"] == begun
