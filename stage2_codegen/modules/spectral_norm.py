"""Spectral normalisation (Miyato et al., "Spectral Normalization for GANs", eq. 8 and algorithm 1)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from stage2_codegen.fp32 import compute_dtype, full_precision

_FIRST_ITERATIONS = 15  # after which the random vectors that an estimate starts from are near the singular ones
_EPS = 1e-12


class SpectralNorm(nn.Module):
    """weight -> weight / sigma, where sigma estimates the largest singular value of its matrix, outputs x all inputs.

    In training each call first takes a step of power iteration. What it computes, draws and saves is what
    `torch.nn.utils.parametrizations.spectral_norm` does, up to rounding; torch's copies a channels-last weight several
    times at every call. sigma and the iteration keep the weight's own precision under autocast: rounding sigma would
    rescale the whole layer, and the noise would move the estimated singular vectors from step to step.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, outputs: int) -> None:
        """Take the weight, and which of its dimensions is that of the outputs."""
        super().__init__()
        self.outputs = outputs
        # Normalised weights by precision and by whether they have gradients, inside `shared_weights`.
        self.shared: dict[tuple[torch.dtype, bool], Tensor] | None = None
        count = weight.shape[outputs]
        self.register_buffer("_u", F.normalize(weight.new_empty(count).normal_(), dim=0, eps=_EPS))
        self.register_buffer("_v", F.normalize(weight.new_empty(weight.numel() // count).normal_(), dim=0, eps=_EPS))
        if not weight.is_meta:  # where there are no numbers, only time would be lost
            self._iterate(weight, _FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        if self.shared is None or torch.compiler.is_compiling():
            return self._normalised(weight)
        key = compute_dtype(weight), torch.is_grad_enabled()
        if key not in self.shared:
            self.shared[key] = self._normalised(weight)
        return self.shared[key]

    def _normalised(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            if self.training and not self.shared:
                self._iterate(weight, 1)
            # Clones, since the next call changes the vectors, and gradients of this one still need them.
            matrix, v = self._matrix(weight, self._v.clone())
            sigma = torch.dot(self._u.clone(), torch.mv(matrix, v))
            normalised = weight * sigma.reciprocal()
        return normalised.to(compute_dtype(weight))

    @torch.no_grad()
    def _iterate(self, weight: Tensor, times: int) -> None:
        matrix, v = self._matrix(weight, self._v)
        for _ in range(times):
            u = F.normalize(torch.mv(matrix, v), dim=0, eps=_EPS)
            v = F.normalize(torch.mv(matrix.T, u), dim=0, eps=_EPS)
        self._u.copy_(u)
        self._v.copy_(self._in_torchs_order(weight, v))

    def _matrix(self, weight: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight as a matrix and v with as many entries, both in the order in which memory has the inputs.

        A matrix of a channels-last weight is a view: nothing is copied.
        """
        rows = weight.movedim(self.outputs, 0)
        if self._has_inputs_last(rows):
            return rows.permute(0, 2, 3, 1).flatten(1), v.view(rows.shape[1:]).permute(1, 2, 0).flatten()
        return rows.flatten(1), v

    def _in_torchs_order(self, weight: Tensor, v: Tensor) -> Tensor:
        """Undo for v what `_matrix` does: its entries in the order (inputs, height, width), in which they are saved."""
        rows = weight.movedim(self.outputs, 0)
        if self._has_inputs_last(rows):
            inputs, height, width = rows.shape[1:]
            return v.view(height, width, inputs).permute(2, 0, 1).flatten()
        return v

    @staticmethod
    def _has_inputs_last(rows: Tensor) -> bool:
        return not rows.is_contiguous() and rows.is_contiguous(memory_format=torch.channels_last)


def spectral_norm[Layer: nn.Conv2d | nn.ConvTranspose2d](layer: Layer) -> Layer:
    """Give the layer a weight whose matrix, outputs x all inputs, has spectral norm 1, and return it.

    Initialise the layer first: from here on its weight is computed at every call, and a value written to it is lost.
    """
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach(), outputs))
    return layer


@contextmanager
def shared_weights(*networks: nn.Module) -> Iterator[None]:
    """Inside, every normalised weight of `networks` is computed once, with one power iteration, for all calls.

    The weights must not change inside, and one backward pass must serve all calls: that is one update of the step, or
    one part of its batch. Where torch.compile compiles a network, each of its calls normalises for itself.
    """
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, SpectralNorm)]
    for layer in layers:
        layer.shared = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.shared = None
