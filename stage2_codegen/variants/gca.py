"""GCA (Peng et al., "Leveraging GANs via Non-local Features"): graph convolution over the positions of a map.

One module on the 8 x 8 map of each network (section 4): in the generator after the block that makes it, in the critic
after the block that reaches it. The hosts are DCGAN and SAGAN; in SAGAN it replaces the attention. "All models adopt
the same hyperparameters, loss function, and training method": objective, optimiser and the chain are the host's.
A non-local block in the same place is what the paper compares with (table 1). Its third host, ConSinGAN, learns from
one image and is not among the variants. Not published: the hosts' widths, taken from `baselines.py`.
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
    own = {field: getattr(config, field) for field in ("z_dim", "width", "standardise", "classes")}
    return dataclasses.replace(HOSTS[config.host], **own)


def _insert(code_shape: CodeShape, config: GCAConfig) -> chain.Insert:
    def module(channels: int, side: int) -> nn.Module:
        if config.relation == "non-local":
            return NonLocal(channels)
        return GraphConvolution(channels, side, config.adjacency, config.node_features)

    return chain.after(chain.chosen_sides("side", (config.side,), (), code_shape), module)


def generator(code_shape: CodeShape, config: GCAConfig) -> chain.Generator:
    return chain.Generator(code_shape, _chain_config(config), _insert(code_shape, config))


def critic(code_shape: CodeShape, config: GCAConfig) -> chain.Critic:
    return chain.Critic(code_shape, _chain_config(config), _insert(code_shape, config))


def loss(config: GCAConfig) -> Loss:
    losses: dict[HostName, Loss] = {"dcgan": BCE(), "sagan": Hinge()}
    return losses[config.host]
