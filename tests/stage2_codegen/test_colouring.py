"""The filter that colours a generator's output: white noise comes out with the covariances of the data."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_codegen.colouring import KERNEL, colouring_kernel


def coloured(kernel: Tensor, count: int = 64, side: int = 24) -> Tensor:
    noise = torch.randn(count, kernel.shape[1], side, side, generator=torch.Generator().manual_seed(1))
    return F.conv2d(noise, kernel)


def covariance(values: Tensor, down: int, right: int) -> Tensor:
    """Of each channel with each other at that distance, (C, C)."""
    values = values - values.mean((0, 2, 3), keepdim=True)
    height, width = values.shape[2] - down, values.shape[3] - right
    here, there = values[:, :, :height, :width], values[:, :, down:, right:]
    return torch.einsum("nchw,ndhw->cd", here, there) / here[:, 0].numel()


def test_white_noise_comes_out_coloured_as_the_data() -> None:
    torch.manual_seed(0)
    mixing = 0.3 * torch.randn(3, 3, 3, 3)
    data = coloured(mixing, 256) + 5.0
    found = coloured(colouring_kernel(data), 256)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2)):
        wanted = covariance(data, down, right)
        size = covariance(data, 0, 0).diagonal().mean()
        assert (covariance(found, down, right) - wanted).abs().max() < 0.1 * size, (down, right)


def test_white_data_needs_no_neighbours() -> None:
    torch.manual_seed(0)
    deviations = torch.tensor([0.2, 1.0, 3.0])
    kernel = colouring_kernel(torch.randn(512, 3, 16, 16) * deviations.view(-1, 1, 1))
    expected = torch.zeros(3, 3, KERNEL, KERNEL)
    expected[:, :, KERNEL // 2, KERNEL // 2] = torch.diag(deviations)
    assert ((kernel - expected).abs() < 0.05 * deviations.view(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (8, 4, 6, 6), (3, 4, 40, 40)])
def test_any_number_and_side_of_codes_gives_the_deviations(shape: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape).cumsum(-1)
    values[:, 1] = 0.7  # a channel that never changes
    kernel = colouring_kernel(values)
    assert kernel.shape == (4, 4, KERNEL, KERNEL)
    sizes = kernel.square().sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(sizes, values.std((0, 2, 3), correction=0), rtol=1e-3, atol=1e-6)
