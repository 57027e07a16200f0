"""GCA (Peng et al., "Leveraging GANs via Non-local Features"): graph convolution over the positions of a map.

One module on the 8 x 8 map of each network (section 4): in the generator after the block that makes it, in the critic
after the block that reaches it. The hosts are DCGAN and SAGAN; in SAGAN it replaces the attention. "All models adopt
the same hyperparameters, loss function, and training method": objective, optimiser and the chain are the host's.
A non-local block in the same place is what the paper compares with (table 1). Its third host, ConSinGAN, learns from
one image and is not among the variants. Not published: the hosts' widths, taken from `baselines.py`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from stage2_codegen.choices import check_choice
from stage2_codegen.losses import Loss
from stage2_codegen.modules import GraphConvolution, NonLocal
from stage2_codegen.modules.graph_convolution import Adjacency, NodeFeatures
from stage2_codegen.variants import baselines, chain
from stage2_codegen.variants.contract import CodeShape, VariantConfig

HostName = Literal["dcgan", "sagan"]


class Host(NamedTuple):
    config: chain.Config
    loss: Loss


_DCGAN, _SAGAN = baselines.DCGANConfig(), baselines.SAGANConfig()
HOSTS: dict[HostName, Host] = {
    "dcgan": Host(_DCGAN, baselines.dcgan_loss(_DCGAN)),
    "sagan": Host(_SAGAN, baselines.sagan_loss(_SAGAN)),
}


@dataclass(frozen=True)
class Config(VariantConfig):
    """GCA (Peng et al.): graph convolution over the positions of the 8 x 8 map of DCGAN or SAGAN.

    Once made, it holds numbers everywhere: fields given as None took the host's values.
    """

    host: HostName = "dcgan"
    """The GAN whose networks, objective and optimiser these are."""
    z_dim: int | None = None  # type: ignore[assignment]
    """Length of the noise vector, N(0, 1); None: the host's."""
    lr: float | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the generator; None: the host's."""
    critic_lr: float | None = None  # type: ignore[assignment]
    """Learning rate of Adam for the critic; None: the host's."""
    beta1: float | None = None  # type: ignore[assignment]
    """Adam's first decay; None: the host's."""
    beta2: float | None = None  # type: ignore[assignment]
    """Adam's second decay; None: the host's."""
    width: int = 64
    """Channels of the map before the codes; twice as many a halving of the side, up to 8 times (64 is the hosts')."""
    side: int = 8
    """Side of the map with the module, 4, 8, ..., S/2; parameters grow with its fourth power."""
    relation: Literal["gca", "non-local"] = "gca"
    """The module: graph convolution, or the non-local block it is compared with."""
    adjacency: Adjacency = "soft"
    """Weights of the graph's edges: the attention map (eq. 1), or which of its entries exceed 1 / positions."""
    node_features: NodeFeatures = "conv"
    """Feature matrix J of the nodes (eq. 2): from a 1 x 1 convolution, or one number a node on the diagonal."""

    def __post_init__(self) -> None:
        """Take from the host what was left to it, so that the trainer and a run's config.json see numbers."""
        check_choice("--model.host", self.host, HostName)
        for field in ("z_dim", "lr", "critic_lr", "beta1", "beta2"):
            if getattr(self, field) is None:
                object.__setattr__(self, field, getattr(HOSTS[self.host].config, field))


def _chain_config(config: Config) -> chain.Config:
    own = {field: getattr(config, field) for field in ("z_dim", "width", "standardise")}
    return dataclasses.replace(HOSTS[config.host].config, **own)


def _insert(code_shape: CodeShape, config: Config) -> chain.Insert:
    def module(channels: int, side: int) -> nn.Module:
        if config.relation == "non-local":
            return NonLocal(channels)
        return GraphConvolution(channels, side, config.adjacency, config.node_features)

    return chain.after(chain.chosen_sides("side", (config.side,), (), code_shape), module)


def generator(code_shape: CodeShape, config: Config) -> chain.Generator:
    return chain.Generator(code_shape, _chain_config(config), _insert(code_shape, config))


def critic(code_shape: CodeShape, config: Config) -> chain.Critic:
    return chain.Critic(code_shape, _chain_config(config), _insert(code_shape, config))


def loss(config: Config) -> Loss:
    return HOSTS[config.host].loss
