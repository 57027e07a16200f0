"""Training of a code generator on a latent store; the same loop for every variant.

The trainer owns data, clock, checkpoints, rollbacks and logs, `stage2_codegen.step` what an update needs; neither asks
which variant it trains. The order of the samples and all noise are functions of (seed, images seen), so on a CPU a
resumed run is bit for bit an uninterrupted one.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from data.advice import Action, Advice, Done
from data.console import ProgressReport, warn
from data.files.atomic import lock, read_json, remove_partials
from data.files.checkpoints import BEST, Progress, load_state, save_state, save_weights
from data.files.runs import MetricsLog, defaults, open_run, read_metrics, to_json
from data.images import image_grid, save_png
from data.latents import LatentStore
from stage1_autoencoder.training.clock import LOG_EVERY_STEPS, StepClock, crossed, peak_memory_mb
from stage1_autoencoder.training.processes import any_rank, tracked
from stage1_autoencoder.training.stopping import StopSignal
from stage1_autoencoder.training.updates import diverged
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.frozen.context import Context
from stage2_codegen.health import SAMPLES as HEALTH_SAMPLES
from stage2_codegen.health import HealthCheck
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.moments import SettledAverage
from stage2_codegen.setup import codes_between, prepare
from stage2_codegen.step import AdversarialStep

MAY_CHANGE = (
    *("out", "store", "autoencoder", "kimg", "snapshot_kimg", "compile", "on_nan", "tracker"),
    *("score_kimg", "score_num", "score_features", "feature_weights", "allow_host"),
    *("model.vgg_weights", "model.backbone_weights"),  # where they lie; which they are is compared by checksum
)
MAX_ROLLBACKS = 3
FEW_PICTURES = 16
GRID_SEEDS = range(16)


class Scorer(NamedTuple):
    measure: Callable[[ImageGenerator], dict[str, float]]  # collective; of several distances the first decides
    settings: dict[str, Any]  # all that a score depends on besides the generator; others' are not compared


type MakeScorer = Callable[[TrainConfig[VariantConfig], LatentStore, Accelerator, Mapping[str, str]], Scorer]


def train(name: str, config: TrainConfig[VariantConfig], make_scorer: MakeScorer | None = None) -> Done:
    """Train variant `name` until `kimg`, resuming what is in `out`; writes weights, sample grids and metrics.

    `make_scorer` is asked for the measure that `score_kimg` wants, and told the SHA-256 of the frozen networks by name:
    scores are nothing this stage knows of.
    """
    setup = prepare(name, config)  # what is impossible is refused before there is a folder
    config = setup.config
    store, context, step = setup.store, setup.context, setup.step
    autoencoder, scale = context.autoencoder, context.scale
    accelerator = step.accelerator
    main, device = accelerator.is_main_process, accelerator.device
    score = make_scorer(config, store, accelerator, context.identities) if make_scorer and config.score_kimg else None
    with ExitStack() as stack:
        if main:
            if config.mirror and store.seal.get("flip"):
                warn(f"--mirror: {store.path} holds the mirrored pictures already", "leave it out; it changes little")
            stack.enter_context(lock(config.out))
            described = {"kind": "generator", "variant": name, "store_checksum": store.seal["crc32c"]}
            described["frozen"] = context.identities
            remove_partials(config.out)
            earlier = defaults(TrainConfig) | {"model": defaults(type(config.model)), "frozen": context.identities}
            earlier |= {"mirror": False, "precision": "fp32"}
            open_run(config.out, {**described, **to_json(config)}, MAY_CHANGE, earlier)
        accelerator.wait_for_everyone()

        # --- where it stands ---
        progress = _restore(step, store, config.out)
        saved_at, scored_at = progress.nimg, _last_scored(config.out, progress.nimg)
        accelerator.wait_for_everyone()  # before rank 0 writes what the others read
        settled = SettledAverage(step.G_ema, config.batch_size // config.accumulate)
        previews = ImageGenerator(settled.generator, scale, autoencoder, store.image_size)
        health = _health_check(step, previews, store) if main else None
        log = MetricsLog(config.out, progress.nimg) if main else None
        if health:
            health.remember(read_metrics(config.out))
        if main:
            stack.enter_context(tracked(accelerator))
            _introduce(name, config, store, device)

        def record(values: dict[str, float]) -> None:
            assert log is not None
            log.append(progress.step, progress.nimg, {**values, "ranks": accelerator.num_processes})
            accelerator.log(values, step=progress.nimg)

        def save(may_score: bool = True) -> None:
            nonlocal saved_at, scored_at
            nimg, values = progress.nimg, dict[str, float]()
            settled.refresh()
            if health and nimg > saved_at:  # before the state, so that a resumed run has the row or makes it
                record(health().to_metrics())
            if main and nimg > saved_at:
                save_state(config.out / "checkpoints", step.networks, step.optimizers, progress)
            if score and may_score and _is_due(config, nimg, scored_at):  # after the state: it takes long
                with stop.at_once():
                    values, scored_at = score.measure(previews), nimg
            if main:
                scored = {"scores": values, "score_settings": score.settings if score and values else None}
                described = _describe(name, config, store, context, nimg) | scored
                weights = {"generator": previews.generator.state_dict(), "autoencoder": autoencoder.state_dict()}
                save_weights(config.out / "weights", weights, described, _is_best(config.out, described))
                save_png(config.out / "samples" / f"{nimg:09d}.png", image_grid(previews(GRID_SEEDS)))
                if values:
                    record({f"eval/{key}": value for key, value in values.items()})
            saved_at = nimg
            accelerator.wait_for_everyone()

        # --- the loop; its clock is samples shown to the generator ---
        batch, total = config.batch_size, config.total_nimg
        stop, leave = stack.enter_context(StopSignal()), False
        report = stack.enter_context(ProgressReport(f"train {name}", total, "img", main))
        clock = StepClock()
        reals = codes_between(progress.nimg, total, setup, clock)
        while progress.nimg < total:
            with stop.at_once(when=progress.nimg == saved_at):  # the first step may compile for minutes
                step(reals, progress.nimg)
            nimg, number = progress.nimg + batch, progress.step + 1
            progress = progress._replace(nimg=nimg, step=number)
            at_log = number % LOG_EVERY_STEPS == 0 or nimg >= total
            at_snapshot = crossed(nimg, batch, config.snapshot_nimg)
            leave = any_rank(accelerator, stop.received is not None)
            if (at_log or at_snapshot or leave) and any_rank(accelerator, step.guard.found()):
                progress = _roll_back(step, store, config, progress)
                saved_at, scored_at = progress.nimg, min(scored_at, progress.nimg)
                clock = StepClock()
                reals = codes_between(progress.nimg, total, setup, clock)
                if log and health:
                    log = MetricsLog(config.out, progress.nimg, log.wall_sec())
                    health.remember(read_metrics(config.out))
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
        save(may_score=not leave or progress.nimg >= total)
        stop.raise_if_early(config.out, progress.nimg, total)
    return Done([config.out / "weights", config.out / "samples"], Advice(Action.SAMPLE, {"run": config.out}))


def _introduce(name: str, config: TrainConfig[VariantConfig], store: LatentStore, device: torch.device) -> None:
    """Say what is trained on what, with the flags that decide it, and warn where too few pictures are to come of it."""
    where = "1 thread" if (threads := torch.get_num_threads()) == 1 else f"{threads} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    channels, side, _ = store.code_shape
    print(f"{name} on {len(store)} pictures of {store.image_size} px, codes {channels} x {side} x {side}, with {where}")
    choices = {
        "--batch-size": config.batch_size,
        "--precision": config.precision,
        "--mirror": "on" if config.mirror else "off",
        "--kimg": f"{config.kimg:g}",
        "--snapshot-kimg": f"{config.snapshot_kimg:g}",
    }
    print("  " + "  ".join(f"{flag} {value}" for flag, value in choices.items()), flush=True)
    if len(store) < FEW_PICTURES:
        warn(f"{store.path}: {len(store)} pictures are so few that they will be memorised", "add more pictures")


def start_anew(step: AdversarialStep, store: LatentStore) -> None:
    """Put into the step what a run starts from."""
    step.restart()
    step.variant.condition(step.G, store, step.model)
    step.G_ema.load_state_dict(step.G.state_dict())


def _restore(step: AdversarialStep, store: LatentStore, out: Path) -> Progress:
    """Put the newest checkpoint of a run into the step, or what a run starts from."""
    progress = load_state(out / "checkpoints", step.networks, step.optimizers)
    if progress.nimg == 0:
        start_anew(step, store)
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
        fix = "begin a new run with lower --model.lr and --model.critic-lr"
        if config.on_nan == "stop":
            fix = f"add --on-nan rollback to the same command, which then halves the learning rates, or {fix}"
        raise diverged(diverged_at.nimg, fix)
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


def _last_scored(out: Path, nimg: int) -> int:
    """Where the last score was made of those that a run at `nimg` still has; 0 without any."""
    rows = read_metrics(out, tolerate_cut=True)
    return max((row["nimg"] for row in rows if row["nimg"] <= nimg and any("eval/" in key for key in row)), default=0)


def _is_due(config: TrainConfig[VariantConfig], nimg: int, scored_at: int) -> bool:
    """Whether a score should be made at `nimg`: a multiple of its interval was passed, or training ends."""
    return crossed(nimg, nimg - scored_at, config.score_nimg) or nimg >= config.total_nimg > scored_at


def _is_best(out: Path, described: dict[str, Any]) -> bool:
    """Whether the first of these scores is less than that of the best weights so far, or those cannot be compared."""
    if not described["scores"]:
        return False
    file = out / "weights" / BEST / "config.json"
    best = read_json(file) if file.is_file() else {}
    name, value = next(iter(described["scores"].items()))
    return best.get("score_settings") != described["score_settings"] or value < best["scores"][name]


def _health_check(step: AdversarialStep, previews: ImageGenerator, store: LatentStore) -> HealthCheck:
    latents = torch.from_numpy(store.read_spaced(HEALTH_SAMPLES))
    real = previews.scale.to_codes(latents.to(step.accelerator.device)).contiguous(memory_format=torch.channels_last)
    return HealthCheck(previews, step.critic, previews.noise(range(HEALTH_SAMPLES)), real)


def _describe(
    name: str, config: TrainConfig[VariantConfig], store: LatentStore, context: Context, nimg: int
) -> dict[str, Any]:
    """Everything besides the weights that sampling needs, and what the store was made of and how."""
    return {
        "kind": "generator",
        "variant": name,
        "model": to_json(config.model),
        "code_shape": list(store.code_shape),
        "scale": context.scale.to_json(),
        "frozen": context.identities,
        "image_size": store.image_size,
        "autoencoder": store.seal["autoencoder"],
        "autoencoder_fingerprint": store.fingerprint,
        "autoencoder_run": store.seal["autoencoder_run"],
        "store": str(config.store.resolve()),
        "data": store.seal["data"],
        "dtype": store.seal["dtype"],
        "flip": bool(store.seal.get("flip")),
        "mirror": config.mirror,
        "nimg": nimg,
    }
