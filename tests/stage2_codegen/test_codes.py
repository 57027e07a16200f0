"""Latents <-> codes."""

import types
from typing import Any

import numpy as np
import torch

from stage2_codegen.codes import CodeScale


def _store(latents: np.ndarray[Any, Any]) -> Any:
    return types.SimpleNamespace(code_shape=latents.shape[1:], mean=latents.mean((0, 2, 3)), std=latents.std((0, 2, 3)))


def test_standardised_codes_have_zero_mean_and_unit_deviation_and_go_back() -> None:
    latents = np.tanh(np.random.default_rng(0).normal(0.2, 0.5, (50, 3, 4, 4))).astype(np.float32)
    scale = CodeScale.of(_store(latents), standardise=True)
    codes = scale.to_codes(torch.from_numpy(latents))
    np.testing.assert_allclose(codes.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(codes.std((0, 2, 3), correction=0), 1, atol=1e-5)
    np.testing.assert_allclose(scale.to_latents(codes), latents, atol=1e-6)
    assert CodeScale.from_json(scale.to_json()) == scale


def test_without_standardising_codes_are_the_latents_and_decoding_clamps() -> None:
    scale = CodeScale.of(_store(np.zeros((1, 2, 3, 3), np.float32)), standardise=False)
    x = torch.linspace(-2, 2, 18).reshape(1, 2, 3, 3)
    assert torch.equal(scale.to_codes(x), x)
    assert torch.equal(scale.to_latents(x), x.clamp(-1, 1))


def test_a_scale_first_used_in_inference_serves_training_in_any_precision() -> None:
    """Its columns are kept between calls."""
    scale = CodeScale((0.25, -0.5), (0.75, 3.0))
    x = torch.rand(1, 2, 3, 3, dtype=torch.float64) / 9  # nothing is clamped
    mean, std = torch.tensor([0.25, -0.5]).view(2, 1, 1), torch.tensor([0.75, 3.0]).view(2, 1, 1)
    for dtype in (torch.float32, torch.float64):
        codes = x.to(dtype)
        with torch.inference_mode():
            assert torch.equal(scale.to_latents(codes), codes * std.to(dtype) + mean.to(dtype))
        codes.requires_grad_(True)
        scale.to_latents(codes).sum().backward()
        assert codes.grad is not None
        assert codes.grad.dtype == dtype
        assert torch.equal(codes.grad, std.to(dtype).expand_as(codes))
        assert torch.equal(scale.to_codes(codes.detach()), (codes.detach() - mean.to(dtype)) / std.to(dtype))
