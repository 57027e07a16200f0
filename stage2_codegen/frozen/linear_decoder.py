"""A linear approximation of an autoencoder's decoder, for a critic that judges pictures without decoding them.

A decoder's convolutions take neighbouring latents into account. A map of single latents cannot, and leaves the edges of
patches in every picture, real or generated, so a critic that sees such pictures does not penalise a grid. A map of
3 x 3 latents costs as little and leaves hardly any edges.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage1_autoencoder.bounds import unbounded
from stage1_autoencoder.networks import Autoencoder

KERNEL = 3
MOST_CODES = 32  # largest side of the codes that are decoded for the fit
RIDGE = 1e-5  # relative to the mean square of an input: channels that never change would make the system singular


class LinearDecoder(nn.Module):
    """Latents (N, C, h, w) in [-1, 1] -> pictures (N, 3, f h, f w): the tanh of an affine map of 3 x 3 latents' atanh.

    The map is fitted to the decoder by least squares on `latents`, before the tanh. It is never trained.
    """

    def __init__(self, autoencoder: Autoencoder, latents: Tensor) -> None:
        super().__init__()
        self.factor, channels = autoencoder.factor, latents.shape[1]
        self.map = nn.Conv2d(channels, 3 * self.factor**2, KERNEL, padding=KERNEL // 2, padding_mode="replicate")
        weight, bias = fitted(autoencoder, latents[..., :MOST_CODES, :MOST_CODES])
        self.map.weight.data.copy_(weight.view_as(self.map.weight))
        assert self.map.bias is not None
        self.map.bias.data.copy_(bias)
        self.to(latents.device).requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(F.pixel_shuffle(self.map(unbounded(latents)), self.factor))


@torch.no_grad()
def fitted(autoencoder: Autoencoder, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map's weight (3 f^2, 9 C) and bias (3 f^2,), found by ridge regression."""
    wanted = F.pixel_unshuffle(unbounded(autoencoder.decode(latents)), autoencoder.factor)
    given = F.unfold(F.pad(unbounded(latents), (KERNEL // 2,) * 4, mode="replicate"), KERNEL)
    # In fp64: the normal equations square the condition of the inputs, whose channels vary by orders of magnitude.
    x, y = (_rows(found).double() for found in (given, wanted.flatten(2)))
    (x_mean, y_mean) = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    squares = x.T @ x
    ridge = RIDGE * squares.diagonal().mean().clamp(min=1e-12) * torch.eye(len(squares), dtype=squares.dtype)
    solution = torch.linalg.solve(squares + ridge, x.T @ y)
    return solution.T.float(), (y_mean - x_mean @ solution).float()


def _rows(found: Tensor) -> Tensor:
    """(N, D, L) -> (N L, D)."""
    return found.transpose(1, 2).flatten(0, 1)
