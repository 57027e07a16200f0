"""Every registered variant honours the contract; `accel` has the published shapes."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.errors import UsageError
from stage2_codegen.configs.registry import SIDES
from stage2_codegen.losses import Loss
from stage2_codegen.variants import VARIANTS, build_networks, configured
from stage2_codegen.variants.accel import Generator
from stage2_codegen.variants.contract import CodeGenerator, CodeShape, Judged
from tests.tiny_variants import TINY

every_variant = pytest.mark.parametrize("name", VARIANTS)
SHAPE = (3, 16, 16)


def build(name: str, code_shape: CodeShape = SHAPE) -> tuple[CodeGenerator, nn.Module, Loss]:
    torch.manual_seed(0)
    G, critic = build_networks(name, code_shape, **TINY[name])
    return G, critic, VARIANTS[name].loss(VARIANTS[name].Config(**TINY[name]))


def started(network: nn.Module) -> nn.Module:
    """Moved off its initial weights, some of which are zero so that a branch starts switched off."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def outputs(judged: Judged) -> tuple[Tensor, ...]:
    return judged if isinstance(judged, tuple) else (judged,)


def mixes_samples(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@every_variant
@pytest.mark.parametrize("code_shape", [(16, 16, 16), (3, 32, 32), (1, 64, 64), (64, 16, 16)])
def test_generator_makes_codes_and_critic_scores_them(name: str, code_shape: CodeShape) -> None:
    G, critic, _ = build(name, code_shape)
    fake = G(torch.randn(3, G.z_dim))
    assert fake.shape == (3, *code_shape)
    assert VARIANTS[name].Config().standardise or fake.abs().max() <= 1
    assert (fake[0] - fake[1]).abs().max() > 1e-4
    judged = G.judged(torch.randn(3, G.z_dim))
    assert outputs(judged)[-1].shape == fake.shape
    scores = critic(judged)
    assert scores.dim() == 2
    assert scores.shape == critic(torch.randn(3, *code_shape)).shape
    assert len(scores) == 3


@every_variant
@pytest.mark.parametrize("side", SIDES)
def test_every_side_is_supported(name: str, side: int) -> None:
    with torch.device("meta"):
        G, critic = build_networks(name, (16, side, side), **TINY[name])
        judged = G.judged(torch.empty(2, G.z_dim))
        assert outputs(judged)[-1].shape == (2, 16, side, side)
        assert len(critic(judged)) == 2


@every_variant
def test_the_last_scale_judged_is_what_the_generator_gives(name: str) -> None:
    G, _, _ = build(name)
    G.eval()
    z = torch.randn(2, G.z_dim)
    torch.manual_seed(1)
    last = outputs(G.judged(z))[-1]
    torch.manual_seed(1)
    torch.testing.assert_close(G(z), last)


@every_variant
def test_no_sample_is_mixed_into_a_score_under_a_penalty(name: str) -> None:
    """What the per-sample gradient penalties assume; batch norm stands only in critics without one."""
    G, critic, loss = build(name)
    x = torch.randn(4, *SHAPE)
    _, logs = loss.critic_loss(critic, x, G.judged(torch.randn(4, G.z_dim)))
    assert not (mixes_samples(critic) and any(key.startswith("penalty/") for key in logs))
    critic.eval()  # spectral norm updates its estimate in training
    together, alone = critic(x), torch.cat([critic(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_variant
def test_losses_give_gradients_to_every_parameter(name: str) -> None:
    shape = (3, 32, 32)  # at 16 nobody judges the lower scale of FastGAN
    G, critic, loss = build(name, shape)
    started(G)
    started(critic)
    real, fake = torch.randn(4, *shape).clamp(-1, 1), G.judged(torch.randn(4, G.z_dim))
    detached = tuple(output.detach() for output in fake) if isinstance(fake, tuple) else fake.detach()
    critic_loss, logs = loss.critic_loss(critic, real, detached)
    critic_loss.backward()
    assert {"score/real", "score/fake"} <= logs.keys()
    assert not any(value.requires_grad for value in logs.values())
    generator_loss, _ = loss.generator_loss(critic, real, fake)
    generator_loss.backward()
    for network in (G, critic):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            # A bias before a normalisation cancels; what is left of its gradient is rounding.
            assert parameter.grad.abs().sum() > 0, key


@every_variant
def test_a_step_of_the_critic_parts_real_from_fake(name: str) -> None:
    """Descending the critic's loss a little raises real scores against fake ones."""
    G, critic, loss = build(name)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    real = torch.randn(4, *SHAPE).clamp(-1, 1)
    with torch.no_grad():
        fake = G.judged(torch.randn(4, G.z_dim))

    def gap() -> float:
        return (critic(real).mean() - critic(fake).mean()).item()

    before = gap()
    for _ in range(4):
        critic_loss, _ = loss.critic_loss(critic, real, fake)
        optimizer.zero_grad()
        critic_loss.backward()
        optimizer.step()
    assert gap() > before


@every_variant
def test_bf16_follows_fp32(name: str) -> None:
    G, critic, _ = build(name)
    for network in (G, critic):
        network.eval().to(memory_format=torch.channels_last)
    for network, x in ((G, torch.randn(4, G.z_dim)), (critic, torch.randn(4, *SHAPE))):
        torch.manual_seed(1)
        whole = network(x)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
        assert (half.float() - whole).abs().mean() < 0.1 * whole.abs().mean()


@every_variant
def test_configuration_is_frozen_and_its_fields_are_explained(name: str) -> None:
    config = VARIANTS[name].Config()
    assert config.__doc__
    for field in ("lr", "critic_lr", "beta1", "beta2", "ema_halflife_kimg", "z_dim", "n_critic"):
        assert isinstance(getattr(config, field), int | float)
    assert type(config)(**dataclasses.asdict(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0  # type: ignore[misc]


@every_variant
def test_standardised_codes_are_not_bounded(name: str) -> None:
    """Their deviation is 1, so a tanh at the end could not reach them."""
    torch.manual_seed(0)
    G, _ = build_networks(name, SHAPE, **{**TINY[name], "standardise": True})
    started(G)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(3)
    assert G(torch.randn(8, G.z_dim)).abs().max() > 1


@every_variant
def test_schedule_is_a_function_of_the_samples_seen(name: str) -> None:
    variant = VARIANTS[name]
    config: Any = variant.Config()
    assert variant.schedule(config, 3.0) == variant.schedule(config, 3.0)
    assert type(variant.schedule(config, 1e6)) is variant.Config


@pytest.mark.parametrize("code_shape", [(16, 8, 8), (16, 40, 40), (16, 32, 272), (0, 32, 32), (65, 32, 32)])
def test_impossible_codes_are_refused(code_shape: CodeShape) -> None:
    with pytest.raises(UsageError):
        build_networks("accel", code_shape)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="acel"):
        build_networks("acel", (16, 32, 32))
    with pytest.raises(UsageError, match="widht"):
        build_networks("accel", (16, 32, 32), widht=3)


@every_variant
def test_every_default_can_be_trained_at_the_start_and_at_the_end(name: str) -> None:
    variant = VARIANTS[name]
    for kimg in (0.0, 1e6):
        assert variant.schedule(variant.Config(), kimg)  # making a configuration checks it


@pytest.mark.parametrize(
    ("name", "field", "value", "fix"),
    [
        *((name, "width", 0, "1 or more") for name in VARIANTS),
        *((name, "width", -64, "1 or more") for name in VARIANTS),
        ("lrm", "critic_width", 0, "1 or more"),
        ("lrm", "metadata_dim", -1, "0 or more"),
        ("lrm", "metadata_rows", 0, "1 or more"),
        ("accel", "z_dim", 0, "1 or more"),
        ("accel", "n_critic", 0, "1 or more"),
        ("accel", "lr", -1e-3, "0 or more"),
        ("accel", "critic_lr", float("nan"), "0 or more"),
        ("accel", "lr", float("inf"), "0 or more"),
        ("accel", "beta1", 1.5, "less than 1"),
        ("accel", "ema_halflife_kimg", -1.0, "0 or more"),
        ("dcgan", "init_std", -0.02, "0 or more"),
        ("r3", "burnin_kimg", -1.0, "0 or more"),
        ("r3", "end_beta2", 1.0, "less than 1"),
        ("r3", "end_lr", -1e-4, "0 or more"),
        ("r3", "end_gamma", -1.0, "0 or more"),
        ("r3", "end_ema_halflife_kimg", -1.0, "0 or more"),
        ("r3", "penalty", "exakt", "exact or finite-difference"),
        ("lrm", "relation", "foo", "matmul or pairwise"),
        ("giu", "spectral_norm", "yes", "none or critic or both"),
        ("gca", "host", "lsgan", "dcgan or sagan"),
        ("sle", "activation", "relu", "leaky_relu or swish"),
        ("sle", "reconstruct", "l2", "l1 or mse or lpips or none"),
        ("accel", "output", "sigmoid", "tanh or none"),
    ],
)
def test_values_that_cannot_train_are_refused_with_those_that_can(name: str, field: str, value: Any, fix: str) -> None:
    with pytest.raises(UsageError, match=f"{field}|{field.replace('_', '-')}") as caught:
        build_networks(name, (3, 16, 16), **{**TINY[name], field: value})
    assert fix in caught.value.fix


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


def test_a_field_that_did_nothing_is_forgotten_where_an_earlier_version_recorded_it() -> None:
    recorded = {**TINY["dcgan"], "penalty_every": 1}
    assert configured("dcgan", SHAPE, recorded)[1] == VARIANTS["dcgan"].Config(**TINY["dcgan"])
    assert "penalty_every" not in VARIANTS["accel"].Config.retired()
    with pytest.raises(UsageError, match="has no field penalty_often"):
        configured("dcgan", SHAPE, {"penalty_often": 1})


def test_lists_of_json_are_the_tuples_of_flags() -> None:
    own = {**TINY["sle"], "soft_margin": [0.5, 1.0]}
    assert configured("sle", (3, 32, 32), own)[1].soft_margin == (0.5, 1.0)
    with pytest.raises(UsageError, match="soft-margin -1"):
        configured("sle", (3, 32, 32), {**own, "soft_margin": [-1, 1]})
