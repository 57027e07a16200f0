"""Every registered variant honours the contract; `accel` has the published shapes."""

import dataclasses
from typing import Any

import pytest
import torch

from data.errors import UsageError
from stage2_codegen.variants import SIDES, VARIANTS, build_networks
from stage2_codegen.variants.accel import Generator
from stage2_codegen.variants.contract import CodeShape

SMALL: dict[str, dict[str, Any]] = {"accel": {"width": 16, "z_dim": 8}}
every_variant = pytest.mark.parametrize("name", VARIANTS)


@every_variant
@pytest.mark.parametrize("code_shape", [(16, 16, 16), (3, 32, 32), (1, 64, 64), (64, 16, 16)])
def test_generator_makes_codes_and_critic_scores_them(name: str, code_shape: CodeShape) -> None:
    torch.manual_seed(0)
    G, critic = build_networks(name, code_shape, **SMALL[name])
    fake = G(torch.randn(3, G.z_dim))
    assert fake.shape == (3, *code_shape)
    assert fake.abs().max() <= 1
    assert (fake[0] - fake[1]).abs().max() > 1e-4
    assert len(critic(fake)) == 3


@every_variant
def test_a_score_depends_on_its_own_sample_alone(name: str) -> None:
    """What the per-sample gradient penalty assumes."""
    torch.manual_seed(0)
    _, critic = build_networks(name, (3, 16, 16), **SMALL[name])
    x = torch.randn(4, 3, 16, 16)
    together, alone = critic(x), torch.cat([critic(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_variant
def test_losses_give_gradients_to_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    G, critic = build_networks(name, (3, 16, 16), **SMALL[name])
    loss = VARIANTS[name].loss(VARIANTS[name].Config(**SMALL[name]))
    real, fake = torch.randn(4, 3, 16, 16).clamp(-1, 1), G(torch.randn(4, G.z_dim))
    critic_loss, logs = loss.critic_loss(critic, real, fake.detach())
    critic_loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
    assert logs
    generator_loss, _ = loss.generator_loss(critic, real, fake)
    generator_loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in G.parameters())


@every_variant
def test_configuration_is_frozen_and_every_field_has_a_default(name: str) -> None:
    config = VARIANTS[name].Config()
    assert all(getattr(config, field.name) is not None for field in dataclasses.fields(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("code_shape", [(16, 8, 8), (16, 48, 48), (16, 32, 64), (0, 32, 32), (65, 32, 32)])
def test_impossible_codes_are_refused(code_shape: CodeShape) -> None:
    with pytest.raises(UsageError):
        build_networks("accel", code_shape)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="acel"):
        build_networks("acel", (16, 32, 32))
    with pytest.raises(UsageError, match="widht"):
        build_networks("accel", (16, 32, 32), widht=3)


@pytest.mark.parametrize(
    ("side", "channels", "millions"), [(64, 16, (6.68, 5.62)), (64, 3, (6.67, 5.62)), (32, 16, (6.24, 5.18))]
)
def test_accel_parameter_counts(side: int, channels: int, millions: tuple[float, float]) -> None:
    """At 64 px the sizes of the published table's networks; the others counted by hand from their layers.

    A 3 x 3 convolution a -> b has 9 a b + b parameters. From 64 down to 32, G loses 256 -> 128 and 128 -> 128 and its
    output reads 256 channels; D loses 128 -> 128 and 128 -> 256, and its input writes 256.
    """
    G, critic = build_networks("accel", (channels, side, side))
    for network, expected in zip((G, critic), millions, strict=True):
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(expected, abs=0.005)


def test_accel_maps_are_those_of_table_2() -> None:
    """4 x 4 x 256 ... 64 x 64 x 128 -> 64 x 64 x 16 in the generator."""
    G, _ = build_networks("accel", (16, 64, 64))
    assert isinstance(G, Generator)
    maps: list[tuple[int, ...]] = []
    for layer in G.layers:
        layer.register_forward_hook(lambda _m, _i, out: maps.append(tuple(out.shape[1:])))
    G(torch.randn(1, 512))
    assert maps[0] == (256, 4, 4)
    assert maps[-2] == (128, 64, 64)
    assert maps[-1] == (16, 64, 64)
    assert G.dense.out_features == 4096


def test_sides_are_powers_of_two() -> None:
    assert all(side & (side - 1) == 0 for side in SIDES)
