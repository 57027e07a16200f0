"""The cost of a training (seconds, waiting for data, memory) and when it is reported."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator

import torch

LOG_EVERY_STEPS = 10


def crossed(nimg: int, batch_size: int, every: int) -> bool:
    """Return whether the step that ended at `nimg` reached or passed a multiple of `every` images."""
    return nimg // every > (nimg - batch_size) // every


class StepClock:
    """Measures seconds per thousand images, and the share of the time spent waiting for data."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0
        self._nimg: int | None = None

    def waiting[Batch](self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass `batches` through, and measure how long each one took to arrive."""
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
        """Return what was measured since the last call, by name; empty at the first call."""
        now = time.perf_counter()
        elapsed, waited = now - self._since, self._waited
        images = nimg - self._nimg if self._nimg is not None else 0
        self._since, self._waited, self._nimg = now, 0.0, nimg
        return {"time/sec_per_kimg": 1000 * elapsed / images, "time/data_share": waited / elapsed} if images else {}


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory held so far, in MB: that of tensors on a GPU, otherwise that of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # ru_maxrss is in bytes on macOS and in KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
