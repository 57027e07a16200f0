"""GIU-GANs."""

from dataclasses import dataclass
from typing import Literal

from data.limits import Natural
from stage2_codegen.configs.base import WassersteinConfig
from stage2_codegen.configs.chain import ChainConfig


@dataclass(frozen=True)
class GIUConfig(ChainConfig, WassersteinConfig):
    """GIU-GANs (Tian et al.): involution with excited kernels, spectral norm, WGAN-GP."""

    spectral_norm: Literal["none", "critic", "both"] = "both"
    """Networks whose convolutions, except those in modules, have spectral normalisation (eq. 13)."""
    spectral_norm_last: bool = False  # or the critic could not reach the slope of 1 that its penalty asks for
    """Whether spectral_norm includes the critic's last convolution."""
    generator_giu: tuple[Natural, ...] | None = None
    """Sides of maps (4, 8, ..., S/2) followed by a GIU module; None means 4 below S = 64, and 4 8 from there on."""
    critic_giu: tuple[Natural, ...] | None = None
    """The same in the critic."""
    generator_rbn: tuple[Natural, ...] | None = None
    """Sides of maps with representative instead of plain batch norm; None means 4 and S/2, the ends."""
    kernel_size: Natural = 3
    """K, the side of the involution's kernels, which must be odd (table 4)."""
    group_channels: Natural = 16
    """Channels that share a kernel (table 4); must divide the width of every map with a module."""
    reduction: Natural = 4
    """r1, the factor by which the vector that makes the kernels is narrower than the map."""
    se_reduction: Natural = 16
    """r2, the factor by which the hidden layer of the excitation is narrower than the map."""
    critic_giu_norm: bool = False
    """Use batch norm inside the critic's modules, as in eq. 5; samples then affect each other's gradient penalty."""
