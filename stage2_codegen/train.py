"""The training of a code generator on a latent store, with the same loop for every variant.

The trainer owns data, clock, checkpoints, rollbacks and logs, and `stage2_codegen.step` everything that an update
needs; neither asks which variant it trains. The order of the samples and all noise are functions of (seed, images
seen), so on a CPU a resumed run is bit for bit the same as an uninterrupted one.
"""

from typing import Any

import torch

from data.advice import Action, Advice, Done
from data.console import warn
from data.files.checkpoints import Progress, load_state, save_state
from data.files.runs import defaults
from data.sizes import size_text
from stage1_autoencoder.training.processes import any_rank
from stage1_autoencoder.training.run import Run
from stage1_autoencoder.training.updates import diverged
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.setup import Setup, codes_between, prepare
from stage2_codegen.snapshots import MakeScorer, Snapshots
from stage2_codegen.transfer import listed
from stage2_codegen.variants.conditional import ConditionalGenerator

MAY_CHANGE = (
    *("out", "store", "autoencoder", "kimg", "snapshot_kimg", "snapshot_minutes", "compile", "on_nan", "tracker"),
    *("score_kimg", "score_num", "score_features", "feature_weights", "allow_host"),
    *("model.vgg_weights", "model.backbone_weights"),  # locations only: the weights are compared by checksum
)
MAX_ROLLBACKS = 3


def train(name: str, config: TrainConfig[VariantConfig], make_scorer: MakeScorer | None = None) -> Done:
    """Train variant `name` until `kimg`, resuming the run in `out`; writes weights, sample grids and metrics.

    `make_scorer` makes the measure for `score_kimg`, since this stage knows no scores; its last argument are the
    SHA-256 of the frozen networks by name. Raises what `prepare` and `Run.open` raise, `DivergedError` when training
    diverges, and `KeyboardInterrupt` or `Preempted` when it was stopped.
    """
    setup = prepare(name, config)  # raises errors before there is a folder
    config = setup.config
    store, context, step = setup.store, setup.context, setup.step
    accelerator = step.accelerator
    scorer = make_scorer(config, store, accelerator, context.identities) if make_scorer and config.score_kimg else None
    with Run(config, accelerator, f"train {name}") as run:
        if run.main and config.mirror and store.seal.get("flip"):
            warn(f"--mirror: {store.path} holds the mirrored pictures already", "leave it out; it changes little")
        run.lock()
        run.open(_identity(name, setup), _may_change(config.model), _earlier(setup))

        # --- where it stands ---
        start = _restore(setup)
        snapshots = Snapshots(name, setup, run, scorer, saved_nimg=start.nimg)
        accelerator.wait_for_everyone()  # before rank 0 writes what the others have read
        run.start(start)
        snapshots.remember()
        _introduce(name, setup, run)
        snapshots.complete()

        # --- the loop; its clock is samples shown to the generator ---
        reals = codes_between(start.nimg, config.total_nimg, setup, run.clock)
        while not run.finished:
            nothing_new = run.progress.nimg == snapshots.saved_nimg
            with run.stop.at_once(when=nothing_new):  # the first step may compile for minutes
                step(reals, run.progress.nimg)
            run.advance()
            stopping = run.stopping()
            saving = run.at_snapshot or stopping or run.save_is_due()
            if (run.at_log or saving) and any_rank(accelerator, step.guard.found()):
                run.go_back(_roll_back(setup, run.progress))
                snapshots.go_back()
                reals = codes_between(run.progress.nimg, config.total_nimg, setup, run.clock)
                run.record({"rollbacks": run.progress.rollbacks})
                continue
            if run.main and run.at_log:
                values = dict(zip(step.logs, torch.stack(list(step.logs.values())).tolist(), strict=True))
                run.log(values, shown=("loss/critic", "loss/g"))
            if run.finished or (run.at_snapshot and not stopping):
                snapshots.save()
            elif saving:
                snapshots.save(whole=False)
            if stopping:
                break
        run.raise_if_early()
    return Done([config.out / "weights", config.out / "samples"], Advice(Action.SAMPLE, {"run": config.out}))


