"""Gated linear unit (Dauphin et al., "Language Modeling with Gated Convolutional Networks", eq. 1)."""

from torch import Tensor, nn
from torch.nn import functional as F


class GLU(nn.Module):
    """(N, 2C, ...) -> (N, C, ...): the first half of the channels times the sigmoid of the second; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)
