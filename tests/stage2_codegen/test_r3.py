"""The modern recipe: what its blocks start as, what it costs, and how its numbers move."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.r3 import SCHEDULED, R3Config
from stage2_codegen.losses import RelativisticPairing
from stage2_codegen.modules import ResidualBlock
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.r3 import schedule

TINY: dict[str, Any] = {"width": 16, "z_dim": 8}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_residual_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 5, 6, 7)
    assert torch.equal(ResidualBlock(5, depth=3)(x), x)


def test_a_residual_block_is_its_formula_by_loops() -> None:
    block = ResidualBlock(2, depth=1).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64)

    def convolved(maps: Tensor, conv: nn.Conv2d) -> Tensor:
        assert conv.bias is not None
        out = torch.zeros_like(maps)
        for c, i, j in itertools.product(range(2), range(3), range(4)):
            out[0, c, i, j] = conv.bias[c]
            for k, a, b in itertools.product(range(2), range(3), range(3)):
                if 0 <= i + a - 1 < 3 and 0 <= j + b - 1 < 4:
                    out[0, c, i, j] += conv.weight[c, k, a, b] * maps[0, k, i + a - 1, j + b - 1]
        return out

    def act(maps: Tensor) -> Tensor:
        return torch.where(maps > 0, maps, 0.2 * maps)

    with torch.no_grad():
        expected = x + convolved(act(convolved(act(x), block.conv1)), block.conv2)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


def test_the_first_convolution_keeps_the_variance_over_the_number_of_blocks() -> None:
    """He initialisation after a leaky ReLU keeps it; Fixup scales the deviation by depth^(-1/2)."""
    x = torch.randn(4, 64, 16, 16)
    for depth in (1, 4):
        inner = ResidualBlock(64, depth).conv1(F.leaky_relu(x, 0.2))[:, :, 1:-1, 1:-1]
        assert inner.var().item() == pytest.approx(1 / depth, rel=0.1)


def test_new_generators_make_codes_of_about_unit_deviation() -> None:
    """What standardised codes have; interpolation takes a little of it."""
    for side in (16, 64):
        G, _ = build_networks("r3", (16, side, side), width=32, z_dim=64)
        assert 0.5 < G(torch.randn(16, 64)).std().item() < 1.3


def test_every_weight_learns_once_the_last_convolutions_have_left_zero() -> None:
    """In the first step the gradient of a block's first convolution is zero, in the second it is not."""
    G, critic = build_networks("r3", (3, 16, 16), **TINY)
    loss, real = RelativisticPairing(1.0), torch.randn(4, 3, 16, 16)
    still = []
    for _ in range(2):
        for network, side in ((critic, loss.critic_loss), (G, loss.generator_loss)):
            fake = G(torch.randn(4, 8))
            gradients = torch.autograd.grad(side(critic, real, fake)[0], list(network.parameters()))
            still.append(
                {name for (name, _), g in zip(network.named_parameters(), gradients, strict=True) if not g.any()}
            )
            with torch.no_grad():
                torch._foreach_sub_(list(network.parameters()), gradients, alpha=0.01)
    assert all(name.split(".")[2] == "conv1" for name in still[0] | still[1])
    assert still[2] == still[3] == set()


def test_there_is_no_normalisation_and_nothing_random() -> None:
    for network in build_networks("r3", (16, 64, 64), **TINY):
        kinds = {type(module).__name__ for module in network.modules()}
        assert not [kind for kind in kinds if "Norm" in kind or "Dropout" in kind]
        assert not list(network.buffers())


@pytest.mark.parametrize("side", [16, 32, 64, 128, 256])
def test_networks_cost_what_those_of_accel_cost(side: int) -> None:
    """Parameters and multiply-adds of a 3 x 3 or 1 x 1 convolution or dense layer, counted from the shapes."""
    counts = {}
    for name in ("accel", "r3"):
        with torch.device("meta"):
            networks = build_networks(name, (16, side, side))
            inputs = (torch.empty(1, 512), torch.empty(1, 16, side, side))
        for kind, network, x in zip(("G", "critic"), networks, inputs, strict=True):
            macs: list[int] = []

            def count(module: nn.Module, _: Any, out: Tensor, macs: list[int] = macs) -> None:
                macs.append(module.weight[0].numel() * out.numel())  # type: ignore[index]

            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.register_forward_hook(count)
            network(x)
            counts[name, kind] = (sum(p.numel() for p in network.parameters()), sum(macs))
    for kind in ("G", "critic"):
        for ours, theirs in zip(counts["r3", kind], counts["accel", kind], strict=True):
            assert ours == pytest.approx(theirs, rel=0.15)


def test_bf16_and_channels_last_change_nothing_but_rounding() -> None:
    G, critic = (network.to(memory_format=torch.channels_last) for network in build_networks("r3", (4, 32, 32), **TINY))
    z = torch.randn(3, 8)
    plain = critic(G(z))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = critic(G(z).contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(mixed.float(), plain, rtol=0.1, atol=0.05)


def test_scheduled_numbers_go_along_half_a_cosine_and_stay() -> None:
    config = R3Config(burnin_kimg=80)
    for name in SCHEDULED:
        start, end = getattr(config, name), getattr(config, f"end_{name}")
        assert start != end
        for kimg in (0.0, 13.0, 40.0, 80.0, 1000.0):
            progress = min(kimg, 80.0) / 80.0
            expected = end + (start - end) * math.cos(math.pi * progress / 2) ** 2  # the half-angle form
            assert getattr(schedule(config, kimg), name) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_schedule_leaves_all_else_and_the_configuration_itself() -> None:
    config = R3Config(burnin_kimg=80)
    later = dataclasses.asdict(schedule(config, 40.0))
    before = dataclasses.asdict(config)
    assert {name for name in before if before[name] != later[name]} == set(SCHEDULED)
    assert config == R3Config(burnin_kimg=80)
    assert schedule(R3Config(burnin_kimg=0), 0.0).lr == config.end_lr


def test_the_loss_follows_the_scheduled_gamma() -> None:
    variant, config = VARIANTS["r3"], R3Config(gamma=8.0, end_gamma=2.0)
    gammas = [variant.loss(variant.schedule(config, kimg)).gamma for kimg in (0.0, 1e9)]  # type: ignore[attr-defined]
    assert gammas == pytest.approx([8.0, 2.0])
