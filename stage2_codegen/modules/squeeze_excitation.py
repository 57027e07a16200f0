"""Squeeze and excitation (Hu et al., section 3; Tian et al., "GIU-GANs", eqs. 1, 2, 7 and 8)."""

from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError


class SqueezeExcitation(nn.Module):
    """x (N, C, H, W) -> x s of the same shape, where s = sigmoid(W_1 relu(W_0 mean over positions)) is (N, C).

    Raises `UsageError` for a reduction below 1.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1:
            raise UsageError(f"squeeze and excitation: a reduction of {reduction} is impossible", "give 1 or more")
        hidden = max(channels // reduction, 1)
        # With biases, about which the published parameter counts are silent: they round them away.
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]
