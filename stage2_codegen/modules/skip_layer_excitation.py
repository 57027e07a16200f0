"""Skip-layer excitation (Liu et al., "Towards Faster and Stabilized GAN Training", section 3.1, eq. 1)."""

from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Activation


class SkipLayerExcitation(nn.Module):
    """(low, high) -> high gate(low): a small map's features decide how strong each channel of a large map is.

    low (N, low_channels, h, w), high (N, high_channels, H, W), any sizes. The paper's text has a leaky ReLU of unstated
    slope, here 0.1; the authors' networks have swish. No biases.
    """

    def __init__(self, low_channels: int, high_channels: int, activation: Activation = "leaky_relu") -> None:
        super().__init__()
        check_choice("activation", activation, Activation)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(low_channels, high_channels, 4, bias=False),  # 4 x 4 -> 1 x 1
            nn.LeakyReLU(0.1) if activation == "leaky_relu" else nn.SiLU(),
            nn.Conv2d(high_channels, high_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return high * self.gate(low)
