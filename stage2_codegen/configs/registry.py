"""The configuration of every variant, by name; their networks are in `stage2_codegen.variants`."""

from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.chain import DCGANConfig, LSGANConfig, SAGANConfig, SNGANConfig, WGANGPConfig
from stage2_codegen.configs.consingan import ConSinGANConfig
from stage2_codegen.configs.gca import GCAConfig
from stage2_codegen.configs.giu import GIUConfig
from stage2_codegen.configs.lrm import LRMConfig
from stage2_codegen.configs.projected import ProjectedConfig
from stage2_codegen.configs.r3 import R3Config
from stage2_codegen.configs.sle import SLEConfig

CONFIGS: dict[str, type[VariantConfig]] = {
    "projected": ProjectedConfig,
    "accel": AccelConfig,
    "dcgan": DCGANConfig,
    "lsgan": LSGANConfig,
    "wgan-gp": WGANGPConfig,
    "sngan": SNGANConfig,
    "sagan": SAGANConfig,
    "giu": GIUConfig,
    "gca": GCAConfig,
    "lrm": LRMConfig,
    "r3": R3Config,
    "sle": SLEConfig,
    "consingan": ConSinGANConfig,
}
RECOMMENDED = "projected"  # where nobody names a variant
SIDES = (16, 32, 64, 128, 256)  # of codes, or of pixels


def is_trainable(height: int, width: int) -> bool:
    """Whether any variant trains on codes of these sides."""
    return all(side % SIDES[0] == 0 and SIDES[0] <= side <= SIDES[-1] for side in (height, width))
