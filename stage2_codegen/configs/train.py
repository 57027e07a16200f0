"""The flags of training a code generator; those of a variant are its own."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.flags import OptionalPath
from data.limits import Count, Limit, Natural, Weight
from data.sources.locations import LocationArg
from stage1_autoencoder.training.config import RunConfig
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.choices import FeatureName
from stage2_codegen.configs.flags import MirrorFlags, PrecisionFlag


@dataclass(frozen=True, kw_only=True)
class TrainConfig[Model: VariantConfig](RunConfig):
    """Train a code generator on a latent store."""

    store: LocationArg
    """The latent store."""
    init: OptionalPath = None
    """Run to take the weights from at the start, as far as they fit, in place of random ones."""
    freeze_critic: Natural = 0
    """With --init: how many of the critic's first layers are not trained, for few pictures."""
    conditional: bool = False
    """Train on the classes of the data, so that samples of a class can be asked for."""
    balance: bool = False
    """Show all classes equally often, however many pictures they have."""
    mirror: MirrorFlags = None
    precision: PrecisionFlag = None
    """In bf16, weights and gradient penalties stay fp32. Left out, a new run takes bf16 where the hardware has it."""
    accumulate: Count = 1
    """Parts a batch goes through in, to need less memory; batch normalisation then sees one part at a time."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster steps on most GPUs."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """At NaN end with exit code 8, or go back to the last checkpoint with half the learning rates, up to 3 times."""
    score_kimg: Weight = 0.0
    """Score at a snapshot every so many thousand samples and keep the best weights as well; 0 never does."""
    score_num: Annotated[int, Limit(least=4)] = 2048
    """Images drawn for a score, always from the same seeds, and real ones at most."""
    score_features: FeatureName = "inception"
    """Network that scores them; the best has the least kernel distance."""
    feature_weights: OptionalPath = None
    """File of that network's weights. Inception finds its own: cached, else downloaded once (96 MB)."""
    autoencoder: OptionalPath = None
    """Run folder of the autoencoder, when it has moved since encoding."""
    model: Model
    """The variant's own fields."""

    @property
    def score_nimg(self) -> int:
        return max(1, round(self.score_kimg * 1000))
