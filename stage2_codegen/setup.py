"""What training starts from: its configuration, the store, the networks, and the codes they are shown."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from data.errors import UsageError
from data.files.runs import find_config
from data.latents import LatentStore
from data.prefetch import prefetch
from data.sources.locations import PlaceArg
from data.store.reader import LatentReader
from stage1_autoencoder.default import is_default
from stage1_autoencoder.networks import PIXELS, Autoencoder, is_built_in
from stage1_autoencoder.training.clock import StepClock
from stage1_autoencoder.training.config import Precision, Tracker
from stage1_autoencoder.training.precision import fast_precision
from stage1_autoencoder.training.processes import local_share, make_accelerator
from stage2_codegen.codes import CodeScale
from stage2_codegen.flags import MirrorFlags, PrecisionFlag
from stage2_codegen.frozen.context import Context
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS, check_code_shape
from stage2_codegen.variants.contract import VariantConfig, check_config


@dataclass(frozen=True)
class TrainConfig[Model: VariantConfig]:
    """Train a code generator on a latent store.

    Example: codegan train VARIANT --store stores/photos256 --out runs/photos --kimg 200
    """

    store: PlaceArg
    """A store made by `codegan encode`."""
    out: Path
    """Run folder; the same command resumes it."""
    model: Model
    """The variant's own fields."""
    kimg: float = 200.0
    """Length of training, thousands of samples shown to the generator."""
    batch_size: int = 16
    """Samples a step, over all processes."""
    seed: int = 0
    """Decides the initial weights, the order of the samples, their mirroring and all noise."""
    mirror: MirrorFlags = None
    precision: PrecisionFlag = None
    """In bf16, weights and gradient penalties stay fp32. Left out, a new run takes bf16 where the hardware has it."""
    accumulate: int = 1
    """Parts a batch goes through in, to need less memory; batch normalisation then sees one part at a time."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster steps on most GPUs."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """At NaN end with exit code 8, or go back to the last checkpoint with half the learning rates, up to 3 times."""
    tracker: Tracker = "none"
    """Also log to tensorboard, wandb or trackio; files under RUN/tracker."""
    snapshot_kimg: float = 10.0
    """Checkpoint and sample grid every so many thousand samples."""
    score_kimg: float = 0.0
    """Score at a snapshot every so many thousand samples and keep the best weights as well; 0 never does."""
    score_num: int = 2048
    """Images drawn for a score, always from the same seeds, and real ones at most."""
    score_features: Literal["inception", "squeezenet", "offline"] = "inception"
    """Network that sees them, as in `codegan score`; the best has the least kernel distance."""
    feature_weights: Path | None = None
    """Its weights, as in `codegan score`."""
    allow_host: tuple[str, ...] = ()
    """Web servers that the images to score against, and their redirects, may be read from."""
    autoencoder: Path | None = None
    """Run folder of the autoencoder, when it has moved since encoding."""

    @property
    def total_nimg(self) -> int:
        """Samples that whole batches show to the generator until it has seen `kimg`."""
        return math.ceil(self.kimg * 1000 / self.batch_size) * self.batch_size

    @property
    def snapshot_nimg(self) -> int:
        return max(1, round(self.snapshot_kimg * 1000))

    @property
    def score_nimg(self) -> int:
        return max(1, round(self.score_kimg * 1000))


class Setup(NamedTuple):
    """What training works with, before there is a run."""

    config: TrainConfig[VariantConfig]  # with `mirror` and `precision` decided
    store: LatentStore
    context: Context
    step: AdversarialStep
    reader: LatentReader
    share: slice  # this rank's rows of a batch


def _check(config: TrainConfig[VariantConfig]) -> None:
    for name, value in vars(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')} {value}: is not a number", "see `codegan train --help`")
    if config.kimg <= 0 or config.batch_size < 1 or config.snapshot_kimg <= 0 or config.accumulate < 1:
        raise UsageError(
            "--kimg, --batch-size, --snapshot-kimg and --accumulate: must be positive", "see `codegan train --help`"
        )
    if config.score_kimg < 0 or config.score_num < 4:
        raise UsageError("--score-kimg: is negative, or --score-num less than 4", "see `codegan train --help`")
    if config.seed < 0:
        raise UsageError(f"--seed {config.seed}: is negative", "give 0 or more")
    check_config(config.model)


def prepare(name: str, config: TrainConfig[VariantConfig]) -> Setup:
    """Open the store and build the networks, the same on every rank; writes nothing.

    Raises `UsageError` for what cannot be, `InputError` and `CorruptError` for the store or its autoencoder,
    `MismatchError` when these two do not belong together.
    """
    _check(config)
    store = LatentStore.open(config.store)
    check_code_shape(store.code_shape)
    autoencoder = Autoencoder.of_store(store, config.autoencoder)
    precision = _precision(config)
    config = replace(config, mirror=_mirrors(config, store), precision=precision)
    accelerator = make_accelerator(config.tracker, config.out)
    share = local_share(config.batch_size, accelerator, config.accumulate)
    scale, variant = CodeScale.of(store, config.model.standardise), VARIANTS[name]
    frozen = variant.frozen(config.model)
    context = Context(autoencoder, scale, scale.std_of_codes(store), scale.examples(store), frozen)
    context = context.to(accelerator.device)
    step = AdversarialStep(
        variant,
        config.model,
        store.code_shape,
        context,
        accelerator,
        seed=config.seed,
        precision=precision,
        accumulate=config.accumulate,
        compiled=config.compile,
    )
    mirror = autoencoder.mirror if config.mirror else None
    reader = LatentReader(store, config.seed, accelerator.device, mirror=mirror)
    return Setup(config, store, context, step, reader, share)


def _precision(config: TrainConfig[VariantConfig]) -> Precision:
    """As the flag says, else that of the run that goes on, else the fastest of this machine."""
    begun, _ = find_config(config.out)
    recorded: Precision | None = begun.get("precision") if begun else None
    return config.precision or recorded or fast_precision()


def _mirrors(config: TrainConfig[VariantConfig], store: LatentStore) -> bool:
    """Whether latents are mirrored by chance: as the flags say, else where the autoencoder has learnt it.

    A store that holds the mirrored pictures needs none, and a run of a version without these flags goes on without.
    """
    if config.mirror is not None:
        return config.mirror
    begun, _ = find_config(config.out)
    if store.seal.get("flip") or (begun is not None and "mirror" not in begun):
        return False
    recorded, moved_to = store.seal["autoencoder_run"], config.autoencoder
    if is_built_in(moved_to) if moved_to else recorded == PIXELS or is_default(recorded):
        return True
    trained, _ = find_config(moved_to or Path(recorded))
    return bool(trained and trained.get("mirror"))


def codes_between(nimg: int, total: int, setup: Setup, clock: StepClock) -> Iterator[Tensor]:
    """This rank's codes for images `nimg` to `total`, one batch for each critic update, on its device."""
    share, n_critic = setup.share, setup.config.model.n_critic

    def load(start: int) -> Tensor:
        return setup.reader.batch(start + share.start, share.stop - share.start)

    starts = range(nimg * n_critic, total * n_critic, setup.config.batch_size)
    for latents in clock.waiting(prefetch(load, starts, ahead=2, threads=1)):
        yield setup.context.scale.to_codes(latents).contiguous(memory_format=torch.channels_last)
