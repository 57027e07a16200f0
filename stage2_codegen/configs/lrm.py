"""LRM GAN."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from data.limits import Count, Decay, Natural, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.choices import Merge, Relation


@dataclass(frozen=True)
class LRMConfig(VariantConfig):
    """LRM GAN: three stages, a long-range module, and vectors of training images beside the noise."""

    takes_classes: ClassVar[bool] = False  # the vectors already say what to draw

    z_dim: Count = 100
    """Length of the noise vector, N(0, 1); with metadata z has one more entry, which picks the row of the bank."""
    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    ema_halflife_kimg: Weight = 16.6
    """Half-life of the averaged generator, thousands of samples (0.999 a step of 24)."""
    width: Count = 32
    """Channels of the generator's 64 x 64 map; twice as many at 32, ..., half as many at 128, ..., (ngf)."""
    critic_width: Count = 32
    """Channels of a critic's first map; they double up to eight times as many (ndf)."""
    long_range: Literal["lrm", "none", "residual", "attention"] = "lrm"
    """What stands on the chosen map: the long-range module, or the paper's ablations of it (table 1)."""
    long_range_size: Natural = 0
    """Side of that map (the paper: 32 or 64); 0 is 32, or half the code's side where that is less."""
    relation: Relation = "matmul"
    """How relations weigh the map: matmul as the equations say, pairwise as the prose does."""
    merge: Merge = "concat"
    """How the map and its two long-range maps are joined."""
    metadata_dim: Natural = 512
    """Length of a metadata vector; 0 is without metadata."""
    metadata_rows: Count = 1024
    """Metadata vectors the generator keeps."""
    metadata: str = ""
    """A bank of vectors, one a picture (verb metadata); without one, the store's own latents pooled over space."""
    mean_weight: Weight = 1.0
    """Weight lambda1 of the means in colour consistency (eq. 1)."""
    covariance_weight: Weight = 5.0
    """Weight lambda2 of the covariances in colour consistency (eq. 1)."""
    colour_weight: Weight = 50.0
    """Weight lambda3 of colour consistency (eq. 4)."""
    colour_reduction: Literal["mean", "norm"] = "mean"
    """mean divides by the number of entries, as the lineage's code does; norm is eq. 1 to the letter."""
