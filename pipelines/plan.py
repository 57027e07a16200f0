"""`codegan plan`: the time, memory and disk that a training would take, by taking its first steps."""

import copy
import math
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.advice import Done
from data.console import ProgressReport, warn
from data.errors import CodeganError, DivergedError, SpaceError
from data.files.checkpoints import KEPT, optimizer_tensors
from data.files.runs import defaults, to_json
from data.images import image_grid
from data.sizes import height_width
from pipelines.commands import changed, flags
from pipelines.configs import PlanConfig
from stage1_autoencoder.training.clock import StepClock, peak_memory_mb
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.precision import fast_precision
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.setup import Setup, codes_between, prepare
from stage2_codegen.snapshots import GRID_SEEDS
from stage2_codegen.train import start_anew

WARM_UP, STEPS = 3, 20
_FASTER = 1.05  # less is within the noise of so few steps
_LONG_WAIT = 0.1  # share of the time


class Taken(NamedTuple):
    """What the first steps of a training took, and what its files will hold."""

    device: str
    steps: int
    step_sec: float
    data_share: float  # of the time, spent waiting for latents
    peak_mb: float  # of tensors on a GPU, else of the whole process
    checkpoint_bytes: int
    weights_bytes: int
    grid_bytes: int  # not compressed


def plan(name: str, config: PlanConfig[VariantConfig]) -> Done:
    """Print the tables, advice that follows from them, and the command that trains."""
    # Least memory first: a process's peak never falls, so the second one's is its own only when it is higher.
    precisions: list[Precision] = ["bf16", "fp32"] if fast_precision() == "bf16" else ["fp32"]
    if config.precision:
        precisions = [config.precision]
    taken: dict[Precision, Taken] = {}
    failures: list[CodeganError] = []
    for precision in precisions:
        try:
            taken[precision] = measure(name, _training(config, precision))
        except (SpaceError, DivergedError) as error:
            failures.append(copy.copy(error))  # without the traceback, which would keep the networks in memory
    if not taken:
        raise failures[-1]
    for failure in failures:
        warn(failure.what, failure.fix)
    best = min(taken, key=lambda precision: taken[precision].step_sec * (1 if precision == "fp32" else _FASTER))
    training = _training(config, best)
    print(_format(name, training, best, taken))
    return Done([], train_command(name, training))


def _training(config: PlanConfig[VariantConfig], precision: Precision) -> TrainConfig[VariantConfig]:
    return TrainConfig(**{**vars(config), "precision": precision})


