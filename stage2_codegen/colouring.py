"""A fixed filter that gives a generator's output the spectrum of the data, by colouring what would be white noise.

Neighbouring codes are related: where their means differ, the slopes within their patches correspond. Without the filter
a generator must learn this first, and shows a grid of patches until it has. With it, channels that hardly vary in the
data also hardly vary in the output.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL = 7  # side of the filter, in codes
WINDOW = 16  # side of the parts whose spectra are averaged


@torch.no_grad()
def colouring_kernel(values: Tensor) -> Tensor:
    """Return the weight (C, C, KERNEL, KERNEL) of a convolution that gives white noise the spectrum of `values`.

    `values` is (N, C, H, W). White noise of unit deviation gets the deviation of each channel of `values`.
    """
    values = values.double()
    deviations, means = torch.std_mean(values, (0, 2, 3), correction=0)
    side = min(WINDOW, *values.shape[2:])
    # Welch's estimate of the cross-spectral density of the channels: the mean periodogram of windowed parts.
    parts = F.unfold(values - means.view(-1, 1, 1), side, stride=side).transpose(1, 2)
    spectra = torch.fft.fft2(parts.reshape(-1, values.shape[1], side, side) * _window(side))
    density = torch.einsum("nchw,ndhw->hwcd", spectra, spectra.conj()) / len(spectra)
    # The filter's transfer function is the Hermitian root of the density, whose powers rounding may leave below 0.
    powers, directions = torch.linalg.eigh(density)
    root = directions * powers.clamp(min=0).sqrt().unsqueeze(-2) @ directions.mH
    filters = torch.fft.fftshift(torch.fft.ifft2(root.permute(2, 3, 0, 1)).real, (2, 3))
    reach, middle = min(KERNEL, side - 1) // 2, side // 2
    near = slice(middle - reach, middle + reach + 1)
    kernel = F.pad(filters[:, :, near, near].flip(2, 3), (KERNEL // 2 - reach,) * 4)  # a convolution correlates
    # Cutting the filter to the kernel's side has taken power away, which this scale makes up for.
    sizes = kernel.square().sum((1, 2, 3)).sqrt().clamp(min=1e-12)
    return (kernel * (deviations / sizes).view(-1, 1, 1, 1)).float()


def _window(side: int) -> Tensor:
    """Hann's window without its zeros at the ends, (side, side)."""
    window = torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1]
    return window[:, None] * window
