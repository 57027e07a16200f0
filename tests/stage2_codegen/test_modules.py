"""Modules against formulas written out."""

import math

import torch

from stage2_codegen.modules import PixelNorm


def test_pixel_norm_divides_each_position_by_its_root_mean_square() -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    out = PixelNorm()(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                rms = math.sqrt(sum(x[n, c, i, j].item() ** 2 for c in range(5)) / 5 + 1e-8)
                for c in range(5):
                    assert abs(out[n, c, i, j].item() - x[n, c, i, j].item() / rms) < 1e-10
