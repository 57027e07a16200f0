"""What both training loops share: processes, precision, EMA, and the checks that keep a run safe."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, Self

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from data.errors import DivergedError, Preempted, UsageError, WorkerError

Precision = Literal["fp32", "bf16"]
LOG_EVERY_STEPS = 10


def make_accelerator() -> Accelerator:
    """The processes and the device of this run.

    Without a GPU, `Accelerator(cpu=True)` is needed for the ranks to find each other; if they still did not, training
    would silently happen once per process, so that is refused.
    """
    # Networks keep their buffers alike themselves; DDP's own broadcast would change them between two forwards.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[ddp])
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise WorkerError(
            f"{expected} processes were started but each sees {accelerator.num_processes}",
            "launch with `python -m torch.distributed.run --nproc_per_node N -m pipelines ...`",
        )
    return accelerator


def local_share(global_batch: int, accelerator: Accelerator) -> slice:
    """This rank's rows of a global batch; raises `UsageError` when they do not divide."""
    ranks = accelerator.num_processes
    if global_batch < ranks or global_batch % ranks:
        raise UsageError(f"--batch-size {global_batch}: does not divide by {ranks} processes", "give a multiple of it")
    rows = global_batch // ranks
    return slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)


def autocast(accelerator: Accelerator, precision: Precision) -> torch.autocast:
    """Mixed precision for a forward pass; fp32 is a no-op."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")


def fast_precision() -> Precision:
    """bf16 where the hardware computes in it, else fp32."""
    supported = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if supported else "fp32"


def ema_beta(batch_size: int, halflife_kimg: float, nimg: int, ramp: float = 0.05) -> float:
    """Decay of one update, 0.5 ** (batch / half-life); early on the half-life is `ramp` of the images seen."""
    halflife = min(halflife_kimg * 1000, nimg * ramp)
    return 0.5 ** (batch_size / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, beta: float) -> None:
    """ema <- beta ema + (1 - beta) network for parameters; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - beta)
    for target, source in zip(ema.buffers(), network.buffers(), strict=True):
        target.copy_(source)


def check_finite(network: nn.Module, what: str, nimg: int) -> None:
    """Raise `DivergedError` before an optimiser step that would poison the weights.

    Gradients are looked at, not the loss: they are averaged over ranks, so every rank sees the same NaN.
    """
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
        raise DivergedError(
            f"{what} became NaN or infinite after {nimg} images; this update was not made",
            "run the same command again to resume from the last checkpoint, or start anew with a lower learning rate",
        )


def any_rank(accelerator: Accelerator, flag: bool) -> bool:
    """True on every rank when it is on one, so that all ranks leave a loop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.gather(torch.tensor([flag], device=accelerator.device)).any())


class StopSignal:
    """Lets a loop finish its step after Ctrl-C or SIGTERM; a second signal acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def raise_if_early(self, folder: Path, nimg: int, total: int) -> None:
        """After the state is saved: `KeyboardInterrupt` for Ctrl-C, `Preempted` for SIGTERM, if work is left."""
        if nimg < total and self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if nimg < total:
            raise Preempted(
                f"{folder}: stopped after {nimg} of {total} images, all saved", "run the same command again"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_adam(optimizer: torch.optim.Optimizer, lr: float, beta1: float, beta2: float) -> None:
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = lr, (beta1, beta2)


def crossed(nimg: int, batch_size: int, every: int) -> bool:
    """Whether the step that ended at `nimg` reached or passed a multiple of `every` images."""
    return nimg // every > (nimg - batch_size) // every


class StepClock:
    """Seconds per thousand images, and the share of the time spent waiting for data, since it was last read."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0
        self._nimg: int | None = None

    def waiting[Batch](self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass `batches` through, timing how long each one took to come."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            yield batch

    def read(self, nimg: int) -> dict[str, float]:
        now = time.perf_counter()
        elapsed, waited = now - self._since, self._waited
        images = nimg - self._nimg if self._nimg is not None else 0
        self._since, self._waited, self._nimg = now, 0.0, nimg
        return {"time/sec_per_kimg": 1000 * elapsed / images, "time/data_share": waited / elapsed} if images else {}
