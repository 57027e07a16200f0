"""The flags of training a code generator, besides those of its variant."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.flags import LocationArg, OptionalPath
from data.limits import Count, Limit, Natural, Weight
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
    """Run from whose weights to start, as far as they fit, instead of random ones."""
    freeze_critic: Natural = 0
    """With --init, number of the critic's first layers that are not trained, for small data sets."""
    conditional: bool = False
    """Train on the classes of the data, so that samples of a given class can be drawn."""
    balance: bool = False
    """With --conditional, show all classes equally often, however many pictures they have."""
    mirror: MirrorFlags = None
    precision: PrecisionFlag = None
    """Precision of the networks; in bf16, weights and gradient penalties stay fp32. By default a new run uses bf16
    where the hardware supports it."""
    accumulate: Count = 1
    """Number of parts in which a batch is processed, to save memory; batch normalisation then sees one part at a
    time."""
    compile: bool = False
    """Compile the networks with torch.compile, which takes minutes at the start and speeds up steps on most GPUs."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """At NaN, stop with exit code 8, or go back to the last checkpoint with half the learning rates, up to 3 times."""
    score_kimg: Weight = 0.0
    """Thousands of samples between two scores, which are made at snapshots; the best weights are kept as well. 0 makes
    no scores."""
    score_num: Annotated[int, Limit(least=4)] = 2048
    """Generated images for a score, always from the same seeds, which are compared with as many real ones at most."""
    score_features: FeatureName = "inception"
    """Network that scores images; the best weights have the smallest kernel distance."""
    feature_weights: OptionalPath = None
    """File with that network's weights. Inception does not need it: its weights are downloaded once (96 MB)."""
    autoencoder: OptionalPath = None
    """Run folder of the autoencoder, if it has moved since encoding."""
    model: Model
    """The variant's own fields."""

    @property
    def score_nimg(self) -> int:
        """Samples between two scores."""
        return max(1, round(self.score_kimg * 1000))
