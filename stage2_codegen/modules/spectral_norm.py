"""Spectral normalisation (Miyato et al., "Spectral Normalization for GANs", eq. 8 and algorithm 1)."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from stage2_codegen.fp32 import full_precision


class SpectralNorm(_SpectralNorm):
    """torch's weight / sigma, with sigma and the power iteration in the weight's own precision also under autocast."""

    def forward(self, weight: Tensor) -> Tensor:
        # On a GPU autocast would compute the products of matrix and vector in bf16: rounding sigma rescales the whole
        # layer, and the noise moves the estimated singular vectors from step to step.
        with full_precision(weight):
            return super().forward(weight)


def spectral_norm[Layer: nn.Conv2d | nn.ConvTranspose2d](layer: Layer) -> Layer:
    """Give the layer a weight whose matrix, outputs x all inputs, has spectral norm 1, and return it.

    Initialise the layer first: from here on its weight is computed at every call, and a value written to it is lost.
    """
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    register_parametrization(layer, "weight", SpectralNorm(layer.weight, dim=outputs))
    return layer
