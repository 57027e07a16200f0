"""Fields that all variants have, and fields that several share."""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import tyro

from data.limits import FEW_IMAGES, Count, Decay, Limited, Natural, Weight
from stage1_autoencoder.training.config import OptimizerName
from stage2_codegen.configs.choices import Penalty


@dataclass(frozen=True)
class VariantConfig(Limited):
    """Fields of every variant, because the trainer reads them; a variant sets its paper's defaults."""

    flags: ClassVar[str] = "--model."
    takes_classes: ClassVar[bool] = True
    few_pictures: ClassVar[int] = FEW_IMAGES  # fewer than these are too few for the variant
    mirrors: ClassVar[bool] = True  # whether codes are shown to the critic as the trainer reads them, perhaps mirrored
    any_shape: ClassVar[bool] = True  # whether codes may be other than squares of a power of two

    z_dim: Count = 512
    """Length of the noise vector, N(0, 1)."""
    lr: Weight = 2e-4
    """Learning rate of Adam for the generator."""
    critic_lr: Weight = 2e-4
    """Learning rate of Adam for the critic."""
    beta1: Decay = 0.0
    """Adam's first decay."""
    beta2: Decay = 0.9
    """Adam's second decay."""
    optimizer: OptimizerName = "adam"
    """Optimiser of both networks; rmsprop has Adam's second decay for its own, and adagrad none."""
    n_critic: Count = 1
    """Critic updates for each generator update."""
    ema_halflife_kimg: Weight = 10.0
    """Half-life of the averaged generator, in thousands of samples."""
    standardise: bool = False
    """Whether codes have zero mean and unit deviation in each channel, instead of the encoder's range [-1, 1]."""
    one_batch_of_fakes: bool = False
    """Whether both networks learn from the same generated batch in a step, which is then drawn only once."""
    classes: Annotated[Natural, tyro.conf.Suppress, tyro.conf.Fixed] = 0
    """Number of classes to draw samples of; set by --conditional, 0 without it."""
    augment: str = ""
    """Augmentation of real and generated codes before the critic, names separated by commas: translation, cutout,
    jitter and, for pixels, color."""

    @property
    def penalty_period(self) -> int:
        """Critic updates from one that has a gradient penalty to the next."""
        return 1

    def check_pictures(self, count: int) -> None:
        """Raise `UsageError` unless the variant can be trained on this number of pictures; most can on any."""

    @classmethod
    def retired(cls) -> set[str]:
        """Return fields that runs of earlier versions recorded, although they did nothing in this variant."""
        return {"penalty_every"} - {field.name for field in fields(cls)}


@dataclass(frozen=True)
class PenalisedConfig(VariantConfig):
    """Fields of variants whose loss has a gradient penalty."""

    penalty_every: Count = 1
    """Critic updates from one with the penalty to the next, where it weighs that many times as much."""

    @property
    def penalty_period(self) -> int:
        return self.penalty_every


@dataclass(frozen=True)
class WassersteinConfig(PenalisedConfig):
    """Fields of variants trained with WGAN-GP (Gulrajani et al.)."""

    gp_weight: Weight = 10.0
    """Weight lambda of the gradient penalty (Gulrajani et al., eq. 3)."""
    penalty: Penalty = "exact"
    """How the penalty is computed; the finite difference needs no double backward."""
