"""Scores while training: they are those of `codegan score`'s functions, and the best weights are kept."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import InputError, Preempted, Terminated, UsageError
from data.files.checkpoints import load_weights
from data.files.runs import read_metrics
from data.images import open_images
from pipelines.sample import load_generator
from pipelines.scoring import networks
from pipelines.scoring.metrics import frechet_distance, kernel_distance
from pipelines.scoring.networks import load_features
from pipelines.train import train
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.frozen.context import Context
from stage2_codegen.snapshots import Scorer, _is_best
from stage2_codegen.step import AdversarialStep
from stage2_codegen.train import train as train_unscored
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, assert_same_bits, make_autoencoder

SCENES = ("scenes:12@32",)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    make_autoencoder(tmp_path / "ae")
    encode(EncodeConfig(data=SCENES, autoencoder=tmp_path / "ae", out=tmp_path / "store", size=(32,)))
    return TrainConfig(
        store=tmp_path / "store", out=tmp_path / "run", model=VARIANTS["accel"].Config(**MODEL["accel"]), batch_size=8,
        kimg=0.04, snapshot_kimg=0.008, score_kimg=0.016, score_num=8, score_features="offline",
    )  # fmt: skip


def test_snapshots_are_scored_and_the_best_is_kept(config: TrainConfig) -> None:
    train("accel", config)
    rows = {row["nimg"]: row for row in read_metrics(config.out) if "eval/kd-offline" in row}
    assert sorted(rows) == [16, 32, 40]  # every 16, and the end

    weights = load_weights(config.out / "weights" / "best").state
    assert weights["scores"] == {
        key.removeprefix("eval/"): rows[weights["nimg"]][key] for key in rows[40] if "eval/" in key
    }
    assert weights["scores"]["kd-offline"] == min(row["eval/kd-offline"] for row in rows.values())

    offline = load_features("offline", None, torch.device("cpu"))
    reference = open_images(SCENES, 32)
    chosen = np.sort(np.random.default_rng([0, 0]).permutation(12)[:8])
    real = offline(np.stack([reference.image(int(i)) for i in chosen]))
    fake = offline(load_generator(config.out, best=True)(seeds=range(8)))
    expected = {"kd-offline": kernel_distance(fake, real), "fd-offline": frechet_distance(fake, real)}
    assert weights["scores"] == pytest.approx(expected, rel=1e-4)


def test_scoring_changes_no_bit_of_the_training_and_resumes(config: TrainConfig) -> None:
    train("accel", replace(config, kimg=0.016))
    first = json.loads((config.out / "weights" / "best" / "config.json").read_text())
    assert first["nimg"] == 16
    train("accel", config)
    plain = replace(config, out=config.out.with_name("plain"), score_kimg=0.0)
    train_unscored("accel", plain)
    assert_same_bits(config.out, plain.out)
    assert not (plain.out / "weights" / "best").exists()
    with pytest.raises(InputError, match="no snapshot of it was scored"):
        load_generator(plain.out, best=True)


def test_what_cannot_be_scored_is_refused_before_there_is_a_run(config: TrainConfig) -> None:
    with pytest.raises(UsageError, match="score-num"):
        train("accel", replace(config, score_num=1))
    with pytest.raises(UsageError, match="needs ImageNet weights"):
        train("accel", replace(config, score_features="squeezenet"))
    assert not config.out.exists()


def test_features_that_the_critic_learned_through_are_said_to_flatter(
    config: TrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = load_features("offline", None, torch.device("cpu"))
    monkeypatch.setattr(networks, "load_features", lambda *_: replace(offline, weights_sha256="a" * 64))
    monkeypatch.setattr(Context, "identities", {"backbone": "b" * 64})
    train("accel", replace(config, kimg=0.008, score_kimg=0.008))
    assert "flatter" not in capsys.readouterr().err
    monkeypatch.setattr(Context, "identities", {"backbone": "a" * 64})
    train("accel", replace(config, kimg=0.008, score_kimg=0.008, out=config.out.with_name("flattered")))
    warnings = capsys.readouterr().err.partition("warning: --score-features offline: the critic learned through")
    assert "try: --score-features of another network" in warnings[2]
    assert "flatter" not in warnings[0] + warnings[2].partition("flatter")[2]  # once


def test_too_few_pictures_to_compare_are_refused_before_there_is_a_run(config: TrainConfig, tmp_path: Path) -> None:
    encode(EncodeConfig(data=("scenes:3@32",), autoencoder=tmp_path / "ae", out=tmp_path / "three", size=(32,)))
    with pytest.raises(InputError, match="too few to compare"):
        train("accel", replace(config, store=tmp_path / "three", batch_size=2))
    assert not config.out.exists()


def test_a_stop_in_the_last_step_does_not_cost_the_score(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    step, last = AdversarialStep.__call__, 40 - 8

    def stopped(self: AdversarialStep, reals: Any, nimg: int) -> None:
        step(self, reals, nimg)
        if nimg == last:
            os.kill(os.getpid(), signal.SIGTERM)

    config = replace(config, score_kimg=0.04)
    with monkeypatch.context() as patch:
        patch.setattr(AdversarialStep, "__call__", stopped)
        with pytest.raises((Preempted, Terminated)):
            train("accel", config)
    train("accel", config)
    assert [row["nimg"] for row in read_metrics(config.out) if "eval/kd-offline" in row] == [40]


def test_scores_of_other_settings_are_not_compared_and_a_finished_run_can_be_scored(config: TrainConfig) -> None:
    train("accel", replace(config, score_kimg=0.0))
    assert not (config.out / "weights" / "best").exists()
    train("accel", config)
    best = config.out / "weights" / "best" / "config.json"
    described = json.loads(best.read_text())
    assert described["nimg"] == 40
    assert described["score_settings"] == {"num": 8, "features": "offline", "weights_sha256": None}
    assert _is_best(config.out, described) is False
    assert _is_best(config.out, described | {"scores": {"kd-offline": -1e9}}) is True
    assert _is_best(config.out, described | {"scores": {}}) is False
    for name, value in (("num", 9), ("features", "squeezenet"), ("weights_sha256", "0" * 64)):
        others = {"score_settings": described["score_settings"] | {name: value}, "scores": {"kd-offline": 1e9}}
        assert _is_best(config.out, described | others) is True


def test_a_run_resumed_with_other_counts_begins_a_new_best(config: TrainConfig) -> None:
    best = config.out / "weights" / "best" / "config.json"
    train("accel", replace(config, kimg=0.016))
    first = json.loads(best.read_text())
    best.write_text(json.dumps(first | {"scores": {"kd-offline": -1e9}}))
    (best.parent / "manifest.json").unlink()
    train("accel", replace(config, kimg=0.032, score_num=4))
    assert json.loads(best.read_text())["nimg"] == 32
    assert json.loads(best.read_text())["score_settings"]["num"] == 4


def test_a_score_that_fails_costs_nothing_that_was_trained(config: TrainConfig) -> None:
    def make_scorer(*_: object) -> Scorer:
        def fail(_: object) -> dict[str, float]:
            raise MemoryError

        return Scorer(fail, {})

    with pytest.raises(MemoryError):
        train_unscored("accel", config, make_scorer)
    train("accel", config)  # and what could not be scored then is scored before it goes on
    rows = [row["nimg"] for row in read_metrics(config.out) if "eval/kd-offline" in row]
    assert rows == [16, 32, 40]
