"""A variant of one's own needs no change to what is there: these are the steps that docs/architecture.md names."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from data.errors import UsageError
from data.files.atomic import read_json
from data.files.runs import read_metrics
from data.limits import Count, Weight
from pipelines import cli
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.registry import CONFIGS
from stage2_codegen.losses import AnyCritic, LossAndLogs, score_logs
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import CodeGenerator, CodeShape, Variant


@dataclass(frozen=True)
class ToyConfig(VariantConfig):
    """A toy: one hidden layer each way."""

    z_dim: Count = 8
    """Length of the noise vector, N(0, 1)."""
    width: Count = 4
    """Units of the hidden layer."""
    weight: Weight = 1.0
    """Weight of the squared scores."""


class Generator(CodeGenerator):
    """z (N, z_dim) -> codes (N, C, S, S) in (-1, 1)."""

    def __init__(self, code_shape: CodeShape, config: ToyConfig) -> None:
        super().__init__()
        self.z_dim = config.z_dim
        hidden, to_codes = nn.Linear(config.z_dim, config.width), nn.Linear(config.width, math.prod(code_shape))
        self.layers = nn.Sequential(hidden, nn.ReLU(), to_codes, nn.Unflatten(1, code_shape), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Critic(nn.Module):
    """Codes (N, C, S, S) -> scores (N, 1)."""

    def __init__(self, code_shape: CodeShape, config: ToyConfig) -> None:
        super().__init__()
        hidden, to_score = nn.Linear(math.prod(code_shape), config.width), nn.Linear(config.width, 1)
        self.layers = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), to_score)

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


class BoundedDifference:
    """The mean difference of the scores, kept small by their squares."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor, penalty_factor: float = 1.0) -> LossAndLogs:
        scores_real, scores_fake = critic(real), critic(fake)
        squares = scores_real.square().mean() + scores_fake.square().mean()
        return scores_fake.mean() - scores_real.mean() + self.weight * squares, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor) -> LossAndLogs:
        return -critic(fake).mean(), {}


def loss(config: ToyConfig) -> BoundedDifference:
    return BoundedDifference(config.weight)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that a variant has in the two tables."""
    monkeypatch.setitem(CONFIGS, "toy", ToyConfig)
    monkeypatch.setitem(VARIANTS, "toy", Variant(CONFIGS["toy"], Generator, Critic, loss))


@pytest.mark.usefixtures("toy", "single_thread")
def test_a_new_variant_is_trained_and_sampled_by_its_name(store: Path, tmp_path: Path) -> None:
    run, samples = tmp_path / "run", tmp_path / "samples"
    train = ["train", "toy", "--store", str(store), "--out", str(run), "--batch-size", "8", "--kimg", "0.04"]
    cli.run([*train, "--model.width", "3"])
    cli.run(["sample", "--run", str(run), "--out", str(samples), "--num", "2"])
    assert read_json(run / "config.json")["model"]["width"] == 3
    logged = {key: value for row in read_metrics(run) for key, value in row.items()}
    assert logged["nimg"] == 40
    assert all(math.isfinite(logged[key]) for key in ("loss/critic", "loss/g", "score/real", "score/fake"))
    first, second = (np.asarray(Image.open(samples / f"{number:06d}.png")) for number in range(2))
    assert first.shape == (32, 32, 3)
    assert not np.array_equal(first, second)


@pytest.mark.usefixtures("toy")
def test_the_help_lists_a_new_variant_and_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["train", "--help"])
    assert "  toy       A toy: one hidden layer each way." in capsys.readouterr().out.splitlines()
    with pytest.raises(SystemExit):
        cli.run(["train", "toy", "--help"])
    assert "Weight of the squared scores." in capsys.readouterr().out


@pytest.mark.usefixtures("toy")
def test_a_limit_on_a_field_of_a_new_variant_holds(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model\.width 0"):
        cli.run(["train", "toy", "--store", str(store), "--out", str(tmp_path / "run"), "--model.width", "0"])


def test_both_tables_name_the_same_variants() -> None:
    assert {name: variant.Config for name, variant in VARIANTS.items()} == CONFIGS
