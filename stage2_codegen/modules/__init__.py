"""Building blocks of the papers, one file each."""

from stage2_codegen.modules.pixel_norm import PixelNorm

__all__ = ["PixelNorm"]
