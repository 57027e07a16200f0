"""GIU-GANs (Tian et al., "GIU-GANs: Global Information Utilization for Generative Adversarial Networks").

    generator  z -> [4 x 4, RBN] -> GIU -> [8 x 8, BN] -> ... -> [S/2, RBN] -> codes     "shallow" (section 3.3, fig. 5)
    critic     codes -> [S/2] -> ... -> [8 x 8] -> [4 x 4] -> GIU -> score               "deep" (fig. 4)

The paper gives the places of the modules, leaky ReLU 0.1, spectral norm on both networks, WGAN-GP (section 3.4), Adam
2e-4 (0, 0.9) and one critic update in each step (algorithm 2). Widths, z of 128 and the number of modules follow from
its parameter and operation counts.
"""

from torch import nn

from stage2_codegen.configs.giu import GIUConfig
from stage2_codegen.losses import WGANGP
from stage2_codegen.modules import GIU, RepresentativeBatchNorm2d
from stage2_codegen.variants import chain
from stage2_codegen.variants.contract import CodeShape
from stage2_codegen.variants.shapes import Maps


def _published_giu(code_shape: CodeShape) -> tuple[int, ...]:
    # After the generator's input layer and before the critic's output layer. The counts fit one module in each network
    # at 32 x 32 and two at 64 x 64; larger codes have two as well.
    return (4,) if Maps.of(code_shape).size < 64 else (4, 8)


def _giu(channels: int, config: GIUConfig, norm: bool) -> nn.Module:
    return GIU(
        channels,
        kernel_size=config.kernel_size,
        group_channels=config.group_channels,
        reduction=config.reduction,
        norm=norm,
        se_reduction=config.se_reduction,
    )


def generator(code_shape: CodeShape, config: GIUConfig) -> chain.Generator:
    """Build the chain with GIU modules and representative batch norm after the maps that `config` names."""
    giu = chain.chosen_sides("generator_giu", config.generator_giu, _published_giu(code_shape), code_shape)
    # "Near the input and output layers" of the generator; the counts cannot tell this from the first map alone.
    ends = (4, Maps.of(code_shape).size // 2)
    rbn = chain.chosen_sides("generator_rbn", config.generator_rbn, ends, code_shape)

    def norm(channels: int, side: int) -> nn.Module:
        return RepresentativeBatchNorm2d(channels) if side in rbn else chain.batch_norm(channels, side)

    insert = chain.after(giu, lambda channels, side: _giu(channels, config, norm=True))
    return chain.Generator(code_shape, config, insert, norm)


def critic(code_shape: CodeShape, config: GIUConfig) -> chain.Critic:
    """Build the chain with GIU modules after the maps that `config` names, and without batch norm (section 3.4)."""
    giu = chain.chosen_sides("critic_giu", config.critic_giu, _published_giu(code_shape), code_shape)
    # Eq. 5 has batch norm in every involution, algorithm 1 has none. By default the critic's have none, because it
    # mixes samples, while the gradient penalty is that of one sample.
    insert = chain.after(giu, lambda channels, side: _giu(channels, config, config.critic_giu_norm))
    return chain.Critic(code_shape, config, insert)


def loss(config: GIUConfig) -> WGANGP:
    """Make the Wasserstein loss with a gradient penalty (eq. 14)."""
    return WGANGP(config.gp_weight, penalty=config.penalty)
