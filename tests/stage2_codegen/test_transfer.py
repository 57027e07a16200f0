"""Starting from another run's weights, with some of the critic's layers frozen."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import InputError, MismatchError, UsageError
from pipelines import cli
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.setup import prepare
from stage2_codegen.train import start_anew, train
from tests.training_runs import assert_same_bits, state

Configure = Callable[..., TrainConfig[Any]]


@pytest.fixture
def source(configure: Configure) -> Path:
    config = configure("accel", "source", kimg=0.032)
    train("accel", config)
    return config.out


def test_a_run_starts_from_the_weights_of_another(configure: Configure, source: Path) -> None:
    setup = prepare("accel", configure("accel", "run", init=source, seed=5))
    assert start_anew(setup) == []
    for name, tensors in state(source).items():
        if name in setup.step.networks:
            for key, value in setup.step.networks[name].state_dict().items():
                assert torch.equal(value, tensors[key]), f"{name} {key}"
    assert not any(optimizer.state for optimizer in setup.step.optimizers.values())


def test_without_checkpoints_the_averaged_generator_is_what_there_is(configure: Configure, source: Path) -> None:
    average = state(source)["G_ema"]
    shutil.rmtree(source / "checkpoints")
    setup = prepare("accel", configure("accel", "run", init=source))
    new = start_anew(setup)
    assert new
    assert all(name.startswith("critic.") for name in new)
    for name in ("G", "G_ema"):
        for key, value in setup.step.networks[name].state_dict().items():
            assert torch.equal(value, average[key])


@pytest.mark.usefixtures("single_thread")
def test_it_resumes_when_the_run_it_started_from_is_gone(configure: Configure, source: Path) -> None:
    model = {"lr": 1e-3}
    train("accel", configure("accel", "whole", kimg=0.064, init=source, freeze_critic=1, model=model))
    train("accel", configure("accel", "parts", kimg=0.032, init=source, freeze_critic=1, model=model))
    source.rename(source.with_name("moved"))
    train("accel", configure("accel", "parts", kimg=0.064, init=source, freeze_critic=1, model=model))
    assert_same_bits(source.with_name("whole"), source.with_name("parts"))


@pytest.mark.parametrize("name", ["accel", "sle", "projected"])
def test_frozen_layers_stay_as_they_were_and_the_others_learn(configure: Configure, name: str) -> None:
    source = configure(name, "source", kimg=0.016)
    train(name, source)
    config = configure(name, "run", kimg=0.016, init=source.out, freeze_critic=2)
    train(name, config)
    weights = [key for key, _ in prepare(name, config).step.critic.named_parameters() if "weight" in key]
    before, after = state(source.out)["critic"], state(config.out)["critic"]
    assert all(torch.equal(before[key], after[key]) for key in weights[:2])
    assert not torch.equal(before[weights[-1]], after[weights[-1]])


def test_codes_of_another_side_take_the_layers_that_fit(configure: Configure, tmp_path: Path) -> None:
    for side in (16, 32):
        pixels = ["--data", f"scenes:24@{side}", "--autoencoder", "pixels", "--size", str(side)]
        cli.run(["encode", *pixels, "--out", str(tmp_path / str(side))])
    small = configure("r3", "small", kimg=0.008)
    train("r3", TrainConfig(**{**vars(small), "store": tmp_path / "16"}))
    large = TrainConfig(**{**vars(small), "store": tmp_path / "32", "out": tmp_path / "large", "init": small.out})
    new = start_anew(prepare("r3", large))
    assert new
    assert "G.dense.weight" not in new
    train("r3", large)


def test_what_cannot_be_started_from_is_refused(configure: Configure, source: Path, tmp_path: Path) -> None:
    refused: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
        (MismatchError, "is a run of accel", "sle", {"init": source}),
        (MismatchError, "most of its generator does not fit", "accel", {"init": source, "model": {"width": 24}}),
        (InputError, "no weights", "accel", {"init": tmp_path / "nothing"}),
        (UsageError, "learnt nothing", "accel", {"freeze_critic": 1}),
        (UsageError, "layers", "accel", {"init": source, "freeze_critic": 1000}),
    ]
    for kind, what, name, fields in refused:
        with pytest.raises(kind, match=what):
            train(name, configure(name, "refused", **fields))
