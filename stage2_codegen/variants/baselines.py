"""The GANs that the papers compare with, all on the chain of `chain.py`: they differ by objective and normalisation.

    dcgan    Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs": section 3 and its
             "Details of adversarial training"; batch norm in both networks but at the critic's input
    lsgan    Mao et al., "Least Squares GANs", eq. 9, here on DCGAN and with its settings
    wgan-gp  Gulrajani et al., "Improved Training of Wasserstein GANs", algorithm 1; deeper with more convolutions as
             WGAN-GP(+2) and (+3) in Tian et al., table 6
    sngan    Miyato et al., "Spectral Normalization for GANs", setting C of its table 1
    sagan    Zhang et al., "Self-Attention GANs", sections 3 and 4

Widths, z and the critic's slope of the last three are those of Tian et al. (GIU-GANs), whose published parameter and
operation counts they have. Its DCGAN and LSGAN rows come from networks that it does not describe; the networks here are
DCGAN's as Peng et al. (GCA) use them.
"""

from collections.abc import Sequence

from torch import nn

from stage2_codegen.configs.chain import DCGANConfig, LSGANConfig, SAGANConfig, SNGANConfig, WGANGPConfig
from stage2_codegen.losses import BCE, WGANGP, Hinge, LeastSquares, Loss
from stage2_codegen.modules import SelfAttention
from stage2_codegen.variants import chain
from stage2_codegen.variants.contract import CodeShape
from stage2_codegen.variants.shapes import Maps

# Attention has side^4 weights: 4 MiB for each sample here, 1 GiB on the last map of 256 x 256 codes.
MAX_ATTENTION_SIDE = 32


def dcgan_loss(config: DCGANConfig) -> BCE:
    """Make the original GAN's loss, as in the paper."""
    return BCE()


def lsgan_loss(config: LSGANConfig) -> LeastSquares:
    """Make the least-squares loss with targets 0 and 1 (eq. 9)."""
    return LeastSquares()


def wgan_gp_generator(code_shape: CodeShape, config: WGANGPConfig) -> chain.Generator:
    """Build the chain with one more convolution after each of the maps `generator_convs`."""

    def convolution(channels: int, side: int) -> nn.Module:
        conv = chain.prepared(nn.Conv2d(channels, channels, 3, padding=1), config, config.spectral_norm == "both")
        return nn.Sequential(conv, chain.batch_norm(channels, side), nn.ReLU())

    sides = chain.chosen_sides("generator_convs", config.generator_convs, (), code_shape)
    return chain.Generator(code_shape, config, chain.after(sides, convolution))


def wgan_gp_critic(code_shape: CodeShape, config: WGANGPConfig) -> chain.Critic:
    """Build the chain with one more convolution after each of the maps `critic_convs`."""

    def convolution(channels: int, side: int) -> nn.Module:
        # Without normalisation: under the gradient penalty a score must depend on its own sample alone.
        conv = chain.prepared(nn.Conv2d(channels, channels, 3, padding=1), config, config.spectral_norm != "none")
        return nn.Sequential(conv, nn.LeakyReLU(config.slope))

    sides = chain.chosen_sides("critic_convs", config.critic_convs, (), code_shape)
    return chain.Critic(code_shape, config, chain.after(sides, convolution))


def wgan_gp_loss(config: WGANGPConfig) -> WGANGP:
    """Make the Wasserstein loss with a gradient penalty."""
    return WGANGP(config.gp_weight, penalty=config.penalty)


def sngan_loss(config: SNGANConfig) -> Loss:
    """Make the loss that `config` names, by default the hinge loss."""
    # The paper trains with both; later work on spectral normalisation, such as SAGAN, kept the hinge loss.
    return Hinge() if config.objective == "hinge" else BCE()


def _attention(channels: int, side: int) -> nn.Module:
    return SelfAttention(channels)


def sagan_generator(code_shape: CodeShape, config: SAGANConfig) -> chain.Generator:
    """Build the chain with self-attention after the maps `generator_attention`."""
    # Two modules in each network give the counts that Tian et al. publish for 32 and 64 pixels (tables 5 and 6).
    largest = MAX_ATTENTION_SIDE // Maps.of(code_shape).stretch
    published: Sequence[int] = [side for side in chain.hidden_sides(code_shape) if side <= largest][-2:]
    sides = chain.chosen_sides("generator_attention", config.generator_attention, published, code_shape)
    return chain.Generator(code_shape, config, chain.after(sides, _attention))


def sagan_critic(code_shape: CodeShape, config: SAGANConfig) -> chain.Critic:
    """Build the chain with self-attention after the maps `critic_attention`."""
    sides = chain.chosen_sides("critic_attention", config.critic_attention, (8, 4), code_shape)
    return chain.Critic(code_shape, config, chain.after(sides, _attention))


def sagan_loss(config: SAGANConfig) -> Hinge:
    """Make the hinge loss (eq. 4)."""
    return Hinge()
