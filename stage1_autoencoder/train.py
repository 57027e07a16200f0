"""Training of the autoencoder: L1 + adversarial loss at 128 px (Liu, Yao, Ren, sections 3.1 and 3.3), on crops.

The discriminator joins after a reconstruction-only warm-up. The weights used for encoding are an EMA.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.advice import Action, Advice, Done
from data.console import scan_progress
from data.errors import DivergedError, InputError, MismatchError, UsageError
from data.files.atomic import write_json
from data.files.checkpoints import described_weights, load_state, save_state, save_weights
from data.files.runs import defaults
from data.images import ImageSet, fit, open_images, save_png, to_array, to_float, write_skipped
from data.prefetch import prefetch
from data.seeds import HELD_OUT, derive_seed
from data.sources.locations import redacted
from data.suitability import facts_for_encoding, warn_of_drawn
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.crops import RandomCrops
from stage1_autoencoder.default import DEFAULT, find_default
from stage1_autoencoder.evaluate import comparison, format_table, reconstruction_table
from stage1_autoencoder.networks import Autoencoder, check_multiple, is_built_in
from stage1_autoencoder.step import AutoencoderStep, lr_shares
from stage1_autoencoder.training.processes import any_rank, local_share, make_accelerator, scan_share
from stage1_autoencoder.training.run import Run

SMALLEST_CODES = 16  # side of the codes that generators take
LOST = 0.25  # mean error above which reconstructions that are also worse than plain grey end the training
EVALUATED_SIZES = (128, 256, 512, 1024)
_PIXELS_INSTEAD = ("encode the pixels themselves instead", Advice(Action.ENCODE_PIXELS))
MAY_CHANGE = ("out", "kimg", "lr_decay_kimg", "snapshot_kimg", "snapshot_minutes", "tracker", "threads", "allow_host")


def split(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices to train on and those held out: one image in twenty, at least one and at most 256.

    Raises `InputError` for fewer than two images.
    """
    if count < 2:
        raise InputError("the data set has fewer than 2 images", "give at least 2; 100 or more for a useful result")
    order = np.random.default_rng(derive_seed(seed, count, HELD_OUT)).permutation(count)
    held_out = min(max(count // 20, 1), 256)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _refuse_impossible(config: TrainAEConfig) -> None:
    """Raise `UsageError` for networks that are impossible, before there is a folder."""
    if config.factor == 1:
        raise UsageError("--factor 1: there is nothing to train", *_PIXELS_INSTEAD)
    Autoencoder(config.factor, config.code_channels, config.width)
    check_multiple((config.size,), config.factor)


def _load_initial(config: TrainAEConfig) -> Autoencoder | None:
    """Load the autoencoder to fine-tune; raises what `Autoencoder.load` raises, `MismatchError` for another form."""
    if config.init is None:
        return None
    initial = Autoencoder.load(config.init)
    if initial.borrowed is not None:
        raise UsageError(f"--init {config.init}: can only be used as it is", "give it to encode, or train another one")
    if initial.factor == 1:
        raise UsageError(f"--init {config.init}: there is nothing to train", *_PIXELS_INSTEAD)
    if initial.factor != config.factor and is_built_in(config.init):
        find_default(f"{DEFAULT}:{config.factor}")  # raises the better error where this was meant and does not exist
    if initial.config != {name: getattr(config, name) for name in initial.config}:
        form = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in initial.config.items())
        raise MismatchError(f"--init {config.init}: does not have the form of these flags", f"give {form}")
    return initial


def train(config: TrainAEConfig) -> Done:
    """Train until `kimg`, resuming the run in `out`; writes weights, previews, metrics and reconstructions.json.

    Raises `UsageError` and `MismatchError` for flags that do not fit together, `DivergedError` when training diverges,
    `KeyboardInterrupt` and `Preempted` when it was stopped, and whatever `open_images` and `open_run` raise.
    """
    _refuse_impossible(config)
    initial = _load_initial(config)
    accelerator = make_accelerator(config.tracker, config.out)
    share = local_share(config.batch_size, accelerator)
    main = accelerator.is_main_process
    with Run(config, accelerator, "train-ae") as run:
        run.lock()  # first: reading through the data takes long
        images = open_images(
            config.data,
            max_skip=config.max_skip,
            on_progress=scan_progress(main),
            allow_hosts=config.allow_host,
            share=scan_share(accelerator),
        )
        train_indices, held_out = split(len(images), config.seed)

        run.open(_identity(config, images), MAY_CHANGE, defaults(TrainAEConfig))
        if main:
            warn_of_drawn(config.data)
            write_skipped(config.out / "skipped.jsonl", images.skipped)

        crops = RandomCrops(images, train_indices, config.size, config.seed, config.jitter)
        step = AutoencoderStep(config, crops, initial, accelerator, share)
        start = load_state(config.out / "checkpoints", step.networks, step.optimizers)
        snapshots = _Snapshots(run, step, images, held_out, saved_nimg=start.nimg)
        run.start(start)
        _introduce(config, run, step, len(train_indices), len(held_out))
        snapshots.complete()

        # --- the loop; its clock is images seen ---
        starts = range(start.nimg + share.start, config.total_nimg, config.batch_size)
        rows = share.stop - share.start
        batches = prefetch(lambda start: crops.batch(start, rows), starts, 2 * config.threads, config.threads)
        for images_u8 in run.clock.waiting(batches):
            shown = torch.from_numpy(images_u8)
            logs = step(shown, run.progress.nimg)
            run.advance()
            if run.at_log:
                step.guard.refuse(run.progress.nimg, snapshots.at_divergence)
                values = {name: value.item() for name, value in logs.items()}
                if any_rank(accelerator, _is_lost(config, values["loss/l1"], shown, run.progress.nimg)):
                    what = f"{config.out}: its reconstructions became worse than plain grey"
                    raise DivergedError(f"{what} before image {run.progress.nimg}", snapshots.at_divergence)
                run.log(values, shown=tuple(logs))
            stopping = run.stopping()
            if run.finished or (run.at_snapshot and not stopping):
                snapshots.save()
            elif stopping or run.save_is_due():
                snapshots.save(whole=False)
            if stopping:
                break
        run.raise_if_early()

        if main:
            with run.stop.at_once():
                _measure(config, images, held_out, initial, step.ema)
    facts = {"data": config.data, "hosts": config.allow_host, "autoencoder": config.out}
    facts |= facts_for_encoding(images, smallest=SMALLEST_CODES * config.factor)
    return Done([config.out / "weights", config.out / "reconstructions.json"], Advice(Action.ENCODE, facts))


def _introduce(config: TrainAEConfig, run: Run, step: AutoencoderStep, trained: int, held_out: int) -> None:
    """Print what is trained on what, with the flags that decide most."""
    flags = {
        "--batch-size": config.batch_size,
        "--precision": config.precision,
        "--lr": f"{config.lr:g}",
        "--kimg": f"{config.kimg:g}",
        "--snapshot-kimg": f"{config.snapshot_kimg:g}",
    }
    subject = f"autoencoder on {trained} pictures and {held_out} held out, crops of {config.size} px"
    run.introduce(subject, {"autoencoder": step.autoencoder, "discriminator": step.discriminator}, flags)


class _Snapshots:
    """Saves a run: its state, the averaged weights, and a preview of held-out images."""

    def __init__(
        self, run: Run, step: AutoencoderStep, images: ImageSet, held_out: NDArray[np.int64], saved_nimg: int
    ) -> None:
        """Take the run and what it saves; `saved_nimg` is the progress of the checkpoint from which it continues."""
        self._run, self._step, self._saved_nimg = run, step, saved_nimg
        shown = held_out[:: max(1, len(held_out) // 8)][:8]
        self._preview = np.stack([to_array(fit(images.pil(int(i)), step.config.size)) for i in shown])
        again = f"--init {step.config.out} starts from the weights of its last snapshot"
        self.at_divergence = f"start a new run with a lower --lr; {again}"

    def complete(self) -> None:
        """Make what the newest checkpoint lacks, because the run was stopped before it was made."""
        if self._saved_nimg:
            self.save(whole=self._run.at_snapshot)

    def save(self, whole: bool = True) -> None:
        """Save the state and the weights and, for a `whole` snapshot, a preview, as far as they are not there already.

        All processes call this, and it raises `DivergedError` after a bad gradient.
        """
        run, step = self._run, self._step
        out, nimg = step.config.out, run.progress.nimg
        step.guard.refuse(nimg, self.at_divergence)
        if run.main:
            if nimg > self._saved_nimg:
                save_state(out / "checkpoints", step.networks, step.optimizers, run.progress, run.has_snapshot)
            if described_weights(out / "weights").get("nimg") != nimg:
                described = {"kind": "autoencoder", "autoencoder": step.autoencoder.config, "nimg": nimg}
                save_weights(out / "weights", {"autoencoder": step.ema.state_dict()}, described)
            preview = out / "samples" / f"{nimg:09d}.png"
            if whole and not preview.is_file():
                save_png(preview, comparison(step.ema, self._preview))
        self._saved_nimg = nimg
        run.accelerator.wait_for_everyone()
        run.saved()


def _is_lost(config: TrainAEConfig, loss: float, images_u8: Tensor, nimg: int) -> bool:
    """Whether reconstructions are worse than plain grey, `nimg` images into training; they are at first."""
    rise, _ = lr_shares(config, nimg - config.batch_size)
    return rise == 1 and loss > max(LOST, to_float(images_u8).abs().mean().item())


def _identity(config: TrainAEConfig, images: ImageSet) -> dict[str, Any]:
    """What a resumed run must agree with besides its configuration."""
    # With other images it would train on some that were held out before.
    data = list(map(redacted, config.data))  # without signatures, which may be renewed
    return {"kind": "autoencoder", "data": data, "data_fingerprint": images.fingerprint}


def _measure(
    config: TrainAEConfig,
    images: ImageSet,
    held_out: NDArray[np.int64],
    initial: Autoencoder | None,
    ema: Autoencoder,
) -> None:
    measured = {"data": images.name, "held_out": len(held_out)}
    for name, autoencoder in (("rows_before", initial), ("rows", ema)):
        if autoencoder:
            sizes = sorted({config.size, *EVALUATED_SIZES})
            rows = reconstruction_table(autoencoder.to(ema.device), images, sizes, held_out.tolist())
            measured[name] = rows
            what = "reconstruction" if autoencoder is ema else f"before, by {config.init}: reconstruction"
            print(f"{what} of {len(held_out)} held-out images\n{format_table(rows)}")
    write_json(config.out / "reconstructions.json", measured)
