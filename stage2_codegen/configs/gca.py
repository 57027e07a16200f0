"""GCA, and the GANs that it is put into."""

from dataclasses import dataclass
from typing import Literal

from data.limits import Count, Decay, Natural, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.chain import ChainConfig, DCGANConfig, SAGANConfig
from stage2_codegen.configs.choices import Adjacency, NodeFeatures

HostName = Literal["dcgan", "sagan"]
HOSTS: dict[HostName, ChainConfig] = {"dcgan": DCGANConfig(), "sagan": SAGANConfig()}


@dataclass(frozen=True)
class GCAConfig(VariantConfig):
    """GCA (Peng et al.): graph convolution over the positions of the 8 x 8 map of DCGAN or SAGAN.

    Once made, it holds numbers everywhere: fields given as None took the host's values.
    """

    host: HostName = "dcgan"
    """The GAN whose networks, objective and optimiser these are."""
    z_dim: Count | None = None  # type: ignore[assignment]
    """Length of the noise vector, N(0, 1); None: the host's."""
    lr: Weight | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the generator; None: the host's."""
    critic_lr: Weight | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the critic; None: the host's."""
    beta1: Decay | None = None  # type: ignore[assignment]
    """Adam's first decay; None: the host's."""
    beta2: Decay | None = None  # type: ignore[assignment]
    """Adam's second decay; None: the host's."""
    width: Count = 64
    """Channels of the map before the codes; twice as many a halving of the side, up to 8 times (64 is the hosts')."""
    side: Natural = 8
    """Side of the map with the module, 4, 8, ..., S/2; parameters grow with its fourth power."""
    relation: Literal["gca", "non-local"] = "gca"
    """The module: graph convolution, or the non-local block it is compared with."""
    adjacency: Adjacency = "soft"
    """Weights of the graph's edges: the attention map (eq. 1), or which of its entries exceed 1 / positions."""
    node_features: NodeFeatures = "conv"
    """Feature matrix J of the nodes (eq. 2): from a 1 x 1 convolution, or one number a node on the diagonal."""

    def __post_init__(self) -> None:
        """Take from the host what was left to it, so that the trainer and a run's config.json see numbers."""
        super().__post_init__()
        for field in ("z_dim", "lr", "critic_lr", "beta1", "beta2"):
            if getattr(self, field) is None:
                object.__setattr__(self, field, getattr(HOSTS[self.host], field))
