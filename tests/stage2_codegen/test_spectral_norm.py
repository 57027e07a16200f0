"""Spectral normalisation is torch's up to rounding, but for what autocast would do to it; calls can share it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from stage2_codegen.modules import shared_weights, spectral_norm

LAYERS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: nn.Conv2d(3, 5, 4, 2, 1),
    "pointwise": lambda: nn.Conv2d(3, 5, 1),
    "transposed": lambda: nn.ConvTranspose2d(3, 5, 4, 2, 1),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)
every_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def made(kind: str, normalise: Callable[[Any], nn.Module], layout: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    return normalise(LAYERS[kind]().double()).to(memory_format=layout)


def images() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8, dtype=torch.float64).reshape(2, 3, 8, 8).sin()


def seen_in_two_steps(layer: nn.Module) -> dict[str, Tensor]:
    """Outputs, gradients, gradients of a penalty, and state of two training steps and an evaluation."""
    seen: dict[str, Tensor] = {}
    for step in range(2):
        x = images().requires_grad_(True)
        out = layer.train()(x)
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (out.square().sum() + slope.square().sum()).backward()
        seen |= {f"out{step}": out.detach(), f"slope{step}": slope.detach()}
    seen["evaluated"] = layer.eval()(images()).detach()
    seen |= {f"grad/{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return seen | layer.state_dict()


@every_layer
@every_layout
def test_it_is_torchs_up_to_rounding(kind: str, layout: torch.memory_format) -> None:
    own, after_own = made(kind, spectral_norm, layout), torch.rand(3)
    torchs, after_torchs = made(kind, parametrizations.spectral_norm, layout), torch.rand(3)
    assert torch.equal(after_own, after_torchs)  # the same random numbers were drawn
    copied = copy.deepcopy(own)  # what an averaged generator is
    expected = seen_in_two_steps(torchs)
    for layer in (own, copied):
        seen = seen_in_two_steps(layer)
        assert seen.keys() == expected.keys()
        for name, value in seen.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12, msg=f"{name} differs")


@every_layer
def test_a_layout_does_not_change_a_state(kind: str) -> None:
    """A checkpoint may be read by a network in the other layout, and goes on as it would have."""
    rows, last = (made(kind, spectral_norm, f) for f in (torch.contiguous_format, torch.channels_last))
    rows.train()(images())
    last.load_state_dict(rows.state_dict())
    torch.testing.assert_close(last.train()(images()), rows(images()), rtol=1e-10, atol=1e-12)


@every_layer
def test_shared_weights_take_one_iteration_and_give_the_gradients_of_all_calls(kind: str) -> None:
    apart, shared = (made(kind, spectral_norm, torch.channels_last).train() for _ in range(2))
    first, second = images(), images().flip(0).cos()
    loss = apart(torch.cat([first, second])).square().sum()  # one call, hence one iteration
    loss.backward()
    with shared_weights(shared):
        together = shared(first).square().sum() + shared(second).square().sum()
    together.backward()
    torch.testing.assert_close(together, loss)
    for (name, p), (_, expected) in zip(shared.named_parameters(), apart.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, msg=f"{name} differs")
    assert all(torch.equal(a, b) for a, b in zip(shared.buffers(), apart.buffers(), strict=True))
    before = shared.state_dict()["parametrizations.weight.0._u"].clone()
    shared(first)
    assert not torch.equal(before, shared.state_dict()["parametrizations.weight.0._u"])  # no longer shared


def test_shared_weights_are_computed_again_where_gradients_or_precision_differ() -> None:
    layer = made("convolution", spectral_norm, torch.channels_last).float().train()
    x = images().float()
    with shared_weights(layer):
        with torch.no_grad():
            layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
            halves = layer.weight
            assert halves.dtype == torch.bfloat16
            assert halves is layer.weight  # converted once, not at every call
        out = layer(x)
        assert out.dtype == torch.float32
    out.sum().backward()
    (gradient,) = (p.grad for name, p in layer.named_parameters() if name.endswith("original"))
    assert gradient is not None
    assert gradient.abs().sum() > 0


@every_layer
def test_its_products_stay_out_of_autocast(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which torch's do not. On a CPU that changes nothing, so what is asked is whether autocast was on."""
    product, during = torch.mv, list[bool]()

    def watched(matrix: Tensor, vector: Tensor) -> Tensor:
        during.append(torch.is_autocast_enabled("cpu"))
        return product(matrix, vector)

    own, torchs = (
        made(kind, form, torch.contiguous_format).float() for form in (spectral_norm, parametrizations.spectral_norm)
    )
    monkeypatch.setattr(torch, "mv", watched)
    x = torch.randn(2, 3, 8, 8)
    for layer, expected in ((own, {False}), (torchs, {True})):
        during.clear()
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert set(during) == expected
