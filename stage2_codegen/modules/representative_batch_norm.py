"""Representative batch normalisation (Gao et al., CVPR 2021; Tian et al., "GIU-GANs", eqs. 15 to 20)."""

import torch
from torch import Tensor, nn

from stage2_codegen.fp32 import at_least_fp32
from stage2_codegen.modules.batch_norm import BatchNorm2d, per_channel


class RepresentativeBatchNorm2d(BatchNorm2d):
    """Batch normalisation calibrated by each sample's own means, before centring and after scaling; 5C parameters.

    (N, C, H, W) -> the same shape. The calibration is the same in training and in evaluation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.center_weight = nn.Parameter(torch.zeros(channels))  # w_m
        self.scale_weight = nn.Parameter(torch.zeros(channels))  # w_v
        # As Gao et al. start it: the output is at first sigmoid(1) = 0.731 times that of batch normalisation.
        self.scale_bias = nn.Parameter(torch.ones(channels))  # w_b

    def forward(self, input: Tensor) -> Tensor:
        x = at_least_fp32(input)
        # Not in place: a residual connection may still read the input. Eq. 18 has a misplaced bracket; this is eq. 17.
        x = x + per_channel(self.center_weight, x) * x.mean((2, 3), keepdim=True)
        x = self.standardise(x)  # of the calibrated input, whose moments the running estimates follow
        strength = per_channel(self.scale_weight, x) * x.mean((2, 3), keepdim=True) + per_channel(self.scale_bias, x)
        x = x * strength.sigmoid()  # eq. 19; R, 0 < R < 1, is the sigmoid of Gao et al.
        return self.affine_map(x).to(input.dtype)
