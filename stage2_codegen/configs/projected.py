"""A critic on frozen ImageNet features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.limits import Count, Decay, Limit, Natural, Weight
from stage2_codegen.configs.base import PenalisedConfig
from stage2_codegen.configs.choices import BackboneName


@dataclass(frozen=True)
class ProjectedConfig(PenalisedConfig):
    """Projected GAN (Sauer et al.) on codes: a critic on frozen ImageNet features of the decoded pictures."""

    z_dim: Count = 128
    """Length of the noise vector, N(0, 1)."""
    lr: Weight = 5e-4
    """Learning rate of Adam for the generator."""
    critic_lr: Weight = 5e-4
    """Learning rate of Adam for the critic."""
    beta2: Decay = 0.99
    """Adam's second decay."""
    gamma: Weight = 5.0
    """Weight gamma of the penalties at real and fake samples, which limit the slope of the critic in its features."""
    penalty_every: Count = 4
    """Critic updates from one with the penalties to the next, where they weigh that many times as much."""
    one_batch_of_fakes: bool = True
    """Whether both networks learn from the same generated batch in a step, which is then drawn and viewed only once."""
    augment: str = "color,translation,cutout"
    """Augmentation of real and generated pictures before the critic, names separated by commas."""
    width: Count = 96
    """Channels of the generator's 16 x 16 map; all other maps are in proportion."""
    backbone: BackboneName | Literal["none"] = "lite0"
    """Frozen network: EfficientNet-Lite0 or Lite1, SqueezeNet from a file, or none, with the picture head alone."""
    backbone_weights: str = ""
    """File with the backbone's weights, where they do not come from its package."""
    scales: Annotated[int, Limit(least=1, most=4)] = 4
    """Number of scales whose features are judged, starting from the finest."""
    mixing: bool = True
    """Whether features are mixed at random across channels and scales before the heads read them."""
    view_side: Natural = 0
    """Side, in pixels, at which the backbone sees pictures; 0 means their own side, but at least 96 and at most 256."""
    decode: Literal["linear", "full"] = "linear"
    """How codes become the critic's pictures: by a linear approximation of the decoder, which costs almost nothing, or
    by the full decoder."""
    picture_head: bool = True
    """Whether a head also judges the pictures themselves, whose finest patterns the backbone overlooks."""
    drift_weight: Weight = 0.1
    """Weight of the drift, which moves generated features and codes towards real ones, beside the critic's loss."""
