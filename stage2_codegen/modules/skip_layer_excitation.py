"""Skip-layer excitation (Liu et al., "Towards Faster and Stabilized GAN Training", section 3.1, eq. 1)."""

from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Activation
from stage2_codegen.modules.dense import MapToVector


class SkipLayerExcitation(nn.Module):
    """high gate(low): a small map's features decide how strong each channel of a large map is.

    low is (N, low_channels, h, w), high (N, high_channels, H, W) with any sides; the result has the shape of high.
    """

    def __init__(self, low_channels: int, high_channels: int, activation: Activation = "leaky_relu") -> None:
        super().__init__()
        check_choice("activation", activation, Activation)
        # A gate for each channel, not for each position: the maps may have any sides, and the product costs little.
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            MapToVector(low_channels, high_channels, 4, bias=False),  # 4 x 4 -> 1 x 1
            # The paper's text has a leaky ReLU, whose slope it does not give; the authors' networks have swish.
            nn.LeakyReLU(0.1) if activation == "leaky_relu" else nn.SiLU(),
            nn.Conv2d(high_channels, high_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return high * self.gate(low)
