"""Instance normalisation is its formula, with its gradients, whatever the memory layout."""

import pytest
import torch
from torch import Tensor

from stage2_codegen.modules.instance_norm import InstanceNorm2d

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def formula(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("of_input", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_outputs_gradients_and_their_gradients_are_the_formulas(
    samples: int, of_input: torch.memory_format, of_gradient: torch.memory_format
) -> None:
    x, weight = torch.randn(2, samples, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []
    for norm in (InstanceNorm2d(6), formula):
        leaf = x.contiguous(memory_format=of_input).requires_grad_()
        out = norm(leaf)
        (slope,) = torch.autograd.grad(out, leaf, weight.contiguous(memory_format=of_gradient), create_graph=True)
        (bend,) = torch.autograd.grad((slope * weight).square().sum(), leaf)
        seen.append((out, slope, bend))
    for ours, expected in zip(*seen, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
