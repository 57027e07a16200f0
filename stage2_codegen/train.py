"""Training of a code generator on a latent store; the same loop for every variant.

The trainer owns freezing, n_critic, EMA, precision, processes, checkpoints and logs, and never asks which variant it
trains. The order of the samples and all noise are functions of (seed, images seen), so on a CPU a resumed run is bit
for bit an uninterrupted one.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data.checkpoints import load_state, save_state, save_weights
from data.console import ProgressReport, finish
from data.errors import MismatchError, UsageError
from data.images import image_grid, save_png
from data.latents import LatentReader, LatentStore
from data.prefetch import prefetch
from data.runs import MetricsLog, open_run, to_json
from data.seeds import batch_indices, derive_seed
from data.storage import lock
from stage1_autoencoder.loop import (
    LOG_EVERY_STEPS,
    Precision,
    StepClock,
    StopSignal,
    any_rank,
    autocast,
    check_finite,
    crossed,
    ema_beta,
    local_share,
    make_accelerator,
    set_adam,
    update_ema,
)
from stage1_autoencoder.networks import PIXELS, Autoencoder
from stage2_codegen.augment import augmentation
from stage2_codegen.codes import CodeScale
from stage2_codegen.images import ImageGenerator
from stage2_codegen.noise import normal_rows
from stage2_codegen.variants import VARIANTS, check_code_shape
from stage2_codegen.variants.contract import JudgedBy, VariantConfig, check_config

MAY_CHANGE = ("out", "store", "autoencoder", "kimg", "snapshot_kimg")
_GRID_SEEDS = range(16)


@dataclass(frozen=True)
class TrainConfig[Model: VariantConfig]:
    """Train a code generator on a latent store.

    Example: codegan train VARIANT --store stores/photos256 --out runs/photos --kimg 200
    """

    store: Path
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
    if config.kimg <= 0 or config.batch_size < 1 or config.snapshot_kimg <= 0:
        raise UsageError("--kimg, --batch-size and --snapshot-kimg: must be positive", "see `codegan train --help`")
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
    accelerator = make_accelerator()
    share = local_share(config.batch_size, accelerator)
    main, device = accelerator.is_main_process, accelerator.device
    scale = CodeScale.of(store, model.standardise)

    # --- networks and loss, the same on every rank; impossible ones are refused before there is a folder ---
    torch.manual_seed(derive_seed(config.seed))
    G = variant.Generator(store.code_shape, model)
    critic = variant.Critic(store.code_shape, model)
    now, loss = model, variant.loss(model)
    augment = augmentation(model.augment, scale.std_of_codes(store).to(device))
    with ExitStack() as stack:
        if main:
            stack.enter_context(lock(config.out))
            described = {"kind": "generator", "variant": name, "store_checksum": store.metadata["crc32c"]}
            open_run(config.out, {**described, **to_json(config)}, MAY_CHANGE)
        accelerator.wait_for_everyone()

        # --- the state of the networks ---
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        networks: dict[str, nn.Module] = {"G": G, "critic": critic, "G_ema": G_ema}
        for network in networks.values():
            network.to(device).to(memory_format=torch.channels_last)
        betas = (model.beta1, model.beta2)
        optimizers = {
            "opt_G": torch.optim.Adam(G.parameters(), model.lr, betas, fused=True),
            "opt_critic": torch.optim.Adam(critic.parameters(), model.critic_lr, betas, fused=True),
        }
        nimg, step = load_state(config.out / "checkpoints", networks, optimizers)
        if nimg == 0:
            variant.condition(G, store, model)
            G_ema.load_state_dict(G.state_dict())
        wrapped_G, wrapped_critic = accelerator.prepare(JudgedBy(G), critic)
        autoencoder.to(device)
        previews = ImageGenerator(G_ema, scale, autoencoder, store.image_size)

        def save() -> None:
            if main:
                save_state(config.out / "checkpoints", networks, optimizers, nimg, step)
                weights = {"generator": G_ema.state_dict(), "autoencoder": autoencoder.state_dict()}
                save_weights(config.out / "weights", weights, _describe(name, config, store, scale, nimg))
                save_png(config.out / "samples" / f"{nimg:09d}.png", image_grid(previews(_GRID_SEEDS)))
            accelerator.wait_for_everyone()

        # --- the loop; its clock is samples shown to the generator ---
        batch = config.batch_size
        total = math.ceil(config.kimg * 1000 / batch) * batch
        snapshot_nimg = max(1, round(config.snapshot_kimg * 1000))
        log = MetricsLog(config.out, nimg) if main else None
        stop = stack.enter_context(StopSignal())
        report = stack.enter_context(ProgressReport(f"train {name}", total, "img", main))
        clock = StepClock()
        reals = clock.waiting(_latents(config, LatentReader(store), nimg, total, share, device))
        while nimg < total:
            torch.manual_seed(derive_seed(config.seed, nimg, 1))  # the 1: not the stream of the initial weights
            if (scheduled := variant.schedule(model, nimg / 1000)) != now:
                now, loss = scheduled, variant.loss(scheduled)
            set_adam(optimizers["opt_G"], now.lr, now.beta1, now.beta2)
            set_adam(optimizers["opt_critic"], now.critic_lr, now.beta1, now.beta2)

            critic.requires_grad_(True)
            for _ in range(model.n_critic):
                latents = next(reals).to(device, non_blocking=True)
                real = scale.to_codes(latents).contiguous(memory_format=torch.channels_last)
                with autocast(accelerator, config.precision):
                    with torch.no_grad():
                        fake = wrapped_G(normal_rows(len(real), G.z_dim, device=device))
                    critic_loss, critic_logs = loss.critic_loss(wrapped_critic, augment(real), augment(fake))
                accelerator.backward(critic_loss)
                check_finite(critic, "the critic's gradient", nimg)
                optimizers["opt_critic"].step()
                optimizers["opt_critic"].zero_grad()

            critic.requires_grad_(False)
            with autocast(accelerator, config.precision):
                fake = wrapped_G(normal_rows(len(real), G.z_dim, device=device))
                generator_loss, generator_logs = loss.generator_loss(wrapped_critic, augment(real), augment(fake))
            accelerator.backward(generator_loss)
            check_finite(G, "the generator's gradient", nimg)
            optimizers["opt_G"].step()
            optimizers["opt_G"].zero_grad()

            nimg, step = nimg + batch, step + 1
            update_ema(G_ema, G, ema_beta(batch, now.ema_halflife_kimg, nimg))
            if log and (step % LOG_EVERY_STEPS == 0 or nimg >= total):
                logs = {"loss/critic": critic_loss, "loss/g": generator_loss, **critic_logs, **generator_logs}
                values = {key: value.item() for key, value in logs.items()}
                report.update(nimg, {key: values[key] for key in ("loss/critic", "loss/g")})
                log.append(step, nimg, values | clock.read(nimg) | {"ranks": accelerator.num_processes})
            if any_rank(accelerator, stop.received is not None):
                break
            if nimg < total and crossed(nimg, batch, snapshot_nimg):
                save()
        save()
        stop.raise_if_early(config.out, nimg, total)
    if main:
        sample = ["codegan", "sample", "--run", str(config.out), "--out", "samples", "--num", "64"]
        finish([config.out / "weights", config.out / "samples"], sample)


def _latents(
    config: TrainConfig[VariantConfig], reader: LatentReader, nimg: int, total: int, share: slice, device: torch.device
) -> Iterator[Tensor]:
    """This rank's raw latents, one batch for each critic update from image `nimg` on; pinned for a GPU."""
    batch, n_critic = config.batch_size, config.model.n_critic

    def load(start: int) -> Tensor:
        rows = batch_indices(reader.count, config.seed, start + share.start, share.stop - share.start)
        latents = torch.from_numpy(reader(rows))
        return latents.pin_memory() if device.type == "cuda" else latents

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
