"""Training of a code generator on a latent store; the same loop for every variant.

The trainer owns data, clock, checkpoints, rollbacks and logs, `stage2_codegen.step` what an update needs; neither asks
which variant it trains. The order of the samples and all noise are functions of (seed, images seen), so on a CPU a
resumed run is bit for bit an uninterrupted one.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.checkpoints import Progress, load_state, save_state, save_weights
from data.console import ProgressReport, finish, warn
from data.errors import MismatchError, UsageError
from data.images import image_grid, save_png
from data.latents import LatentStore
from data.places import PlaceArg
from data.prefetch import prefetch
from data.reader import LatentReader
from data.runs import MetricsLog, open_run, to_json
from data.storage import lock
from stage1_autoencoder.loop import (
    LOG_EVERY_STEPS,
    Precision,
    StepClock,
    StopSignal,
    Tracker,
    any_rank,
    crossed,
    diverged,
    local_share,
    make_accelerator,
    peak_memory_mb,
    tracked,
)
from stage1_autoencoder.networks import PIXELS, Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.health import SAMPLES as HEALTH_SAMPLES
from stage2_codegen.health import HealthCheck
from stage2_codegen.images import ImageGenerator
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS, check_code_shape
from stage2_codegen.variants.contract import VariantConfig, check_config

MAY_CHANGE = ("out", "store", "autoencoder", "kimg", "snapshot_kimg", "compile", "on_nan", "tracker")
MAX_ROLLBACKS = 3
_GRID_SEEDS = range(16)


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
    """Decides the initial weights, the order of the samples and all noise."""
    precision: Precision = "fp32"
    """bf16 is faster where the hardware has it; weights and gradient penalties stay fp32."""
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
    autoencoder: Path | None = None
    """Run folder of the autoencoder, when it has moved since encoding."""


def _load_autoencoder(store: LatentStore, moved_to: Path | None) -> Autoencoder:
    """The autoencoder whose latents these are; another one would decode them to noise."""
    run = moved_to or store.metadata["autoencoder_run"]
    # a store records an absolute path or that word, which then is no folder of the place where one trains
    autoencoder = Autoencoder.of_pixels() if run == PIXELS else Autoencoder.load(run)
    if autoencoder.fingerprint != store.fingerprint:
        raise MismatchError(
            f"{store.path}: was encoded by another autoencoder than {run}",
            "give the right one with --autoencoder, or encode again",
        )
    return autoencoder


def _check(config: TrainConfig[VariantConfig]) -> None:
    if config.kimg <= 0 or config.batch_size < 1 or config.snapshot_kimg <= 0 or config.accumulate < 1:
        raise UsageError(
            "--kimg, --batch-size, --snapshot-kimg and --accumulate: must be positive", "see `codegan train --help`"
        )
    if config.seed < 0:
        raise UsageError(f"--seed {config.seed}: is negative", "give 0 or more")
    check_config(config.model)


def train(name: str, config: TrainConfig[VariantConfig]) -> None:
    """Train variant `name` until `kimg`, resuming what is in `out`; writes weights, sample grids and metrics."""
    _check(config)
    variant, model = VARIANTS[name], config.model
    store = LatentStore.open(config.store)
    check_code_shape(store.code_shape)
    autoencoder = _load_autoencoder(store, config.autoencoder)
    accelerator = make_accelerator(config.tracker, config.out)
    share = local_share(config.batch_size, accelerator, config.accumulate)
    main, device = accelerator.is_main_process, accelerator.device
    scale = CodeScale.of(store, model.standardise)

    # --- networks and loss, the same on every rank; impossible ones are refused before there is a folder ---
    step = AdversarialStep(
        variant,
        model,
        store.code_shape,
        scale.std_of_codes(store),
        accelerator,
        seed=config.seed,
        precision=config.precision,
        accumulate=config.accumulate,
        compiled=config.compile,
    )
    with ExitStack() as stack:
        if main:
            stack.enter_context(lock(config.out))
            described = {"kind": "generator", "variant": name, "store_checksum": store.metadata["crc32c"]}
            open_run(config.out, {**described, **to_json(config)}, MAY_CHANGE)
        accelerator.wait_for_everyone()

        # --- where it stands ---
        progress = _restore(step, store, config.out)
        resumed_at = progress.nimg
        autoencoder.to(device)
        previews = ImageGenerator(step.G_ema, scale, autoencoder, store.image_size)
        health = _health_check(step, previews, store) if main else None
        log = MetricsLog(config.out, progress.nimg) if main else None
        if main:
            stack.enter_context(tracked(accelerator))

        def record(values: dict[str, float]) -> None:
            assert log is not None
            log.append(progress.step, progress.nimg, {**values, "ranks": accelerator.num_processes})
            accelerator.log(values, step=progress.nimg)

        def save() -> None:
            if health and progress.nimg > resumed_at:  # before the state, so that a resumed run has the row or makes it
                record(health().to_metrics())
            if main:
                save_state(config.out / "checkpoints", step.networks, step.optimizers, progress)
                weights = {"generator": step.G_ema.state_dict(), "autoencoder": autoencoder.state_dict()}
                save_weights(config.out / "weights", weights, _describe(name, config, store, scale, progress.nimg))
                save_png(config.out / "samples" / f"{progress.nimg:09d}.png", image_grid(previews(_GRID_SEEDS)))
            accelerator.wait_for_everyone()

        # --- the loop; its clock is samples shown to the generator ---
        batch = config.batch_size
        total = math.ceil(config.kimg * 1000 / batch) * batch
        snapshot_nimg = max(1, round(config.snapshot_kimg * 1000))
        stop = stack.enter_context(StopSignal())
        report = stack.enter_context(ProgressReport(f"train {name}", total, "img", main))
        clock, reader = StepClock(), LatentReader(store, config.seed, device)

        def codes_from(nimg: int) -> Iterator[Tensor]:
            for latents in clock.waiting(_latents(config, reader, nimg, total, share)):
                yield scale.to_codes(latents).contiguous(memory_format=torch.channels_last)

        reals = codes_from(progress.nimg)
        while progress.nimg < total:
            step(reals, progress.nimg)
            nimg, number = progress.nimg + batch, progress.step + 1
            progress = progress._replace(nimg=nimg, step=number)
            at_log = number % LOG_EVERY_STEPS == 0 or nimg >= total
            at_snapshot = crossed(nimg, batch, snapshot_nimg)
            leave = any_rank(accelerator, stop.received is not None)
            if (at_log or at_snapshot or leave) and any_rank(accelerator, step.guard.found()):
                progress = _roll_back(step, store, config, progress)
                clock, reals = StepClock(), codes_from(progress.nimg)
                if main:
                    log = MetricsLog(config.out, progress.nimg)
                    record({"rollbacks": progress.rollbacks})
                continue
            if main and at_log:
                values = dict(zip(step.logs, torch.stack(list(step.logs.values())).tolist(), strict=True))
                values["memory/peak_mb"] = peak_memory_mb(device)
                report.update(nimg, {key: values[key] for key in ("loss/critic", "loss/g", "memory/peak_mb")})
                record(values | clock.read(nimg))
            if leave:
                break
            if nimg < total and at_snapshot:
                save()
        save()
        stop.raise_if_early(config.out, progress.nimg, total)
    if main:
        sample = ["codegan", "sample", "--run", str(config.out), "--out", "samples", "--num", "64"]
        finish([config.out / "weights", config.out / "samples"], sample)


def _restore(step: AdversarialStep, store: LatentStore, out: Path) -> Progress:
    """Put the newest checkpoint of a run into the step, or what a run starts from."""
    progress = load_state(out / "checkpoints", step.networks, step.optimizers)
    if progress.nimg == 0:
        step.restart()
        step.variant.condition(step.G, store, step.model)
        step.G_ema.load_state_dict(step.G.state_dict())
    step.lr_factor = 0.5**progress.rollbacks
    return progress


def _roll_back(
    step: AdversarialStep, store: LatentStore, config: TrainConfig[VariantConfig], diverged_at: Progress
) -> Progress:
    """Back to the newest checkpoint, all ranks alike, with half the learning rates; `DivergedError` if it may not.

    The state is saved at once, with the count of rollbacks in it, so that a run that is killed does not start counting
    anew.
    """
    rollbacks = diverged_at.rollbacks + 1
    if config.on_nan == "stop" or rollbacks > MAX_ROLLBACKS:
        raise diverged(diverged_at.nimg)
    progress = _restore(step, store, config.out)._replace(rollbacks=rollbacks)
    step.lr_factor = 0.5**rollbacks
    step.guard.reset()
    step.accelerator.wait_for_everyone()
    if step.accelerator.is_main_process:
        warn(
            f"NaN or infinity before image {diverged_at.nimg}; back to image {progress.nimg} with half the learning "
            f"rates ({rollbacks} of at most {MAX_ROLLBACKS} times)",
            "nothing; if it comes again, a new run with lower --model.lr and --model.critic-lr",
        )
        save_state(config.out / "checkpoints", step.networks, step.optimizers, progress)
    step.accelerator.wait_for_everyone()
    return progress


def _health_check(step: AdversarialStep, previews: ImageGenerator, store: LatentStore) -> HealthCheck:
    count = min(HEALTH_SAMPLES, len(store))
    latents = torch.from_numpy(store.read([i * len(store) // count for i in range(count)]))
    real = previews.scale.to_codes(latents.to(step.accelerator.device)).contiguous(memory_format=torch.channels_last)
    return HealthCheck(step.G_ema, step.critic, previews.noise(range(HEALTH_SAMPLES)), real)


def _latents(
    config: TrainConfig[VariantConfig], reader: LatentReader, nimg: int, total: int, share: slice
) -> Iterator[Tensor]:
    """This rank's raw latents, one batch for each critic update from image `nimg` on, on its device."""
    batch, n_critic = config.batch_size, config.model.n_critic

    def load(start: int) -> Tensor:
        return reader.batch(start + share.start, share.stop - share.start)

    starts = range(nimg * n_critic, total * n_critic, batch)
    return prefetch(load, starts, ahead=2, threads=1)


def _describe(
    name: str, config: TrainConfig[VariantConfig], store: LatentStore, scale: CodeScale, nimg: int
) -> dict[str, object]:
    """Everything besides the weights that sampling needs."""
    return {
        "kind": "generator",
        "variant": name,
        "model": to_json(config.model),
        "code_shape": list(store.code_shape),
        "scale": scale.to_json(),
        "image_size": store.image_size,
        "autoencoder": store.metadata["autoencoder"],
        "autoencoder_fingerprint": store.fingerprint,
        "autoencoder_run": store.metadata["autoencoder_run"],
        "store": str(config.store.resolve()),
        "data": store.metadata["data"],
        "nimg": nimg,
    }
