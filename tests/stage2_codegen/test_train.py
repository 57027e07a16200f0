"""The training loop as a user meets it: resumed bit for bit, one process or two, and never silently broken."""

import json
import os
import signal
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
from torch import Tensor

from data.checkpoints import load_newest, load_weights, save_weights
from data.errors import DivergedError, InputError, MismatchError, UsageError
from data.images import to_float
from data.latents import LatentWriter
from data.scenes import Scenes
from pipelines import cli
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.images import ImageGenerator
from stage2_codegen.train import TrainConfig, train
from stage2_codegen.variants import VARIANTS
from tests.tiny_variants import TINY

MODEL = {name: {**fields, "ema_halflife_kimg": 0.05} for name, fields in TINY.items()}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def _make_autoencoder(folder: Path, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    autoencoder = Autoencoder(factor=2, code_channels=4, width=4)
    save_weights(
        folder / "weights",
        {"autoencoder": autoencoder.state_dict()},
        {"kind": "autoencoder", "autoencoder": autoencoder.config},
    )
    return autoencoder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 scenes of 32 x 32 as latents of 4 x 16 x 16, and the (untrained) autoencoder they come from."""
    folder = tmp_path_factory.mktemp("store")
    autoencoder = _make_autoencoder(folder / "ae")
    scenes = Scenes(100, size=32)
    images = to_float(torch.from_numpy(np.stack([scenes.image(i) for i in range(100)])))
    with torch.no_grad():
        latents = autoencoder.encode(images).numpy()
    metadata = {
        "fingerprint": autoencoder.fingerprint,
        "autoencoder": autoencoder.config,
        "autoencoder_run": str(folder / "ae"),
        "data": ["none"],
        "image_size": 32,
    }
    writer = LatentWriter(folder / "store", 100, (4, 16, 16), "float16", metadata, shard_rows=30)
    for shard in writer.missing_shards():
        writer.write_shard(shard, latents[writer.rows_of(shard).start : writer.rows_of(shard).stop])
    writer.seal([str(i) for i in range(100)])
    return folder / "store"


Configure = Callable[..., TrainConfig[Any]]


@pytest.fixture
def configure(store: Path, tmp_path: Path) -> Configure:
    def make(name: str, out: str, kimg: float = 0.08, **changes: Any) -> TrainConfig[Any]:
        model = VARIANTS[name].Config(**{**MODEL[name], **changes.pop("model", {})})
        fields = {"batch_size": 8, "snapshot_kimg": 0.032, **changes}
        return TrainConfig(store=store, out=tmp_path / out, model=model, kimg=kimg, **fields)

    return make


def _state(run: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors


def _assert_same_bits(one: Path, other: Path) -> None:
    first, second = _state(one), _state(other)
    assert first.keys() == second.keys()
    for group, tensors in first.items():
        assert tensors.keys() == second[group].keys()
        for key, value in tensors.items():
            assert torch.equal(value, second[group][key]), f"{group} {key}"


def _arguments(config: TrainConfig[Any], name: str) -> list[str]:
    model = [part for key, value in MODEL[name].items() for part in (f"--model.{key.replace('_', '-')}", str(value))]
    return [
        *("train", name, "--store", str(config.store), "--out", str(config.out), "--kimg", str(config.kimg)),
        *("--batch-size", str(config.batch_size), "--snapshot-kimg", str(config.snapshot_kimg), *model),
    ]


@every_variant
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(name: str, precision: str, configure: Configure) -> None:
    train(name, configure(name, "whole", precision=precision))
    train(name, configure(name, "parts", kimg=0.04, precision=precision))
    train(name, configure(name, "parts", precision=precision))
    _assert_same_bits(configure(name, "whole").out, configure(name, "parts").out)


def test_resume_in_fresh_processes_after_sigterm(configure: Configure, tmp_path: Path) -> None:
    """Stopped from outside, exit 75, and the same command goes on to the same bits."""
    command = [sys.executable, "-m", "pipelines"]
    config = configure("accel", "stopped", kimg=0.4, snapshot_kimg=100)
    process = subprocess.Popen([*command, *_arguments(config, "accel")], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (config.out / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=120)
    if process.returncode != 0:  # a fast machine may have finished
        assert process.returncode == 75, complaint
        assert "error: " in complaint
        assert "  fix: " in complaint
        assert "Traceback" not in complaint
        subprocess.run([*command, *_arguments(config, "accel")], check=True, timeout=240, capture_output=True)
    whole = configure("accel", "whole", kimg=0.4, snapshot_kimg=100)
    subprocess.run([*command, *_arguments(whole, "accel")], check=True, timeout=240, capture_output=True)
    _assert_same_bits(whole.out, config.out)


@pytest.fixture(scope="module")
def on_two_ranks(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of every variant on two gloo ranks, in folders of their names."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "both.py"
    script.write_text(
        "from pathlib import Path\n"
        "from stage2_codegen.train import TrainConfig, train\n"
        "from stage2_codegen.variants import VARIANTS\n"
        f"for name, fields in {MODEL!r}.items():\n"
        "    model = VARIANTS[name].Config(**fields)\n"
        f"    train(name, TrainConfig(Path({str(store)!r}), Path({str(folder)!r}) / name, model, 0.008, 8))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@every_variant
def test_two_processes_are_two_ranks_with_the_gradients_of_one(
    name: str, configure: Configure, on_two_ranks: Path
) -> None:
    """Same global batch on one and on two gloo ranks: the first step's gradients agree to rounding.

    Gradients, which Adam keeps as its first moment, and not the weights of later steps: Adam divides each gradient by
    its own size, so that rounding errors of vanishing gradients become whole steps. A bias before batch normalisation
    has such a gradient: the bound is 1e-4 of a tensor's own size, or what rounding leaves of the largest.
    """
    config = configure(name, "one", kimg=0.008)
    train(name, config)
    assert json.loads((on_two_ranks / name / "metrics.jsonl").read_text().splitlines()[-1])["ranks"] == 2
    one, two = _state(config.out), _state(on_two_ranks / name)
    for group in ("opt_critic", "opt_G"):
        largest = max(value.abs().max().item() for key, value in one[group].items() if key.endswith(".exp_avg"))
        for key in (key for key in one[group] if key.endswith(".exp_avg")):
            bound = max(1e-4 * one[group][key].abs().max().item(), 1e-5 * largest)
            torch.testing.assert_close(two[group][key], one[group][key], rtol=0, atol=bound)
    for group in ("G", "critic"):  # running statistics and estimates of singular values, too
        for key in (key for key in one[group] if "running" in key or "._" in key):
            torch.testing.assert_close(two[group][key], one[group][key], rtol=1e-4, atol=1e-4)


def test_seed_decides_the_run(configure: Configure) -> None:
    for out, seed in (("a", 0), ("b", 1)):
        train("accel", configure("accel", out, kimg=0.016, seed=seed))
    a, b = (_state(configure("accel", out).out)["G"] for out in ("a", "b"))
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


def test_nan_is_stopped_before_the_update(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 8; what was committed before stays the newest state and is finite."""
    config = configure("accel", "nan")
    train("accel", configure("accel", "nan", kimg=0.032))
    good = _state(config.out)
    variant = VARIANTS["accel"]

    def poisoned(model: Any) -> Any:
        loss = variant.loss(model)
        monkeypatch.setattr(loss, "gp_weight", float("nan"))
        return loss

    monkeypatch.setitem(VARIANTS, "accel", variant._replace(loss=poisoned))
    with pytest.raises(DivergedError) as caught:
        train("accel", config)
    assert caught.value.exit_code == 8
    for group, tensors in _state(config.out).items():
        for key, value in tensors.items():
            assert torch.equal(value, good[group][key])
            assert value.isfinite().all()


def test_changed_configuration_is_refused_by_name(configure: Configure) -> None:
    train("accel", configure("accel", "run", kimg=0.016))
    with pytest.raises(MismatchError, match=r"model\.lr.*seed"):
        train("accel", configure("accel", "run", kimg=0.032, seed=3, model={"lr": 1e-3}))


def test_a_command_that_failed_before_it_trained_is_corrected_in_the_same_folder(configure: Configure) -> None:
    arguments = _arguments(configure("lrm", "run", kimg=0.008), "lrm")
    with pytest.raises(InputError, match="no metadata"):
        cli.run([*arguments, "--model.metadata", "missing"])
    cli.run(arguments)
    train("lrm", configure("lrm", "whole", kimg=0.008))
    _assert_same_bits(configure("lrm", "whole").out, configure("lrm", "run").out)
    with pytest.raises(MismatchError, match=r"model\.metadata"):
        cli.run([*arguments, "--model.metadata", "missing"])


def test_a_store_of_pixels_means_no_run_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _make_autoencoder(tmp_path / "pixels")
    pixels = Autoencoder.of_pixels()
    described = {"fingerprint": pixels.fingerprint, "autoencoder": pixels.config, "data": ["none"], "image_size": 16}
    writer = LatentWriter(tmp_path / "store", 8, (3, 16, 16), "float16", {**described, "autoencoder_run": "pixels"})
    writer.write_shard(0, np.zeros((8, 3, 16, 16), np.float32))
    writer.seal([str(i) for i in range(8)])
    model = VARIANTS["dcgan"].Config(**MODEL["dcgan"])
    config = TrainConfig(tmp_path / "store", tmp_path / "run", model, kimg=0.008, batch_size=8)
    train("dcgan", config)
    assert ImageGenerator.load(config.out)(seeds=[0]).shape == (1, 3, 16, 16)
    with pytest.raises(MismatchError, match="another autoencoder"):
        train("dcgan", replace(config, autoencoder=Path("pixels")))


def test_wrong_autoencoder_is_refused(configure: Configure, tmp_path: Path) -> None:
    _make_autoencoder(tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="another autoencoder"):
        train("accel", configure("accel", "run", autoencoder=tmp_path / "other"))
    with pytest.raises(InputError):
        train("accel", configure("accel", "run", autoencoder=tmp_path / "missing"))
    assert not (tmp_path / "run").exists()


def test_senseless_numbers_are_refused_before_there_is_a_run(configure: Configure) -> None:
    changes: list[dict[str, Any]] = [{"kimg": 0}, {"batch_size": 0}, {"snapshot_kimg": -1}, {"seed": -1}]
    fields = {"n_critic": 0, "z_dim": 0, "lr": -1.0, "critic_lr": -1.0, "beta1": 1.5, "beta2": 1.0}
    for change in [*changes, *({"model": {name: value}} for name, value in fields.items())]:
        config = configure("accel", "run", **change)
        with pytest.raises(UsageError):
            train("accel", config)
        assert not config.out.exists()


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
    expected = _state(config.out)["G_ema"]
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
    with pytest.raises(UsageError):
        ImageGenerator.load(config.out)


def test_metrics_name_what_happened(configure: Configure) -> None:
    config = configure("accel", "run", kimg=0.16)
    train("accel", config)
    rows = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["nimg"] for row in rows] == [80, 160]
    assert {"step", "wall_sec", "loss/g", "loss/critic", "score/real", "score/fake", "penalty/gp"} <= rows[-1].keys()
    assert 0 <= rows[-1]["time/data_share"] <= 1
