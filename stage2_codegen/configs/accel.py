"""The code GAN of the acceleration framework."""

from dataclasses import dataclass
from typing import Literal

from data.limits import Count, Weight
from stage2_codegen.configs.base import WassersteinConfig


@dataclass(frozen=True)
class AccelConfig(WassersteinConfig):
    """The code GAN of the acceleration framework (Liu, Yao, Ren): plain convolutions, pixel norm, WGAN-GP."""

    width: Count = 256
    """Channels of maps up to 32 x 32; half of it at 64 and 128, a quarter at 256, ... (256 is the paper's)."""
    drift: Weight = 0.0
    """Weight of E[score(real)^2], 0.001 in progressive growing; not in the paper."""
    output: Literal["tanh", "none"] = "tanh"
    """Last activation, none for standardised codes; without one they are clamped to [-1, 1] before decoding."""
