"""ConSinGAN, which learns from one picture."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from data.errors import UsageError
from data.limits import Count, Decay, Fraction, Limit, Natural, Positive, Weight
from stage2_codegen.configs.base import PenalisedConfig


@dataclass(frozen=True)
class ConSinGANConfig(PenalisedConfig):
    """ConSinGAN (Hinz et al.): one picture, in stages of growing size of which the newest train together.

    A stage lasts --model.stage-kimg, so six stages of the paper's length need --batch-size 1 --kimg 12.
    """

    few_pictures: ClassVar[int] = 1
    mirrors: ClassVar[bool] = False  # the generator shows its own picture
    takes_classes: ClassVar[bool] = False  # one picture has one class

    z_dim: Annotated[Count, tyro.conf.Suppress, tyro.conf.Fixed] = 1
    """Unused: the noise is as long as the codes of the first stage have entries."""
    stage: Annotated[Natural | None, tyro.conf.Suppress, tyro.conf.Fixed] = None
    """The stage in training, counted from 0, which the schedule sets; None is the last."""
    picture: Natural | None = None
    """Number of the picture to train on, from 0, in a store of several; None needs a store of one."""
    attention: Literal["none", "gca"] = "none"
    """Whether the first stage has graph convolution over its positions, as in the paper on GCA."""
    stages: Annotated[int, Limit(least=3)] = 6
    """Number of stages."""
    min_side: Natural = 0
    """Shorter side of the first stage's codes, 11 or more; 0 means 25, or half of the code's where that is less."""
    stage_kimg: Positive = 2.0
    """Length of a stage, in thousands of samples (2,000 steps of 1); the last one lasts until training ends."""
    train_depth: Count = 3
    """Number of stages that train at the same time, the newest ones."""
    lr_scale: Fraction = 0.1
    """Factor between the learning rates of a stage and of the one after it."""
    noise_amplitude: Weight = 0.1
    """Amplitude of a new stage's noise, in units of the error of its reconstruction when it begins."""
    reconstruction_weight: Weight = 10.0
    """Weight of the squared error of the reconstructed picture."""
    gp_weight: Weight = 0.1
    """Weight of the gradient penalty."""
    width: Count = 64
    """Channels of all maps in both networks."""
    lr: Weight = 5e-4
    """Learning rate of Adam for the generator's newest stage; the last fifth of every stage has a tenth of it."""
    critic_lr: Weight = 5e-4
    """Learning rate of Adam for the critic; the last fifth of every stage has a tenth of it."""
    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    n_critic: Count = 3
    """Critic updates for each generator update."""
    ema_halflife_kimg: Weight = 0.0
    """Half-life of the averaged generator, in thousands of samples; 0 is without an average."""

    def __post_init__(self) -> None:
        """Refuse an augmentation, under which no picture would be reconstructed."""
        super().__post_init__()
        if self.augment:
            raise UsageError(f"augment {self.augment}: consingan reconstructs its picture", "leave out --model.augment")

    def check_pictures(self, count: int) -> None:
        """Raise `UsageError` unless it is known which of the pictures to train on."""
        if self.picture is None and count != 1:
            raise UsageError(
                f"a store of {count} pictures: consingan learns from one",
                "encode one picture, or choose one of these with --model.picture 0",
            )
        if (self.picture or 0) >= count:
            raise UsageError(f"--model.picture {self.picture}: there are {count}", f"give {count - 1} or less")
