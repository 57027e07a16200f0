"""ConSinGAN grows by stages as a function of the samples seen, and trains only the newest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import UsageError
from data.files.atomic import write_json
from data.files.checksums import with_checksum
from data.sources.locations import CONFIG_COPY
from stage2_codegen.configs.consingan import ConSinGANConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.train import train
from stage2_codegen.variants import build_networks
from stage2_codegen.variants.consingan import (
    Critic,
    Generator,
    pixelwise_gradient_penalty,
    schedule,
    stage_shapes,
    stage_sides,
)
from tests.tiny_variants import TINY
from tests.training_runs import assert_same_bits, state

SMALL = {**TINY["consingan"], "stages": 5, "width": 8}


def at_stage(stage: int | None, **fields: Any) -> Generator:
    torch.manual_seed(0)
    return Generator((3, 32, 32), ConSinGANConfig(**{**SMALL, "stage": stage, **fields}))


def test_sides_are_the_published_ones() -> None:
    assert stage_sides(250, ConSinGANConfig()) == [25, 32, 45, 71, 158, 250]
    with pytest.raises(UsageError, match="min_side 10"):
        stage_sides(64, ConSinGANConfig(min_side=10))


def test_stages_have_the_shape_of_the_picture() -> None:
    assert stage_shapes((250, 375), ConSinGANConfig())[:2] == [(25, 38), (32, 48)]
    assert stage_shapes((64, 64), ConSinGANConfig()) == [(side, side) for side in stage_sides(64, ConSinGANConfig())]
    with pytest.raises(UsageError, match="attention gca: needs square codes"):
        Generator((3, 32, 48), ConSinGANConfig(**SMALL, attention="gca"))


def test_parameters_are_those_of_the_published_networks() -> None:
    """A body has 110,784; head, tail and the critic's layers are counted by hand."""
    G, critic = build_networks("consingan", (3, 64, 64))
    assert isinstance(G, Generator)
    assert sum(p.numel() for p in G.bodies[0].parameters()) == 110_784
    assert sum(p.numel() for p in G.parameters()) == 668_227
    assert sum(p.numel() for p in critic.parameters()) == 113_153 - 1  # its last layer has no bias


def test_a_stage_begins_with_the_weights_of_the_last_one() -> None:
    G = at_stage(1)
    before = {key: value.clone() for key, value in G.bodies[1].state_dict().items()}
    assert G.grow(ConSinGANConfig(**{**SMALL, "stage": 2}))
    assert not G.grow(ConSinGANConfig(**{**SMALL, "stage": 2}))
    for key, value in G.bodies[2].state_dict().items():
        assert torch.equal(value, before[key])
    amplitude = G.amplitudes[2].clone()
    G.amplitudes[2] = 0
    expected = 0.1 * (G.reconstruction() - G.target()).square().mean().sqrt()
    torch.testing.assert_close(amplitude, expected)


def test_rates_fall_from_stage_to_stage_and_end_at_the_frozen_ones() -> None:
    head, *bodies, tail = [factor for _, factor in at_stage(3).rates()]
    assert (head, tail) == (0.0, 1.0)
    assert bodies == pytest.approx([0, 0.01, 0.1, 1, 0])
    assert at_stage(2).rates()[0][1] == pytest.approx(0.01)
    parameters = [parameter for group, _ in at_stage(3, attention="gca").rates() for parameter in group]
    assert len(parameters) == len(list(at_stage(3, attention="gca").parameters()))


def test_only_the_newest_stages_get_gradients() -> None:
    G = at_stage(3)
    G.judged(torch.randn(2, G.z_dim))[-1].square().mean().backward()
    for parameters, factor in G.rates():
        for parameter in parameters:
            assert parameter.grad is not None  # as DDP wants
            assert bool(parameter.grad.any()) == (factor > 0)


def test_the_schedule_names_the_stage_and_lowers_rates_at_its_end() -> None:
    config = ConSinGANConfig(stages=3, stage_kimg=2.0, lr=1.0)
    seen = [(schedule(config, kimg).stage, schedule(config, kimg).lr) for kimg in (0, 1.5, 1.7, 2, 5.7, 100)]
    assert seen == [(0, 1.0), (0, 1.0), (0, 0.1), (1, 1.0), (2, 0.1), (2, 0.1)]


def test_the_penalty_is_of_each_pixel_alone() -> None:
    weight = torch.tensor([3.0, 4.0])[:, None, None]
    x = torch.randn(2, 2, 5, 5)
    penalty = pixelwise_gradient_penalty(lambda y: (weight * y).flatten(1), x, torch.randn_like(x))
    torch.testing.assert_close(penalty, torch.tensor(16.0))


def test_the_critic_scores_every_patch() -> None:
    critic = Critic((3, 32, 32), ConSinGANConfig(**SMALL))
    assert critic(torch.randn(2, 3, 32, 32)).shape == (2, 22 * 22)


def test_a_run_that_stops_where_a_stage_begins_goes_on_bit_for_bit(
    configure: Callable[..., TrainConfig[Any]], tmp_path: Path
) -> None:
    model = {"stages": 3, "stage_kimg": 0.016, "attention": "gca"}
    for kimg in (0.016, 0.024, 0.04):
        train("consingan", configure("consingan", "parts", kimg, model=model))
    train("consingan", configure("consingan", "whole", 0.04, model=model))
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")
    assert state(tmp_path / "whole")["G"]["reached"] == 2
    pipe = ImageGenerator.load(tmp_path / "whole")
    assert isinstance(pipe.generator, Generator)
    assert pipe.generator.stage == 2


def test_a_store_of_several_pictures_is_refused(configure: Callable[..., TrainConfig[Any]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a store of 100 pictures") as caught:
        train("consingan", configure("consingan", "run", model={"picture": None}))
    assert "--model.picture 0" in caught.value.fix
    with pytest.raises(UsageError, match="picture 100: there are 100"):
        train("consingan", configure("consingan", "run", model={"picture": 100}))
    assert not (tmp_path / "run").exists()


def test_mirrors_are_neither_shown_nor_announced(
    configure: Callable[..., TrainConfig[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="--mirror"):
        train("consingan", configure("consingan", "run", mirror=True))
    train("consingan", configure("consingan", "run", 0.008))
    assert "--mirror" not in capsys.readouterr().out
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["mirror"] is False
    del recorded["crc32c"]
    write_json(tmp_path / "run" / "config.json", with_checksum({**recorded, "mirror": True}))  # as an earlier version
    (tmp_path / "run" / CONFIG_COPY).unlink()
    train("consingan", configure("consingan", "run", 0.016))


def test_an_augmentation_is_refused() -> None:
    with pytest.raises(UsageError, match="augment cutout"):
        ConSinGANConfig(augment="cutout")
