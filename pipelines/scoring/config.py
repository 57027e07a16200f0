"""The flags of `codegan score`, and which of them go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from data.errors import UsageError
from data.flags import ClassFlag, Data, Hosts, OptionalCount, OptionalPath, OptionalRun, OptionalText
from data.limits import Count, Fraction, Limited, Natural, Weight
from pipelines.scoring.protocols import PROTOCOLS, MetricName, ProtocolName
from stage2_codegen.configs.choices import FeatureName

Resize = Literal["clean", "legacy_pytorch"]

MIN_IMAGES = 4  # two halves of two
UNBIASED_FROM = 2048  # images below which a Frechet distance is hardly comparable
_DEFAULT: tuple[MetricName, ...] = ("fid", "kid")
ALONE = {"sifid", "lpips-diversity"}  # metrics that need no set of features


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Limited):
    """Measure generated images against real ones."""

    data: Data
    """Real images: a folder, .zip, .tar shards, or scenes:N."""
    run: OptionalRun = None
    """Folder of a trained generator, or a .zip, an address or a name on the hub, as for `codegan sample`; its images
    are drawn in memory."""
    best: bool = False
    """Score the weights that scored best (`train --score-kimg`) instead of the newest."""
    class_name: ClassFlag = None
    """Score this class alone, of a generator trained with --conditional; DATA should be its pictures."""
    truncation: Weight = 1.0
    """Scale of the noise; scores of truncated samples, or of a class, are written only where --out says so."""
    images: OptionalText = None
    """Images to score instead of a run: like --data, one name."""
    num: OptionalCount = None
    """Images to draw from the run, and the most to take from a set. Default: as many as DATA has, at least 2,048 are
    drawn, and at most 50,000; or what the protocol says."""
    metrics: Annotated[tuple[MetricName, ...], tyro.conf.arg(help_behavior_hint="(optional)")] = ()
    """fid: Frechet distance; kid: kernel distance, the one to trust below some thousand images; is: Inception score;
    lpips-diversity: LPIPS of pairs; modes: coverage of what scenes:N holds; sifid: image against image. Default: fid
    and kid, without fid where there are too few images for it."""
    protocol: Annotated[ProtocolName | None, tyro.conf.arg(help_behavior_hint="(optional)")] = None
    """Count and metrics of a paper: accel, fid at 50,000 (section 4.4); giu, is and fid at 50,000 (section 5); fastgan,
    fid at 5,000 against all of DATA (section 4); gca, fid at 50,000 and 64 px (section 4); single-image, sifid of 10
    samples (GCA, figure 6). What is otherwise than in the paper, such as --num, is said."""
    force_fid: bool = False
    """Print fid below 2,048 images, where it says more about their number than about the generator."""
    features: FeatureName = "inception"
    """Network that sees the images; only inception's scores are called FID and KID."""
    feature_weights: OptionalPath = None
    """Its weights. Inception finds its own: cached, else downloaded once (96 MB)."""
    vgg_weights: OptionalPath = None
    """Weights of torchvision's vgg16, for lpips-diversity."""
    resize: Resize = "clean"
    """How images are fitted to the network: antialiased, or as older numbers had it, without. Never compare the two."""
    size: OptionalCount = None
    """Pixels a side both sets are fitted to, with --images. Default: the given images' median shorter side; a run has
    its own."""
    batch_size: Count = 16
    """Images at a time."""
    seed: Natural = 0
    """First seed of the generated images; also which images and halves are taken."""
    cache: OptionalPath = None
    """Folder that keeps the features of real images. Default: CODEGAN_CACHE, else the user's cache folder."""
    no_cache: bool = False
    """Keep no features and use none that were kept."""
    max_skip: Fraction = 0.01
    """Fraction of the files that may be unreadable."""
    allow_host: Hosts = ()
    """Web servers that DATA, a run, and their redirects, may be read from."""
    out: OptionalPath = None
    """File for the scores, and folder for the sheet of neighbours. Default: RUN/scores.json, where other scores of the
    same settings stay; RUN/scores-PROTOCOL.json, RUN/scores-best.json; none with --images, or for a run that is not a
    folder of this machine."""


def asked_metrics(config: ScoreConfig) -> tuple[MetricName, ...]:
    return config.metrics or (PROTOCOLS[config.protocol].metrics if config.protocol else _DEFAULT)


def is_selected(config: ScoreConfig) -> bool:
    """Whether what is drawn is not what the generator draws by itself, so that these are not the scores of its run."""
    return config.class_name is not None or config.truncation != 1


def compares_sets(metrics: Sequence[str]) -> bool:
    return not set(metrics) <= ALONE


def check_flags(config: ScoreConfig) -> None:
    asked = asked_metrics(config)
    least = MIN_IMAGES if compares_sets(asked) else 2 if "lpips-diversity" in asked else 1
    if (config.run is None) == (config.images is None):
        raise UsageError("score: needs either --run or --images", "give a run folder, or a second set of images")
    if config.run and config.size:
        raise UsageError(f"--size {config.size}: goes with --images, a run has its own size", "leave out --size")
    if config.images and config.best:
        raise UsageError("--best: goes with --run, given images have no weights", "leave out --best")
    if config.images and is_selected(config):
        raise UsageError("--class and --truncation: go with --run, given images are drawn already", "leave them out")
    if config.num is not None and config.num < least:
        raise UsageError(f"--num {config.num}: is too few to compare", f"give at least {least}, better 2048")
    if config.cache and config.no_cache:
        raise UsageError("--cache and --no-cache: exclude each other", "leave out one of them")
    if "is" in asked and config.features == "offline":
        raise UsageError(
            "--metrics is: the offline features know no classes", "give --features inception or squeezenet"
        )
    if "sifid" in asked and config.features == "squeezenet":
        raise UsageError("--metrics sifid: is not defined on squeezenet", "give --features inception or offline")
    if "modes" in asked and not config.data[0].startswith("scenes:"):
        raise UsageError(
            f"--metrics modes: {config.data[0]} has no known factors", "give --data scenes:N, or leave it out"
        )
