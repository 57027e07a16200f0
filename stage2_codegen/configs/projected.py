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
    """Weight gamma of the penalties on real and fake, which hold the critic's slope in the features it sees."""
    penalty_every: Count = 4
    """Critic updates from one with its penalties to the next; they weigh as many times more in it."""
    one_batch_of_fakes: bool = True
    """Let both networks learn from the same generated batch in a step, which spares drawing and viewing it twice."""
    augment: str = "color,translation,cutout"
    """What is done alike to real and generated pictures before the critic."""
    width: Count = 96
    """Channels of the generator's 16 x 16 map; all others in proportion."""
    backbone: BackboneName | Literal["none"] = "lite0"
    """Frozen network: EfficientNet-Lite0 or Lite1, SqueezeNet from a file, or none, which leaves the picture head."""
    backbone_weights: str = ""
    """File of the backbone's weights, where they are not those of its package."""
    scales: Annotated[int, Limit(least=1, most=4)] = 4
    """Scales of features that are judged, from the finest, 1 to 4."""
    mixing: bool = True
    """Mix features at random across channels and scales; without it heads read the backbone's own."""
    view_side: Natural = 0
    """Pixels a side that the backbone sees; 0 takes the picture's, but no less than 96 and no more than 256."""
    decode: Literal["linear", "full"] = "linear"
    """How the critic sees pictures: by a linear approximation of the decoder, nearly free, or by the decoder itself."""
    picture_head: bool = True
    """Also judge the pictures themselves, whose finest pattern the backbone overlooks."""
    drift_weight: Weight = 0.1
    """Weight of the drift of generated features and codes towards real ones, beside the critic's judgement."""
