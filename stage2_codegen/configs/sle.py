"""FastGAN."""

from dataclasses import dataclass
from typing import Literal

from data.limits import Count, Decay, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.choices import Activation, TaskName


@dataclass(frozen=True)
class SLEConfig(VariantConfig):
    """FastGAN (Liu et al.): skip-layer excitation and a self-supervised critic, for few pictures."""

    z_dim: Count = 256
    """Length of the noise vector, N(0, 1)."""
    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    ema_halflife_kimg: Weight = 5.5
    """Half-life of the averaged generator, in thousands of samples (0.999 per step of 8)."""
    one_batch_of_fakes: bool = True
    """Whether both networks learn from the same generated batch in a step, as in the public code."""
    augment: str = "translation"
    """Augmentation of real and generated codes before the critic, names separated by commas; the public code has
    color,translation on pixels."""
    width: Count = 64
    """Channels of the generator's 128 x 128 and the critic's 64 x 64 map (ngf, ndf); other maps are in proportion."""
    excitation: Literal["both", "generator", "none"] = "both"
    """Networks with skip-layer excitation: both as in the public code, or the generator alone as in the text."""
    activation: Activation = "leaky_relu"
    """Activation inside the excitation: the paper's leaky ReLU, or the public code's swish."""
    reconstruct: Literal["l1", "mse", "lpips", "none"] = "l1"
    """Distance that the critic's decoders minimise; lpips needs pixels, and none trains without self-supervision."""
    reconstruct_weight: Weight = 8.0
    """Weight of the reconstructions; the public code sums LPIPS over a batch of 8."""
    tasks: tuple[TaskName, ...] = ()
    """Further tasks of the critic on real samples (table 6), beside reconstruction or without: to find a sample by
    another view of it (contrastive), to tell the shape of a part that was stretched (aspect-ratio), or to tell quarter
    turns (rotation)."""
    task_weight: Weight = 1.0
    """Weight of each of these tasks."""
    vgg_weights: str = ""
    """File with the weights of torchvision's vgg16, for lpips."""
    soft_margin: tuple[Weight, Weight] = (0.8, 1.0)
    """Range of the hinge loss's margin, drawn for each score; 1 1 is the paper's eq. 3."""
