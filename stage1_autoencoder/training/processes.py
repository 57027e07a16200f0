"""The processes that train or encode together, and the share of each."""

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
from stage1_autoencoder.training.environment import forget_leftover_ranks, shares_cores

# How long a rank waits for another, which may be saving. A rank that dies is noticed at once,
# and one that hangs after this time.
PATIENCE = timedelta(minutes=30)


def make_accelerator(tracker: Tracker = "none", run: Path | None = None, patience: timedelta = PATIENCE) -> Accelerator:
    """Set up the processes, the device and the tracker of this run, with the tracker's files under `run`/tracker.

    `patience` is how long ranks wait for each other. Raises `UsageError` when the tracker is not installed, for
    settings of Accelerate that are not supported, and for more processes than GPUs, and `WorkerError` when the
    processes do not find each other. What other programs left in the environment is ignored.
    """
    forget_leftover_ranks()
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        package = "'codegan[tracking]'" if tracker == "tensorboard" else tracker
        raise UsageError(f"--tracker {tracker}: is not installed", f"pip install {package}")
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UsageError(f"ACCELERATE_USE_{name}: is not supported", "unset it, and start with --processes N")
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < gpus < local:
        raise UsageError(f"{local} processes: more than this machine's GPUs ({gpus})", f"give --processes {gpus}")
    # Networks keep their buffers equal on all ranks themselves; DDP's own broadcast would change them between two
    # forwards. Its new name exists only in torch's newest releases.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    group = InitProcessGroupKwargs(timeout=patience)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # without this, ranks without a GPU do not find each other
        mixed_precision="no",  # otherwise the environment would decide in place of our flags, here and below
        dynamo_backend="no",
        kwargs_handlers=[ddp, group],
        log_with=None if tracker == "none" else tracker,
        project_dir=None if run is None else run / "tracker",
    )
    accelerator.gradient_accumulation_steps = 1
    # Each process would otherwise train on its own, without a word.
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise WorkerError(
            f"{expected} processes were started but each sees {accelerator.num_processes}",
            "start them with --processes N",
        )
    return accelerator


@contextmanager
def tracked(accelerator: Accelerator) -> Iterator[None]:
    """Inside, the tracker that `make_accelerator` was given runs on the main process."""
    if accelerator.log_with:
        folder = accelerator.logging_dir
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Without these variables they write elsewhere.
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
            os.environ[name] = str(folder)
        accelerator.init_trackers("codegan")
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # not end_training: it would also end the process group
            tracker.finish()


def local_share(global_batch: int, accelerator: Accelerator, parts: int = 1) -> slice:
    """Return this rank's rows of a global batch, which goes through in `parts`.

    Raises `UsageError` when the batch does not divide into equal parts on all ranks.
    """
    ranks = accelerator.num_processes
    if global_batch < ranks * parts or global_batch % (ranks * parts):
        among = f"{ranks} processes" + (f" times --accumulate {parts}" if parts > 1 else "")
        raise UsageError(
            f"--batch-size {global_batch}: is not divisible by {among}", f"give a multiple of {ranks * parts}"
        )
    rows = global_batch // ranks
    return slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)


def scan_share(accelerator: Accelerator) -> Share:
    """Return this rank's share of looking through a data set (see `data.images.open_images`)."""
    return Share(accelerator.process_index, accelerator.num_processes, gather_object)


def describe_hardware(accelerator: Accelerator) -> str:
    """Return what a run computes with, in words: its GPUs or threads."""
    ranks, threads = accelerator.num_processes, torch.get_num_threads()
    if accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(accelerator.device)
        return name if ranks == 1 else f"{ranks} x {name}"
    text = "1 thread" if threads == 1 else f"{threads} threads"
    if ranks > 1:
        text = f"{ranks} processes of {text}"
    return f"{text}, which wait passively" if shares_cores() else text


def any_rank(accelerator: Accelerator, flag: bool) -> bool:
    """Return on every rank whether `flag` is true on any, so that all ranks leave a loop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.gather(torch.tensor([flag], device=accelerator.device)).any())


def on_main[Result](accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Let the main process do `work`, and return its result on every process; its `CodeganError` is raised on all."""
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
