"""Convolutions over whole maps are torch's, by another way."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stage2_codegen.modules import MapToVector, VectorToMap

KERNEL = (4, 2)


def seen(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients, and gradients of a penalty."""
    x = x.clone().requires_grad_(True)
    out = layer(x)
    (slope,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
    (out.square().sum() + slope.square().sum()).backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"out": out, "slope": slope, "x": x.grad, **gradients}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("own", "torchs", "shape"),
    [(VectorToMap, nn.ConvTranspose2d, (3, 5, 1, 1)), (MapToVector, nn.Conv2d, (3, 5, *KERNEL))],
)
def test_it_is_the_convolution(
    own: Any, torchs: Any, shape: tuple[int, ...], bias: bool, layout: torch.memory_format
) -> None:
    layer, expected = (kind(5, 7, KERNEL, bias=bias).double().to(memory_format=layout) for kind in (own, torchs))
    layer.load_state_dict(expected.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    found, wanted = seen(layer, x), seen(expected, x)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-10, atol=1e-12, msg=f"{name} differs")
