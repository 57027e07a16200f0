"""The step that is timed is the one that is trained."""

import pytest
import torch

from benchmarks.step import Step, flops
from stage2_codegen.variants import VARIANTS
from tests.tiny_variants import TINY


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_updates_both_networks_with_the_variant_s_own_rates(name: str) -> None:
    step = Step(name, (4, 16, 16), 2, **TINY[name] | {"lr": 1e-3, "critic_lr": 3e-3, "beta1": 0.25, "beta2": 0.75})
    inner = step.inner
    before = {key: [p.clone() for p in network.parameters()] for key, network in inner.networks.items()}
    assert flops(step) > 0
    rates = {key: (o.param_groups[0]["lr"], o.param_groups[0]["betas"]) for key, o in inner.optimizers.items()}
    assert rates == {"opt_G": (1e-3, (0.25, 0.75)), "opt_critic": (3e-3, (0.25, 0.75))}
    for key, network in inner.networks.items():
        assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), before[key], strict=True))
