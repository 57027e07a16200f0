"""The code GAN of the acceleration framework."""

from dataclasses import dataclass
from typing import Literal

from data.limits import Count, Weight
from stage2_codegen.configs.base import WassersteinConfig


@dataclass(frozen=True)
class AccelConfig(WassersteinConfig):
    """The code GAN of the acceleration framework (Liu, Yao, Ren): plain convolutions, pixel norm, WGAN-GP."""

    width: Count = 256
    """Channels of maps up to 32 x 32; half as many at 64 and 128, a quarter at 256 (the paper has 256)."""
    drift: Weight = 0.0
    """Weight of E[score(real)^2], which the paper does not have; 0.001 in progressive growing."""
    output: Literal["tanh", "none"] = "tanh"
    """Last activation of the generator. Standardised codes always have none. Without one, latents are clamped to
    [-1, 1] before decoding."""
