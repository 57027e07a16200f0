"""What the environment tells torch, which must be right before torch is loaded: threads, and the processes of a run."""

import math
import os
from pathlib import Path

from data.console import warn
from data.errors import UsageError

_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
# Of launchers whose processes do not find each other by `_MEETING`: each would train alone, or wait for the others.
_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_WATCHED_SEC = 0.2


def thread_settings(processes: int = 1) -> dict[str, str]:
    """Return the variable that limits the threads of each of `processes`, or none where torch may choose.

    The number is that in CODEGAN_THREADS, or one with which no more cores are used than are granted. Raises
    `UsageError` for what is no number.
    """
    chosen = os.environ.get("CODEGAN_THREADS")
    if chosen and not (chosen.isdecimal() and int(chosen) >= 1):
        raise UsageError(f"CODEGAN_THREADS={chosen}: is not a number of threads", "give 1 or more, or unset it")
    if not chosen and processes == 1 and granted_cores() == len(_cores()):
        return {}
    return {"OMP_NUM_THREADS": chosen or str(max(1, granted_cores() // processes))}


def share_cores() -> None:
    """Let threads sleep while they wait, if other programs keep the cores busy now; results stay the same.

    By default they spin, which is faster on idle cores, but on busy ones takes the time of the threads waited for.
    """
    if "RANK" in os.environ or {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(granted_cores(), int(given) if given.isdecimal() else granted_cores())
    if _idle_cores() < threads - 0.5:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def shares_cores() -> bool:
    """Return whether threads sleep while they wait."""
    return os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"


def _cores() -> set[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def granted_cores() -> int:
    """Return how many cores this process may keep busy: those it may run on, and no more than its group's quota."""
    return max(1, math.ceil(min(len(_cores()), _quota())))


def _idle_cores() -> float:
    """How many of the cores that this process may run on nobody uses, over a moment in which it sleeps."""
    import psutil  # late: help needs it not

    busy = psutil.cpu_percent(_WATCHED_SEC, percpu=True)
    return sum(1 - busy[core] / 100 for core in _cores() if core < len(busy))


def _quota(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """The cores' worth of time that the control groups of this process grant it, in both versions of their files."""
    quota = math.inf
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = cgroups / controllers / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == cgroups.parent:
                break
            quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()
        else:
            time, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(time) / int(period) if int(time) > 0 else math.inf
    except (OSError, ValueError):  # there is none: "max", or no such file
        return math.inf


def forget_leftover_ranks() -> None:
    """Take out of the environment what says that this is one of several processes, unless it says all that is needed.

    Another program, or the shell in which one ran, may have left it.
    """
    is_group = _is_group()
    leftover = [] if is_group else [name for name in _GROUP if name in os.environ]
    launched = [name for name in _LAUNCHERS if name in os.environ]
    ignored = [*leftover, *(name for name in launched if not is_group and os.environ[name] not in ("", "1"))]
    if ignored:
        what = f"{', '.join(ignored)}: ignored, since not all of {', '.join((*_GROUP[:3], *_MEETING))} make sense"
        warn(what, "nothing, if one process is meant; --processes N starts several")
    for name in (*leftover, *launched):
        del os.environ[name]


def _is_group() -> bool:
    """Whether the environment describes one of several processes that can find each other."""
    given = [os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")]
    if not all(value.isdecimal() for value in given) or not os.environ.get("MASTER_ADDR"):
        return False
    rank, local_rank, size, _ = map(int, given)
    local_size = os.environ.get("LOCAL_WORLD_SIZE", str(size))
    return local_rank <= rank < size and local_size.isdecimal() and local_rank < int(local_size) <= size
