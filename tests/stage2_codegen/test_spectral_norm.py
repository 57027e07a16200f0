"""Spectral normalisation is torch's, but for what autocast would do to it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stage2_codegen.modules import spectral_norm

LAYERS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: nn.Conv2d(3, 5, 4, 2, 1),
    "transposed": lambda: nn.ConvTranspose2d(3, 5, 4, 2, 1),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def made(kind: str, normalise: Callable[[Any], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return normalise(LAYERS[kind]())


def seen_in_two_steps(layer: nn.Module) -> dict[str, Tensor]:
    """Outputs, gradients and state of two training steps and an evaluation."""
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    seen = {}
    for step in range(2):
        out = layer.train()(x)
        out.square().sum().backward()
        seen[f"out{step}"] = out.detach()
    seen["evaluated"] = layer.eval()(x).detach()
    seen |= {f"grad/{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return seen | layer.state_dict()


@every_layer
def test_it_is_bit_for_bit_torchs(kind: str) -> None:
    own, after_own = made(kind, spectral_norm), torch.rand(3)
    torchs, after_torchs = made(kind, parametrizations.spectral_norm), torch.rand(3)
    assert torch.equal(after_own, after_torchs)  # the same random numbers were drawn
    copied = copy.deepcopy(own)  # what an averaged generator is
    expected = seen_in_two_steps(torchs)
    for layer in (own, copied):
        seen = seen_in_two_steps(layer)
        assert seen.keys() == expected.keys()
        assert all(torch.equal(seen[name], expected[name]) for name in expected)


@every_layer
def test_its_products_stay_out_of_autocast(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which torch's do not. On a CPU that changes nothing, so what is asked is whether autocast was on."""
    product, during = torch.mv, list[bool]()

    def watched(matrix: Tensor, vector: Tensor) -> Tensor:
        during.append(torch.is_autocast_enabled("cpu"))
        return product(matrix, vector)

    own, torchs = made(kind, spectral_norm), made(kind, parametrizations.spectral_norm)
    monkeypatch.setattr(torch, "mv", watched)
    x = torch.randn(2, 3, 8, 8)
    for layer, expected in ((own, {False}), (torchs, {True})):
        during.clear()
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
            assert layer.weight.dtype == torch.float32
        assert set(during) == expected
