"""GCA, and the GANs that it is put into."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from data.limits import Count, Decay, Natural, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.chain import ChainConfig, DCGANConfig, SAGANConfig
from stage2_codegen.configs.choices import Adjacency, NodeFeatures

HostName = Literal["dcgan", "sagan"]
HOSTS: dict[HostName, ChainConfig] = {"dcgan": DCGANConfig(), "sagan": SAGANConfig()}


@dataclass(frozen=True)
class GCAConfig(VariantConfig):
    """GCA (Peng et al.): graph convolution over the positions of the 8 x 8 map of DCGAN or SAGAN.

    Fields that are given as None have the host's values after initialisation.
    """

    any_shape: ClassVar[bool] = False  # the graph has a weight for each pair of places

    host: HostName = "dcgan"
    """GAN that provides the networks, the objective and the optimiser's settings."""
    z_dim: Count | None = None  # type: ignore[assignment]
    """Length of the noise vector, N(0, 1); None means the host's."""
    lr: Weight | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the generator; None means the host's."""
    critic_lr: Weight | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the critic; None means the host's."""
    beta1: Decay | None = None  # type: ignore[assignment]
    """Adam's first decay; None means the host's."""
    beta2: Decay | None = None  # type: ignore[assignment]
    """Adam's second decay; None means the host's."""
    width: Count = 64
    """Channels of the map before the codes; they double whenever the side halves, up to 8 times (the hosts have 64)."""
    side: Natural = 8
    """Side of the map with the module (4, 8, ..., S/2); its parameters grow with the fourth power of the side."""
    relation: Literal["gca", "non-local"] = "gca"
    """Module to use: graph convolution, or the non-local block that it is compared with."""
    adjacency: Adjacency = "soft"
    """Weights of the graph's edges: those of the attention map (eq. 1), or 1 where they exceed 1 / positions."""
    node_features: NodeFeatures = "conv"
    """Feature matrix J of the nodes (eq. 2): from a 1 x 1 convolution, or one number for each node on its diagonal."""

    def __post_init__(self) -> None:
        """Take the host's values for fields that are None, so that the trainer and config.json see numbers."""
        super().__post_init__()
        for field in ("z_dim", "lr", "critic_lr", "beta1", "beta2"):
            if getattr(self, field) is None:
                object.__setattr__(self, field, getattr(HOSTS[self.host], field))
