"""The global information utilization module (Tian et al., "GIU-GANs", section 3.2, algorithm 1)."""

from torch import Tensor, nn

from stage2_codegen.modules.involution import Involution
from stage2_codegen.modules.squeeze_excitation import SqueezeExcitation


class GIU(nn.Module):
    """Involution of x (N, C, H, W) by kernels made from x after squeeze and excitation; same shape, no residual."""

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        group_channels: int = 16,
        reduction: int = 4,  # r1; the text has 16, but the published parameter counts need 4
        norm: bool = True,
        se_reduction: int = 16,
    ) -> None:
        super().__init__()
        self.excitation = SqueezeExcitation(channels, se_reduction)
        self.involution = Involution(channels, kernel_size, group_channels, reduction, norm)

    def forward(self, x: Tensor) -> Tensor:
        # Eqs. 9 and 10, algorithm 1: kernels come from the excited x, but are applied to x itself. The sum in figure 3
        # is over a kernel's window, so there is no residual connection.
        return self.involution(x, kernel_source=self.excitation(x))
