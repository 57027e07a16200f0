"""GCA (Peng et al., "Leveraging GANs via Non-local Features"): graph convolution over the positions of a map.

Each network has one module, on its 8 x 8 map (section 4). The hosts are DCGAN and SAGAN of `baselines.py`, whose widths
the paper does not give. Its third host, ConSinGAN, is in `consingan.py`.
"""

import dataclasses

from torch import nn

from stage2_codegen.configs.chain import ChainConfig
from stage2_codegen.configs.gca import HOSTS, GCAConfig, HostName
from stage2_codegen.losses import BCE, Hinge, Loss
from stage2_codegen.modules import GraphConvolution, NonLocal
from stage2_codegen.variants import chain
from stage2_codegen.variants.contract import CodeShape


def _chain_config(config: GCAConfig) -> ChainConfig:
    # "All models adopt the same hyperparameters, loss function, and training method": all else is the host's.
    own = {field: getattr(config, field) for field in ("z_dim", "width", "standardise", "classes")}
    return dataclasses.replace(HOSTS[config.host], **own)


def _insert(code_shape: CodeShape, config: GCAConfig) -> chain.Insert:
    def module(channels: int, side: int) -> nn.Module:
        if config.relation == "non-local":  # what the paper compares with, in the same place (table 1)
            return NonLocal(channels)
        return GraphConvolution(channels, side, config.adjacency, config.node_features)

    # In SAGAN the module replaces the attention, which the chain alone does not have.
    return chain.after(chain.chosen_sides("side", (config.side,), (), code_shape), module)


def generator(code_shape: CodeShape, config: GCAConfig) -> chain.Generator:
    """Build the host's generator, with the module after the block that makes the map of side `config.side`."""
    return chain.Generator(code_shape, _chain_config(config), _insert(code_shape, config))


def critic(code_shape: CodeShape, config: GCAConfig) -> chain.Critic:
    """Build the host's critic, with the module after the block that reaches the map of side `config.side`."""
    return chain.Critic(code_shape, _chain_config(config), _insert(code_shape, config))


def loss(config: GCAConfig) -> Loss:
    """Make the host's loss."""
    losses: dict[HostName, Loss] = {"dcgan": BCE(), "sagan": Hinge()}
    return losses[config.host]
