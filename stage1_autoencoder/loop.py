"""What both training loops share: processes, precision, EMA, and the checks that keep a run safe."""

import importlib.util
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, Self

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import nn

from data.errors import CodeganError, DivergedError, Preempted, Terminated, UsageError, WorkerError
from data.files.atomic import disk_errors
from data.images import Share

Precision = Literal["fp32", "bf16"]
Tracker = Literal["none", "tensorboard", "wandb", "trackio"]
LOG_EVERY_STEPS = 10
# How long a rank waits for another, which may be saving. One that dies is noticed at once; this is for one that hangs.
PATIENCE = timedelta(minutes=30)


def make_accelerator(tracker: Tracker = "none", run: Path | None = None, patience: timedelta = PATIENCE) -> Accelerator:
    """The processes and the device of this run, and its tracker, with files under `run`/tracker (see `tracked`).

    Without a GPU, `Accelerator(cpu=True)` is needed for the ranks to find each other; if they still did not, training
    would silently happen once per process, so that is refused. Raises `UsageError` when the tracker is not installed.
    """
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        package = "'codegan[tracking]'" if tracker == "tensorboard" else tracker
        raise UsageError(f"--tracker {tracker}: is not installed", f"pip install {package}")
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UsageError(f"ACCELERATE_USE_{name}: is not supported", "unset it, and start with --processes N")
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < gpus < local:
        raise UsageError(f"{local} processes: more than this machine's GPUs ({gpus})", f"give --processes {gpus}")
    # Networks keep their buffers alike themselves; DDP's own broadcast would change them between two forwards.
    # torch's new name for that exists only in its newest releases
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    group = InitProcessGroupKwargs(timeout=patience)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # else the environment would decide instead of our flags, here and below
        dynamo_backend="no",
        kwargs_handlers=[ddp, group],
        log_with=None if tracker == "none" else tracker,
        project_dir=None if run is None else run / "tracker",
    )
    accelerator.gradient_accumulation_steps = 1
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise WorkerError(
            f"{expected} processes were started but each sees {accelerator.num_processes}",
            "start them with --processes N",
        )
    return accelerator


@contextmanager
def tracked(accelerator: Accelerator) -> Iterator[None]:
    """The tracker that `make_accelerator` was told of, on the main process, until the end of the block."""
    if accelerator.log_with:
        folder = accelerator.logging_dir
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # They write elsewhere unless told so here.
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
            os.environ[name] = str(folder)
        accelerator.init_trackers("codegan")
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # not end_training: it would also end the process group
            tracker.finish()


def local_share(global_batch: int, accelerator: Accelerator, parts: int = 1) -> slice:
    """This rank's rows of a global batch, which go through in `parts`; `UsageError` when they do not divide."""
    ranks = accelerator.num_processes
    if global_batch < ranks * parts or global_batch % (ranks * parts):
        among = f"{ranks} processes" + (f" times --accumulate {parts}" if parts > 1 else "")
        raise UsageError(
            f"--batch-size {global_batch}: does not divide by {among}", f"give a multiple of {ranks * parts}"
        )
    rows = global_batch // ranks
    return slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)


def scan_share(accelerator: Accelerator) -> Share:
    """This rank's part of looking through a data set (see `data.images.open_images`)."""
    return Share(accelerator.process_index, accelerator.num_processes, gather_object)


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


class FiniteGuard:
    """Keeps a gradient that is not finite out of the weights, without the host waiting for the device.

    A fused optimiser leaves a step out whose `found_inf` is 1 (torch.amp.GradScaler's protocol). Here all optimisers of
    a run share one such flag, and it stays up: the weights remain those before the first bad gradient until the host
    looks, as it does when it logs and before it saves. Gradients are averaged over ranks, so all see the same NaN.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        for optimizer in optimizers:
            optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Step with the gradients at hand and clear them."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack(torch._foreach_norm(gradients)).sum().isfinite()
        self._found.masked_fill_(~finite, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def found(self) -> bool:
        return bool(self._found.item())

    def refuse(self, nimg: int, fix: str) -> None:
        """Raise `DivergedError` if there was one, before `nimg` images."""
        if self.found():
            raise diverged(nimg, fix)

    def reset(self) -> None:
        self._found.zero_()


def diverged(nimg: int, fix: str) -> DivergedError:
    what = f"a gradient became NaN or infinite within {LOG_EVERY_STEPS} steps before image {nimg}"
    return DivergedError(f"{what}; it changed no weight", fix)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far: tensors on a GPU, else the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def any_rank(accelerator: Accelerator, flag: bool) -> bool:
    """True on every rank when it is on one, so that all ranks leave a loop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.gather(torch.tensor([flag], device=accelerator.device)).any())


def on_main[Result](accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """The result of `work`, done by the main process alone, on every process; its `CodeganError` is raised on all."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except CodeganError as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return result


class StopSignal:
    """Lets a loop finish its step and save after Ctrl-C or SIGTERM; a second signal acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._waits = True
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, signal.Signals(number)
        if not (first and self._waits):
            self._end()

    def _end(self) -> NoReturn:
        raise KeyboardInterrupt if self.received is signal.SIGINT else Terminated

    @contextmanager
    def at_once(self, when: bool = True) -> Iterator[None]:
        """Inside, where nothing is left to save, a signal acts at once, and so does one that came before."""
        self._waits = not when
        try:
            if when and self.received is not None:
                self._end()
            yield
        finally:
            self._waits = True

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
