"""The DCGAN family, on one chain of strided convolutions."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from data.limits import Count, Decay, Natural, Weight
from stage2_codegen.configs.base import VariantConfig, WassersteinConfig


@dataclass(frozen=True)
class ChainConfig(VariantConfig):
    """Fields of every GAN on this chain; the defaults are those of GIU-GANs and its baselines."""

    slope: ClassVar[float] = 0.1  # of the critic's leaky ReLU
    critic_batch_norm: ClassVar[bool] = False  # after every convolution of the critic but its first and last

    z_dim: Count = 128
    """Length of the noise vector, N(0, 1)."""
    width: Count = 64
    """Channels of the map before the codes; they double whenever the side halves, up to 8 times (64 is published)."""
    spectral_norm: Literal["none", "critic", "both"] = "none"
    """Networks whose convolutions, except those in modules, have spectral normalisation (Miyato et al., eq. 8)."""
    spectral_norm_last: bool = True
    """Whether spectral_norm includes the critic's last convolution."""
    init_std: Weight = 0.0
    """Deviation of normal initial weights of the convolutions; 0 is PyTorch's uniform initialisation."""


@dataclass(frozen=True)
class DCGANConfig(ChainConfig):
    """DCGAN (Radford et al.): batch norm in both networks, binary cross-entropy."""

    slope: ClassVar[float] = 0.2
    critic_batch_norm: ClassVar[bool] = True

    z_dim: Count = 100
    """Length of the noise vector, N(0, 1); the paper's noise is uniform."""
    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    init_std: Weight = 0.02
    """Deviation of normal initial weights of the convolutions; 0 is PyTorch's uniform initialisation."""


@dataclass(frozen=True)
class LSGANConfig(DCGANConfig):
    """LSGAN (Mao et al.): DCGAN with the least-squares loss."""


@dataclass(frozen=True)
class WGANGPConfig(ChainConfig, WassersteinConfig):
    """WGAN-GP (Gulrajani et al.): Wasserstein loss with a gradient penalty."""

    lr: Weight = 1e-4
    """Learning rate of Adam for the generator."""
    critic_lr: Weight = 1e-4
    """Learning rate of Adam for the critic."""
    n_critic: Count = 5
    """Critic updates for each generator update."""
    generator_convs: tuple[Natural, ...] = ()
    """Sides of maps (4, 8, ..., S/2) followed by one more 3 x 3 convolution; 4 8 in the (+2) of GIU-GANs, 4 8 16 in
    its (+3)."""
    critic_convs: tuple[Natural, ...] = ()
    """The same in the critic; 4 8 in (+2), 4 8 32 in (+3), which needs codes of 64 x 64."""


@dataclass(frozen=True)
class SNGANConfig(ChainConfig):
    """SNGAN (Miyato et al.): a critic under spectral normalisation, hinge loss."""

    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    spectral_norm: Literal["none", "critic", "both"] = "critic"
    """Networks whose convolutions, except those in modules, have spectral normalisation (Miyato et al., eq. 8)."""
    objective: Literal["hinge", "bce"] = "hinge"
    """The hinge loss, or the binary cross-entropy of the original GAN."""


@dataclass(frozen=True)
class SAGANConfig(ChainConfig):
    """SAGAN (Zhang et al.): self-attention, spectral norm in both networks, two learning rates."""

    lr: Weight = 1e-4
    """Learning rate of Adam for the generator."""
    critic_lr: Weight = 4e-4
    """Learning rate of Adam for the critic."""
    spectral_norm: Literal["none", "critic", "both"] = "both"
    """Networks whose convolutions, except those in modules, have spectral normalisation (Miyato et al., eq. 8)."""
    generator_attention: tuple[Natural, ...] | None = None
    """Sides of maps (4, 8, ..., S/2) followed by self-attention; None means the last two up to side 32."""
    critic_attention: tuple[Natural, ...] | None = None
    """The same in the critic; None means its last two, 8 and 4."""
