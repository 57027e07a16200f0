"""GIU-GANs (Tian et al., "GIU-GANs: Global Information Utilization for Generative Adversarial Networks").

    generator  z -> [4 x 4, RBN] -> GIU -> [8 x 8, BN] -> ... -> [S/2, RBN] -> codes     "shallow" (section 3.3, fig. 5)
    critic     codes -> [S/2] -> ... -> [8 x 8] -> [4 x 4] -> GIU -> score               "deep" (fig. 4)

Published: a GIU module after the generator's input layer and before the critic's output layer, representative batch
norm "near the input and output layers" of the generator, no batch norm in the critic, leaky ReLU 0.1, spectral norm on
both networks and WGAN-GP (section 3.4), Adam 2e-4 (0, 0.9) and one critic update a step (algorithm 2).

Not published, and decided by the published parameter and operation counts: all widths, z of 128, r1 = 4 (the text says
16), and two modules in each network at 64 x 64. Decided here: those two for larger codes too; representative norms at
the first and last hidden map, which the counts cannot tell from the first alone; no normalisation inside the critic's
modules (eq. 5 has batch norm in every involution, algorithm 1 has none), because it mixes samples and the gradient
penalty is one sample's; spectral norm neither on the critic's last convolution, whose scale must stay free for the
gradient norm of 1 that the penalty asks for, nor on the 1 x 1 convolutions of the modules.
"""

from torch import nn

from stage2_codegen.configs.giu import GIUConfig
from stage2_codegen.losses import WGANGP
from stage2_codegen.modules import GIU, RepresentativeBatchNorm2d
from stage2_codegen.variants import chain
from stage2_codegen.variants.contract import CodeShape


def _published_giu(code_shape: CodeShape) -> tuple[int, ...]:
    return (4,) if code_shape[1] < 64 else (4, 8)


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
    giu = chain.chosen_sides("generator_giu", config.generator_giu, _published_giu(code_shape), code_shape)
    ends = (4, code_shape[1] // 2)
    rbn = chain.chosen_sides("generator_rbn", config.generator_rbn, ends, code_shape)

    def norm(channels: int, side: int) -> nn.Module:
        return RepresentativeBatchNorm2d(channels) if side in rbn else chain.batch_norm(channels, side)

    insert = chain.after(giu, lambda channels, side: _giu(channels, config, norm=True))
    return chain.Generator(code_shape, config, insert, norm)


def critic(code_shape: CodeShape, config: GIUConfig) -> chain.Critic:
    """A score depends on its own sample alone, unless `critic_giu_norm`."""
    giu = chain.chosen_sides("critic_giu", config.critic_giu, _published_giu(code_shape), code_shape)
    insert = chain.after(giu, lambda channels, side: _giu(channels, config, config.critic_giu_norm))
    return chain.Critic(code_shape, config, insert)


def loss(config: GIUConfig) -> WGANGP:
    return WGANGP(config.gp_weight, penalty=config.penalty)