def measure(name: str, config: TrainConfig[VariantConfig]) -> Taken:
    """Train from the beginning for about `STEPS` steps after `WARM_UP` others, in memory.

    Raises what `prepare` raises, `SpaceError` when a step does not fit, `DivergedError` on NaN.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        setup = prepare(name, config)
        start_anew(setup)
        return _measure(name, setup)
    except (torch.OutOfMemoryError, MemoryError) as error:
        what = f"{config.precision}: out of memory at --batch-size {config.batch_size} --accumulate {config.accumulate}"
        raise SpaceError(what, _less_memory(config)) from error


def _less_memory(config: TrainConfig[VariantConfig]) -> str:
    parts = 2 * config.accumulate
    halved = f"--accumulate {parts}, or " if config.batch_size % parts == 0 else ""
    return f"{halved}a smaller --batch-size"


def _measure(name: str, setup: Setup) -> Taken:
    config, step = setup.config, setup.step
    device, size = step.accelerator.device, setup.store.image_size
    period = _period(config.model)
    seconds, data_share = _time_steps(name, setup, math.ceil(STEPS / period) * period)
    networks = [network.state_dict() for network in step.networks.values()]
    optimizers = [optimizer_tensors(optimizer) for optimizer in step.optimizers.values()]
    return Taken(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        steps=len(seconds),
        step_sec=float(np.median(np.reshape(seconds, (-1, period)).mean(axis=1))),
        data_share=data_share,
        peak_mb=peak_memory_mb(device),
        checkpoint_bytes=_bytes(networks + optimizers),
        weights_bytes=_bytes([step.G_ema.state_dict(), setup.context.autoencoder.state_dict()]),
        grid_bytes=image_grid(np.empty((len(GRID_SEEDS), 3, *height_width(size)), np.uint8)).nbytes,
    )


def _time_steps(name: str, setup: Setup, steps: int) -> tuple[list[float], float]:
    """Seconds of each step after the first `WARM_UP`, and the share of them spent waiting for latents."""
    step, device, batch = setup.step, setup.step.accelerator.device, setup.config.batch_size
    clock, seconds, total = StepClock(), list[float](), WARM_UP + steps
    reals = codes_between(0, total * batch, setup, clock)
    with ProgressReport(f"plan {name} {setup.config.precision}", total, "steps") as report:
        for number in range(total):
            if number == WARM_UP:
                clock.read(number * batch)
            began = time.perf_counter()
            step(reals, number * batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
            report.update(number + 1)
    if step.guard.found():
        what = f"{setup.config.precision}: a gradient became NaN or infinite within the first {total} steps"
        raise DivergedError(what, "lower --model.lr and --model.critic-lr")
    return seconds[WARM_UP:], clock.read(total * batch)["time/data_share"]


def _period(model: VariantConfig) -> int:
    """Steps after which lazy penalties come round: every so many steps cost the same."""
    return model.penalty_period // math.gcd(model.penalty_period, model.n_critic)


def _bytes(groups: Iterable[Mapping[str, Tensor]]) -> int:
    return sum(tensor.nbytes for group in groups for tensor in group.values())


def disk(config: TrainConfig[VariantConfig], taken: Taken) -> dict[str, int]:
    """Bytes that a run takes, by what takes them; the log and the files' own headers are not counted."""
    batch = config.batch_size
    snapshots = 1 + (config.total_nimg - batch) // max(config.snapshot_nimg, batch)
    checkpoints = min(snapshots, KEPT + 1)
    in_progress = ", with the one being saved" if checkpoints > KEPT else ""
    keeps_best = config.score_kimg > 0
    return {
        f"checkpoints: {checkpoints}{in_progress}": checkpoints * taken.checkpoint_bytes,
        f"weights{', newest and best' * keeps_best}": (1 + keeps_best) * taken.weights_bytes,
        f"sample grids: {snapshots}, at most": snapshots * taken.grid_bytes,
    }


def _format(name: str, best: TrainConfig[VariantConfig], precision: Precision, taken: Mapping[Precision, Taken]) -> str:
    chosen, each = taken[precision], taken.values()
    owner = "process" if chosen.device == "cpu" else "GPU"
    steps = best.total_nimg / best.batch_size
    files = disk(best, chosen)
    lines = [
        f"{name} on {chosen.device}, {chosen.steps} steps of {best.batch_size} samples\n",
        _row("", taken),
        _row("ms a step", (f"{1e3 * one.step_sec:.1f}" for one in each)),
        _row("images/s", (f"{best.batch_size / one.step_sec:.1f}" for one in each)),
        _row("waiting for data", (f"{one.data_share:.1%}" for one in each)),
        _row(f"peak memory of the {owner}, MB", (f"{one.peak_mb:.0f}" for one in each)),
        _row(
            f"hours for {best.kimg:g} kimg, without snapshots", (f"{steps * one.step_sec / 3600:.2f}" for one in each)
        ),
        "",
        _row("on disk", ["MB"]),
        *(_row(label, [f"{count / 1e6:.1f}"]) for label, count in files.items()),
        _row("in all", [f"{sum(files.values()) / 1e6:.1f}"]),
        "",
    ]
    if len(taken) > 1:
        ratio = taken["fp32"].step_sec / taken["bf16"].step_sec
        lines.append(f"recommended: --precision {precision}; bf16 is {ratio:.2f} times as fast as fp32 here")
    if chosen.data_share > _LONG_WAIT:
        lines.append("recommended: a faster disk, or a store of half the bytes (`codegan encode --dtype int8`)")
    return "\n".join(lines)


def _row(label: str, cells: Iterable[str]) -> str:
    return f"{label:<40}" + "".join(f"{cell:>12}" for cell in cells)


def train_command(name: str, config: TrainConfig[VariantConfig]) -> list[str]:
    """`codegan train` with the flags whose values are not the defaults."""
    usual = to_json(defaults(TrainConfig) | {"model": type(config.model)()})
    return ["codegan", "train", name, *flags(changed(to_json(config), usual), usual)]
