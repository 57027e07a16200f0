"""The global information utilization module (Tian et al., "GIU-GANs", section 3.2, algorithm 1)."""

from torch import Tensor, nn

from stage2_codegen.modules.involution import Involution
from stage2_codegen.modules.squeeze_excitation import SqueezeExcitation


class GIU(nn.Module):
    """Involution of x (N, C, H, W) by kernels made from x after squeeze and excitation; same shape, no residual.

    The text gives the involution a reduction of 16; the published parameter counts need 4, the default here.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        group_channels: int = 16,
        reduction: int = 4,
        norm: bool = True,
        se_reduction: int = 16,
    ) -> None:
        super().__init__()
        self.excitation = SqueezeExcitation(channels, se_reduction)
        self.involution = Involution(channels, kernel_size, group_channels, reduction, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.involution(x, kernel_source=self.excitation(x))  # eqs. 9 and 10: applied to x, not to the excited x
