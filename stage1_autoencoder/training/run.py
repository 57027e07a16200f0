"""A training run around its steps, the same for both stages: folder, lock, log, tracker, clock and requests to stop."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from accelerate import Accelerator
from torch import nn

from data.console import ProgressReport
from data.files.atomic import lock, remove_partials
from data.files.checkpoints import Progress
from data.files.runs import MetricsLog, open_run, to_json
from stage1_autoencoder.training.clock import LOG_EVERY_STEPS, StepClock, crossed, peak_memory_mb
from stage1_autoencoder.training.config import RunConfig
from stage1_autoencoder.training.processes import any_rank, describe_hardware, on_main, tracked
from stage1_autoencoder.training.stopping import StopSignal


class Run:
    """A context in which `lock`, `open` and `start` are called once, in this order, and `advance` after every step.

    All processes call every method; the main process has the folder, the log and the tracker.
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, label: str) -> None:
        self.config = config
        self.accelerator = accelerator
        self.main = accelerator.is_main_process
        self.progress = Progress()
        self.clock = StepClock()
        self.stop = StopSignal(answers=self.main)
        self._saved_sec = time.monotonic()
        self._report = ProgressReport(label, config.total_nimg, "img", self.main)
        self._log: MetricsLog | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def lock(self) -> None:
        """Keep other commands out of the folder; raises `LockedError`."""
        on_main(self.accelerator, lambda: self._stack.enter_context(lock(self.config.out)))

    def open(self, identity: dict[str, Any], may_change: tuple[str, ...], earlier: Mapping[str, Any]) -> None:
        """Start the run, or resume it; raises what `open_run` raises.

        `identity` holds what must agree besides the configuration, and may replace its fields. `may_change` names the
        fields in which a resumed run may differ, and `earlier` gives those that earlier versions did not record.
        """

        def begin() -> None:
            remove_partials(self.config.out)
            described = {**identity, **to_json(self.config)} | identity  # identity stands first in config.json
            open_run(self.config.out, described, may_change, earlier)
            self._stack.enter_context(tracked(self.accelerator))

        on_main(self.accelerator, begin)

    def start(self, progress: Progress) -> None:
        """Log and count from `progress` on; from now on a first signal to stop waits for `stopping`."""
        self.progress = progress
        if self.main:
            self._log = MetricsLog(self.config.out, progress.nimg)
        self._stack.enter_context(self.stop)
        self._stack.enter_context(self._report)
        self._report.update(min(progress.nimg, self.config.total_nimg))
        self.clock = StepClock()
        self.saved()

    def introduce(self, subject: str, networks: Mapping[str, nn.Module], flags: Mapping[str, Any]) -> None:
        """Print what is trained, the flags that decide most, and where the run stands."""
        if not self.main:
            return
        trained = {name: [p for p in network.parameters() if p.requires_grad] for name, network in networks.items()}
        sizes = (f"{name} of {_rounded(sum(p.numel() for p in trained[name]))} parameters" for name in trained)
        print(f"{subject}, with {describe_hardware(self.accelerator)}")
        print(f"  {', '.join(sizes)}")
        print("  " + "  ".join(f"{flag} {value}" for flag, value in flags.items()))
        print(f"  {self._standing()}", flush=True)

    def _standing(self) -> str:
        nimg, total = self.progress.nimg, self.config.total_nimg
        if nimg > total:
            return f"already complete: {nimg} images were shown, more than the {total} of --kimg {self.config.kimg:g}"
        if nimg == total:
            return f"already complete: all {total} images were shown; a larger --kimg goes on"
        return f"resuming at image {nimg} of {total}" if nimg else f"a new run of {total} images"

    def go_back(self, progress: Progress) -> None:
        """Forget what was logged after `progress`; the time that it took still counts."""
        self.progress = progress
        if self._log:
            self._log = MetricsLog(self.config.out, progress.nimg, self._log.wall_sec())
        self.clock = StepClock()

    def advance(self) -> None:
        """Count a batch that has been shown."""
        nimg, number, rollbacks = self.progress
        self.progress = Progress(nimg + self.config.batch_size, number + 1, rollbacks)
        if not self.finished:
            self._report.update(self.progress.nimg)

    @property
    def finished(self) -> bool:
        """Whether the run has shown all its images."""
        return self.progress.nimg >= self.config.total_nimg

    @property
    def at_log(self) -> bool:
        """Whether the step that has just ended is logged."""
        return self.progress.step % LOG_EVERY_STEPS == 0 or self.finished

    def has_snapshot(self, nimg: int) -> bool:
        """Whether the step that ends at `nimg` is followed by a snapshot, as the last one is."""
        config = self.config
        return nimg >= config.total_nimg or crossed(nimg, config.batch_size, config.snapshot_nimg)

    @property
    def at_snapshot(self) -> bool:
        """Whether the step that has just ended is followed by a snapshot."""
        return self.has_snapshot(self.progress.nimg)

    def stopping(self) -> bool:
        """Return whether a signal to stop has reached any process."""
        return any_rank(self.accelerator, self.stop.received is not None)

    def saved(self) -> None:
        """Count the minutes to the next save from now."""
        self._saved_sec = time.monotonic()

    def save_is_due(self) -> bool:
        """Return whether it is time for a save between snapshots, by the clock of the main process."""
        minutes, passed_sec = self.config.snapshot_minutes, time.monotonic() - self._saved_sec
        return any_rank(self.accelerator, self.main and 0 < 60 * minutes <= passed_sec)

    def record(self, values: Mapping[str, float]) -> None:
        """Write a row of metrics.jsonl, and the values to the tracker."""
        if self._log:
            row = {**values, "ranks": self.accelerator.num_processes}
            self._log.append(self.progress.step, self.progress.nimg, row)
            self.accelerator.log(dict(values), step=self.progress.nimg)

    def log(self, values: dict[str, float], shown: tuple[str, ...]) -> None:
        """Record the values of a step with its time and memory, and show some of them."""
        if self.main:
            values["memory/peak_mb"] = peak_memory_mb(self.accelerator.device)
            self._report.update(self.progress.nimg, {name: values[name] for name in (*shown, "memory/peak_mb")})
            self.record(values | self.clock.read(self.progress.nimg))

    def raise_if_early(self) -> None:
        """Raise `KeyboardInterrupt` or `Preempted` if the run was stopped; to be called after the last save."""
        self.stop.raise_if_early(self.config.out, self.progress.nimg, self.config.total_nimg)


def _rounded(count: int) -> str:
    """A number of parameters in three digits: 512, 83.5 k, 2.13 M."""
    value, unit = (count / 1e6, " M") if count >= 1e6 else (count / 1e3, " k") if count >= 1e3 else (count, "")
    return f"{value:.3g}{unit}"
