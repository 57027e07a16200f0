"""Training of the autoencoder: L1 + adversarial loss at 128 px (Liu, Yao, Ren, sections 3.1 and 3.3), on crops.

The discriminator joins after a reconstruction-only warm-up. The weights used for encoding are an EMA.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.advice import Action, Advice, Done
from data.console import scan_progress
from data.errors import DivergedError, InputError, MismatchError, UsageError
from data.files.atomic import write_json
from data.files.checkpoints import load_state, save_state, save_weights
from data.files.runs import defaults
from data.images import ImageSet, fit, open_images, save_png, to_array, to_float, write_skipped
from data.prefetch import prefetch
from data.seeds import HELD_OUT, INITIAL_WEIGHTS, derive_seed
from data.sources.locations import redacted
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.crops import CodeNoise, RandomCrops
from stage1_autoencoder.default import DEFAULT, find_default
from stage1_autoencoder.evaluate import comparison, format_table, reconstruction_table
from stage1_autoencoder.losses import adversarial_loss, discriminator_loss, reconstruction_loss
from stage1_autoencoder.networks import Autoencoder, Discriminator, check_multiple, is_built_in
from stage1_autoencoder.training.precision import autocast
from stage1_autoencoder.training.processes import any_rank, local_share, make_accelerator, scan_share
from stage1_autoencoder.training.run import Run
from stage1_autoencoder.training.updates import FiniteGuard, ema_beta, set_lr, update_ema

# The norm of the autoencoder's gradient is 0.5 most of the time. Without this limit a few steps in a row with several
# times that have sent all latents into saturation, out of which no gradient leads.
MAX_GRADIENT_NORM = 1.0
LOST = 0.25  # mean error above which reconstructions that are also worse than plain grey end the training
BALANCED_ON = 32  # crops on which the initial scales of the latents' channels are measured
EVALUATED_SIZES = (128, 256, 512, 1024)
_PIXELS_INSTEAD = ("encode the pixels themselves instead", Advice(Action.ENCODE_PIXELS))
MAY_CHANGE = ("out", "kimg", "lr_decay_kimg", "snapshot_kimg", "tracker", "threads", "allow_host")


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
    main, device = accelerator.is_main_process, accelerator.device
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
            write_skipped(config.out / "skipped.jsonl", images.skipped)

        # --- networks, the same on every rank, and their state ---
        torch.manual_seed(derive_seed(config.seed, INITIAL_WEIGHTS))
        autoencoder = Autoencoder(config.factor, config.code_channels, config.width)
        crops = RandomCrops(images, train_indices, config.size, config.seed, config.jitter)
        if initial:
            autoencoder.load_state_dict(initial.state_dict())
        else:
            autoencoder.balance(to_float(torch.from_numpy(crops.batch(0, BALANCED_ON))))
        discriminator = Discriminator(config.discriminator_width)
        ema = copy.deepcopy(autoencoder).requires_grad_(False)
        networks: dict[str, nn.Module] = {"autoencoder": autoencoder, "discriminator": discriminator, "ema": ema}
        for network in networks.values():
            network.to(device).to(memory_format=torch.channels_last)
        optimizers = {
            "opt_autoencoder": torch.optim.Adam(autoencoder.parameters(), config.lr, (0.9, 0.999), fused=True),
            "opt_discriminator": torch.optim.Adam(discriminator.parameters(), config.lr / 2, (0.5, 0.999), fused=True),
        }
        guard = FiniteGuard(optimizers.values(), device)
        start = load_state(config.out / "checkpoints", networks, optimizers)
        ae, critic = accelerator.prepare(autoencoder, discriminator)

        shown_indices = held_out[:: max(1, len(held_out) // 8)][:8]
        preview = np.stack([to_array(fit(images.pil(int(i)), config.size)) for i in shown_indices])

        at_divergence = (
            f"start a new run with a lower --lr; --init {config.out} starts from the weights of its last snapshot"
        )

        def save() -> None:
            nimg = run.progress.nimg
            guard.refuse(nimg, at_divergence)
            if main:
                save_state(config.out / "checkpoints", networks, optimizers, run.progress)
                described = {"kind": "autoencoder", "autoencoder": autoencoder.config, "nimg": nimg}
                save_weights(config.out / "weights", {"autoencoder": ema.state_dict()}, described)
                save_png(config.out / "samples" / f"{nimg:09d}.png", comparison(ema, preview))
            accelerator.wait_for_everyone()

        # --- the loop; its clock is images seen ---
        batch, rows = config.batch_size, share.stop - share.start
        total, warmup_nimg = config.total_nimg, config.warmup_kimg * 1000
        side = config.size // config.factor
        noises = CodeNoise((config.code_channels, side, side), config.code_noise, config.seed)
        starts = range(start.nimg + share.start, total, batch)
        batches = prefetch(lambda start: crops.batch(start, rows), starts, 2 * config.threads, config.threads)
        run.start(start)
        for images_u8 in run.clock.waiting(batches):
            nimg = run.progress.nimg
            real = to_float(torch.from_numpy(images_u8).to(device)).contiguous(memory_format=torch.channels_last)
            adversarial = config.adversarial_weight > 0 and nimg >= warmup_nimg
            logs: dict[str, Tensor] = {}
            rise, fall = lr_shares(config, nimg, total)
            set_lr(optimizers["opt_autoencoder"], config.lr * min(rise, fall))
            set_lr(optimizers["opt_discriminator"], config.lr / 2 * fall)
            positions = torch.arange(nimg + share.start, nimg + share.stop, device=device)
            mirrored = positions % 2 == 1 if config.mirror else None
            noise = torch.from_numpy(noises.batch(nimg + share.start, rows)).to(device) if config.code_noise else None

            discriminator.requires_grad_(False)
            with autocast(accelerator, config.precision):
                fake = ae(real, noise, mirrored)
                loss = logs["loss/l1"] = reconstruction_loss(fake.float(), real)
                if adversarial:
                    logs["loss/adversarial"] = adversarial_loss(critic(fake).float())
                    loss = loss + config.adversarial_weight * logs["loss/adversarial"]
            accelerator.backward(loss)
            nn.utils.clip_grad_norm_(autoencoder.parameters(), MAX_GRADIENT_NORM)
            guard.update(optimizers["opt_autoencoder"])

            if adversarial:
                discriminator.requires_grad_(True)
                with autocast(accelerator, config.precision):
                    logits_real, logits_fake = critic(real).float(), critic(fake.detach()).float()
                    logs["loss/discriminator"] = discriminator_loss(logits_real, logits_fake)
                accelerator.backward(logs["loss/discriminator"])
                guard.update(optimizers["opt_discriminator"])

            run.advance()
            nimg = run.progress.nimg
            update_ema(ema, autoencoder, ema_beta(batch, config.ema_halflife_kimg, nimg))
            if run.at_log:
                guard.refuse(nimg, at_divergence)
                values = {name: value.item() for name, value in logs.items()}
                lost = rise == 1 and values["loss/l1"] > max(LOST, real.abs().mean().item())
                if any_rank(accelerator, lost):
                    what = f"{config.out}: its reconstructions became worse than plain grey before image {nimg}"
                    raise DivergedError(what, at_divergence)
                run.log(values, shown=tuple(logs))
            if run.stopping():
                break
            if run.at_snapshot and not run.finished:
                save()
        save()
        run.raise_if_early()

        if main:
            with run.stop.at_once():
                _measure(config, images, held_out, initial, ema)
    encode = Advice(Action.ENCODE, {"data": config.data, "hosts": config.allow_host, "autoencoder": config.out})
    return Done([config.out / "weights", config.out / "reconstructions.json"], encode)


def lr_shares(config: TrainAEConfig, nimg: int, total: int) -> tuple[float, float]:
    """Return two factors of the learning rate at `nimg`: that of the rise at the start, and of the fall at the end."""
    ramp, decay = (max(kimg * 1000, config.batch_size) for kimg in (config.lr_ramp_kimg, config.lr_decay_kimg))
    return min(1.0, (nimg + config.batch_size) / ramp), min(1.0, (total - nimg) / decay)


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
