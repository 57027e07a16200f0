"""Give a generator's output the second-order statistics of the data: colour what would be white.

Neighbouring codes belong together: where their means differ, the slopes within their patches follow. A generator that
draws codes one by one must learn that first, and shows a grid of patches until it has. A fixed filter in front of its
output can know it from the start, and channels that hardly vary in the data hardly vary in what it draws.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL = 7
WINDOW = 16  # a side, of the parts whose spectra are averaged


@torch.no_grad()
def colouring_kernel(values: Tensor) -> Tensor:
    """Weight (C, C, KERNEL, KERNEL) of a convolution that colours white noise as `values` (N, C, H, W) are coloured.

    It is the inverse Fourier transform of the Hermitian root of the cross-spectral density of the channels (Welch's
    estimate: the mean periodogram of windowed parts), cut to the kernel's side and scaled so that white noise of unit
    deviation comes out with the deviation of each channel.
    """
    values = values.double()
    deviations, means = torch.std_mean(values, (0, 2, 3), correction=0)
    side = min(WINDOW, *values.shape[2:])
    parts = F.unfold(values - means.view(-1, 1, 1), side, stride=side).transpose(1, 2)
    spectra = torch.fft.fft2(parts.reshape(-1, values.shape[1], side, side) * _window(side))
    density = torch.einsum("nchw,ndhw->hwcd", spectra, spectra.conj()) / len(spectra)
    powers, directions = torch.linalg.eigh(density)
    root = directions * powers.clamp(min=0).sqrt().unsqueeze(-2) @ directions.mH
    filters = torch.fft.fftshift(torch.fft.ifft2(root.permute(2, 3, 0, 1)).real, (2, 3))
    reach, middle = min(KERNEL, side - 1) // 2, side // 2
    near = slice(middle - reach, middle + reach + 1)
    kernel = F.pad(filters[:, :, near, near].flip(2, 3), (KERNEL // 2 - reach,) * 4)  # a convolution correlates
    sizes = kernel.square().sum((1, 2, 3)).sqrt().clamp(min=1e-12)
    return (kernel * (deviations / sizes).view(-1, 1, 1, 1)).float()


def _window(side: int) -> Tensor:
    """Hann's, without its zeros."""
    window = torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1]
    return window[:, None] * window
