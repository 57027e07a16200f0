"""The step that is timed is the one that is trained."""

import pytest
import torch

from benchmarks.step import Step, flops
from stage2_codegen.variants import VARIANTS
from tests.tiny_variants import TINY


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_updates_both_networks_with_the_variant_s_own_rates(name: str) -> None:
    torch.manual_seed(0)
    step = Step(name, (4, 16, 16), 2, **TINY[name] | {"lr": 1e-3, "critic_lr": 3e-3, "beta1": 0.25, "beta2": 0.75})
    rates = [(group["lr"], group["betas"]) for optimizer in step.optimizers for group in optimizer.param_groups]
    assert rates == [(1e-3, (0.25, 0.75)), (3e-3, (0.25, 0.75))]
    before = [[p.clone() for p in network.parameters()] for network in step.networks]
    assert flops(step) > 0
    for network, old in zip(step.networks, before, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), old, strict=True))