def _identity(name: str, setup: Setup) -> dict[str, Any]:
    """What a resumed run must agree with besides its configuration."""
    checksum, frozen = setup.store.seal["crc32c"], setup.context.identities
    return {"kind": "generator", "variant": name, "store_checksum": checksum, "frozen": frozen}


def _may_change(model: VariantConfig) -> tuple[str, ...]:
    """Fields in which a resumed run may differ, including those that only earlier versions recorded."""
    ignored = () if model.mirrors else ("mirror",)
    return (*MAY_CHANGE, *ignored, *(f"model.{name}" for name in model.retired()))


def _earlier(setup: Setup) -> dict[str, Any]:
    """The values with which earlier versions trained, where they did not record a field."""
    model = defaults(type(setup.config.model))
    return {
        **defaults(TrainConfig),
        "model": model,
        "frozen": setup.context.identities,
        "mirror": False,
        "precision": "fp32",
    }


def _introduce(name: str, setup: Setup, run: Run) -> None:
    """Print what is trained on what, with the flags that decide most, and warn about too few pictures."""
    config, store = setup.config, setup.store
    shape = " x ".join(map(str, store.code_shape))
    flags = {
        "--batch-size": config.batch_size,
        "--precision": config.precision,
        **({"--mirror": "on" if config.mirror else "off"} if config.model.mirrors else {}),
        "--kimg": f"{config.kimg:g}",
        "--snapshot-kimg": f"{config.snapshot_kimg:g}",
    }
    subject = f"{name} on {len(store)} pictures of {size_text(store.image_size)} px, codes {shape}"
    run.introduce(subject, {"generator": setup.step.G, "critic": setup.step.critic}, flags)
    if run.main and len(store) < config.model.few_pictures:
        count = "1 picture" if len(store) == 1 else f"{len(store)} pictures"
        warn(f"{store.path}: has only {count}, which will be memorised", "add more pictures")


def start_anew(setup: Setup) -> list[str]:
    """Put initial weights into the step; return the names of weights that the run of --init does not provide."""
    step, store, new = setup.step, setup.store, list[str]()
    step.restart()
    if setup.initial:
        new = setup.initial.put(step.networks)
    for generator in (step.G, step.G_ema):
        step.variant.condition(generator.unconditional, store, step.model)
        if isinstance(generator, ConditionalGenerator) and setup.classes:
            generator.set_frequencies(setup.classes.frequencies)
    return new


def _restore(setup: Setup) -> Progress:
    """Put the newest checkpoint of a run into the step, or initial weights where there is none."""
    step = setup.step
    progress = load_state(setup.config.out / "checkpoints", step.networks, step.optimizers)
    if progress.nimg == 0:
        new = start_anew(setup)
        if new and step.accelerator.is_main_process:
            warn(f"{setup.config.init}: gives no weights for {listed(new)}", "nothing; these start from random values")
    step.lr_factor = 0.5**progress.rollbacks
    return progress


def _roll_back(setup: Setup, diverged_at: Progress) -> Progress:
    """Go back to the newest checkpoint on all ranks, with half the learning rates; `DivergedError` if it may not."""
    config, step, rollbacks = setup.config, setup.step, diverged_at.rollbacks + 1
    if config.on_nan == "stop" or rollbacks > MAX_ROLLBACKS:
        fix = "start a new run with lower --model.lr and --model.critic-lr"
        if config.on_nan == "stop":
            fix = f"add --on-nan rollback to the same command, which then halves the learning rates, or {fix}"
        raise diverged(diverged_at.nimg, fix)
    progress = _restore(setup)._replace(rollbacks=rollbacks)
    step.lr_factor = 0.5**rollbacks
    step.guard.reset()
    step.accelerator.wait_for_everyone()
    if step.accelerator.is_main_process:
        warn(
            f"NaN or infinity before image {diverged_at.nimg}; back to image {progress.nimg} with half the learning "
            f"rates ({rollbacks} of at most {MAX_ROLLBACKS} times)",
            "nothing; if it happens again, start a new run with lower --model.lr and --model.critic-lr",
        )
        # Saved at once with the count of rollbacks, so that a run that is killed does not start counting again.
        save_state(config.out / "checkpoints", step.networks, step.optimizers, progress)
    step.accelerator.wait_for_everyone()
    return progress
