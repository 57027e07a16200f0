"""LRM GAN."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from data.limits import Count, Decay, Natural, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.choices import Merge, Relation


@dataclass(frozen=True)
class LRMConfig(VariantConfig):
    """LRM GAN: a few stages, a long-range module, and vectors of training images beside the noise."""

    any_shape: ClassVar[bool] = False  # a long-range module has a weight for each place of its map
    takes_classes: ClassVar[bool] = False  # the vectors already say what to draw

    z_dim: Count = 100
    """Length of the noise vector, N(0, 1); with metadata, z has one more entry, which picks a row of the bank."""
    beta1: Decay = 0.5
    """Adam's first decay."""
    beta2: Decay = 0.999
    """Adam's second decay."""
    ema_halflife_kimg: Weight = 16.6
    """Half-life of the averaged generator, in thousands of samples (0.999 per step of 24)."""
    width: Count = 32
    """Channels of the generator's 64 x 64 map (ngf); they double whenever the side halves."""
    critic_width: Count = 32
    """Channels of a critic's first map (ndf); they double whenever the side halves, up to 8 times."""
    stages: Count = 3
    """Number of stages, each with a critic; the codes of a stage have twice the side of those before it."""
    long_range: Literal["lrm", "none", "residual", "attention"] = "lrm"
    """Module on the chosen map: the long-range module, or one of the paper's ablations (table 1)."""
    long_range_size: Natural = 0
    """Side of that map, 32 or 64 in the paper; 0 means 32, or half the code's side where that is less."""
    relation: Relation = "matmul"
    """How relations weigh the map: matmul follows the paper's equations, pairwise its prose."""
    merge: Merge = "concat"
    """How the map is joined with its two long-range maps."""
    metadata_dim: Natural = 512
    """Length of a metadata vector; with 0 there are no metadata."""
    metadata_rows: Count = 1024
    """Number of metadata vectors that the generator keeps."""
    metadata: str = ""
    """Bank with a vector for each picture (verb metadata); without one, the store's latents are pooled over space."""
    mean_weight: Weight = 1.0
    """Weight lambda1 of the means in colour consistency (eq. 1)."""
    covariance_weight: Weight = 5.0
    """Weight lambda2 of the covariances in colour consistency (eq. 1)."""
    colour_weight: Weight = 50.0
    """Weight lambda3 of colour consistency (eq. 4)."""
    colour_reduction: Literal["mean", "norm"] = "mean"
    """How eq. 1 adds up entries: mean divides by their number, norm is the equation as printed."""
