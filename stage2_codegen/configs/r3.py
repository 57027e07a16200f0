"""The modern recipe: relativistic pairing, penalties and a burn-in."""

from dataclasses import dataclass

from data.limits import Count, Decay, Weight
from stage2_codegen.configs.base import PenalisedConfig
from stage2_codegen.configs.choices import Penalty

SCHEDULED = ("lr", "critic_lr", "beta2", "gamma", "ema_halflife_kimg")  # each has an `end_` twin


@dataclass(frozen=True)
class R3Config(PenalisedConfig):
    """The modern recipe (Huang et al.): relativistic pairing, zero-centred penalties, residual networks, a burn-in.

    A field that has an `end_` twin holds the value at the start of training.
    """

    width: Count = 256
    """Channels of maps up to 32 x 32; half as many at 64 and 128, a quarter at 256."""
    gamma: Weight = 20.0
    """Weight gamma of the penalties at real and fake samples; it should grow with the number of entries of a code."""
    penalty: Penalty = "exact"
    """How the penalties are computed; the finite difference needs no double backward but is noisy."""
    ema_halflife_kimg: Weight = 0.0
    """Half-life of the averaged generator, in thousands of samples."""
    standardise: bool = True
    """Whether codes have zero mean and unit deviation in each channel, instead of the encoder's range [-1, 1]."""
    burnin_kimg: Weight = 100.0
    """Length of the cosine from these values to those of --model.end-*, in thousands of samples."""
    end_lr: Weight = 5e-5
    """Learning rate of the generator after the burn-in."""
    end_critic_lr: Weight = 5e-5
    """Learning rate of the critic after the burn-in."""
    end_beta2: Decay = 0.99
    """Adam's second decay after the burn-in."""
    end_gamma: Weight = 2.0
    """Weight of the penalties after the burn-in."""
    end_ema_halflife_kimg: Weight = 10.0
    """Half-life of the averaged generator after the burn-in, in thousands of samples."""
