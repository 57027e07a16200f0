"""The processes that train or encode together, and what each of them does."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list, gather_object

from data.errors import CodeganError, UsageError, WorkerError
from data.files.atomic import disk_errors
from data.images import Share
from stage1_autoencoder.training.config import Tracker

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
