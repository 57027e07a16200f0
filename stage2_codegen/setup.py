"""The set-up of a training: the store, the networks, and the codes that they are shown."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from data.classes import Classes
from data.errors import UsageError
from data.files.runs import find_config
from data.latents import LatentStore
from data.prefetch import prefetch
from data.store.reader import LatentReader
from stage1_autoencoder.default import is_default
from stage1_autoencoder.networks import PIXELS, Autoencoder, is_built_in
from stage1_autoencoder.training.clock import StepClock
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.precision import fast_precision
from stage1_autoencoder.training.processes import local_share, make_accelerator
from stage2_codegen.codes import CodeScale
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.frozen.context import Context
from stage2_codegen.step import AdversarialStep
from stage2_codegen.transfer import Initial
from stage2_codegen.variants import VARIANTS, check_code_shape
from stage2_codegen.variants.contract import Batch


class Setup(NamedTuple):
    """Everything that training works with, before there is a run."""

    config: TrainConfig[VariantConfig]  # with `mirror`, `precision` and the number of classes decided
    store: LatentStore
    context: Context
    step: AdversarialStep
    reader: LatentReader
    classes: Classes | None  # of the store, in conditional training
    initial: Initial | None  # weights of another run to start from
    share: slice  # this rank's rows of a batch


def prepare(name: str, config: TrainConfig[VariantConfig]) -> Setup:
    """Open the store and build the networks, the same on every rank, without writing anything.

    Raises `UsageError` for flags that do not fit together or do not suit the store, `InputError` and `CorruptError` for
    the store or its autoencoder, and `MismatchError` when these two do not belong together.
    """
    if config.freeze_critic and not config.init:
        raise UsageError("--freeze-critic: would freeze layers that have learnt nothing", "add --init RUN")
    begins = not any((config.out / "checkpoints").glob("[0-9]*"))
    initial = Initial.of(config.init, name) if config.init and begins else None
    store = LatentStore.open(config.store)
    check_code_shape(name, store.code_shape)
    config.model.check_pictures(len(store))
    autoencoder = Autoencoder.of_store(store, config.autoencoder)
    precision = _precision(config)
    classes = _classes(name, config, store)
    model = replace(config.model, classes=len(classes.names) if classes else 0)
    config = replace(config, mirror=_mirrors(config, store), precision=precision, model=model)
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
        frozen_layers=config.freeze_critic,
    )
    mirror = autoencoder.mirror if config.mirror else None
    balanced = classes.of_row if classes and config.balance else None
    reader = LatentReader(store, config.seed, accelerator.device, mirror=mirror, balanced=balanced)
    return Setup(config, store, context, step, reader, classes, initial, share)


def _classes(name: str, config: TrainConfig[VariantConfig], store: LatentStore) -> Classes | None:
    """The classes of the store, for conditional training."""
    if not config.conditional:
        if config.balance:
            raise UsageError("--balance: needs classes", "add --conditional")
        return None
    if not config.model.takes_classes:
        raise UsageError(f"{name}: cannot be trained on classes", "leave out --conditional, or choose another variant")
    return Classes.of(store)


def _precision(config: TrainConfig[VariantConfig]) -> Precision:
    """The flag's precision; without a flag that of the run to resume, or else the fastest of this machine."""
    earlier, _ = find_config(config.out)
    recorded: Precision | None = earlier.get("precision") if earlier else None
    return config.precision or recorded or fast_precision()


def _mirrors(config: TrainConfig[VariantConfig], store: LatentStore) -> bool:
    """Whether half of the latents are mirrored: as the flags say, or else if the autoencoder has learnt to mirror."""
    if not config.model.mirrors:
        if config.mirror:
            raise UsageError("--mirror: this variant shows no mirrored pictures", "leave it out")
        return False
    if config.mirror is not None:
        return config.mirror
    # A store that holds the mirrored pictures needs no mirrors, and a run of a version without these flags had none.
    earlier, _ = find_config(config.out)
    if store.seal.get("flip") or (earlier is not None and "mirror" not in earlier):
        return False
    recorded, moved_to = store.seal["autoencoder_run"], config.autoencoder
    if is_built_in(moved_to) if moved_to else recorded == PIXELS or is_default(recorded):
        return True
    trained, _ = find_config(moved_to or Path(recorded))
    return bool(trained and trained.get("mirror"))


def codes_between(nimg: int, total: int, setup: Setup, clock: StepClock) -> Iterator[Batch]:
    """Read this rank's codes for images `nimg` to `total`, one batch for each critic update, on its device."""
    share, n_critic, classes = setup.share, setup.config.model.n_critic, setup.classes

    def load(start: int) -> Batch:
        first, count = start + share.start, share.stop - share.start
        latents = setup.reader.batch(first, count)
        if classes is None:
            return Batch(latents)
        rows = setup.reader.rows(first, count)
        return Batch(latents, torch.from_numpy(classes.of_row[rows]).to(latents.device, non_blocking=True))

    starts = range(nimg * n_critic, total * n_critic, setup.config.batch_size)
    for batch in clock.waiting(prefetch(load, starts, ahead=2, threads=1)):
        codes = setup.context.scale.to_codes(batch.codes).contiguous(memory_format=torch.channels_last)
        yield batch._replace(codes=codes)
