"""The flags that both trainings have in common."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.flags import Hosts
from data.limits import Count, Limited, Natural, Positive, Weight

Precision = Literal["fp32", "bf16"]
OptimizerName = Literal["adam", "adagrad", "rmsprop"]
Tracker = Literal["none", "tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class RunConfig(Limited):
    """Fields of every training run, whose clock counts the images that have been shown."""

    out: Path
    """Run folder; the same command resumes it."""
    kimg: Positive = 200.0
    """Length of training, in thousands of images shown."""
    batch_size: Count = 16
    """Images in each step, over all processes."""
    seed: Natural = 0
    """Seed of the initial weights, the order of the images and all noise."""
    snapshot_kimg: Positive = 10.0
    """Thousands of images between two snapshots, each a checkpoint and a preview."""
    snapshot_minutes: Weight = 10.0
    """Minutes between two saves of the state and the weights, besides those at snapshots; 0 makes none."""
    tracker: Tracker = "none"
    """Also log to tensorboard, wandb or trackio, whose files go to RUN/tracker."""
    allow_host: Hosts = ()
    """Web servers from which images, and their redirects, may be read."""

    @property
    def total_nimg(self) -> int:
        """The number of images that whole batches have shown when `kimg` is reached."""
        return math.ceil(self.kimg * 1000 / self.batch_size) * self.batch_size

    @property
    def snapshot_nimg(self) -> int:
        """The number of images between two snapshots."""
        return max(1, round(self.snapshot_kimg * 1000))
