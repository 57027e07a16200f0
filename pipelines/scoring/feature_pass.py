"""Looking at every image of a set once, shared among processes; the next batch is made while one is looked at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import batched
from typing import Protocol

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from data.console import ProgressReport
from data.errors import CorruptError
from data.prefetch import prefetch
from data.seeds import DRAWN_ORDER
from pipelines.scoring.features import repeatable

type Images = NDArray[np.uint8]
type Rows = NDArray[np.float32]

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Source:
    """Images by position, 0 ... count - 1: read, decoded from latents or drawn from seeds."""

    label: str
    count: int
    images: Callable[[Sequence[int]], Images]  # (n, 3, H, W)

    def drawn(self, count: int, seed: int) -> "Source":
        """At most `count` of the images, in random order."""
        order = np.random.default_rng([seed, DRAWN_ORDER]).permutation(self.count)[:count]
        return replace(self, count=len(order), images=lambda positions: self.images(order[list(positions)].tolist()))


class View(Protocol):
    """What is to be known of images, a few numbers each."""

    def prepare(self, images_u8: Images) -> Tensor:
        """On the CPU, in a thread that runs ahead."""

    def look(self, prepared: Tensor) -> Rows:
        """(n, columns)"""


def look_at(source: Source, views: Sequence[View], batch_size: int, accelerator: Accelerator) -> list[Rows]:
    """What each view sees, (rows, columns), in the order of the images and the same on every process.

    Each process takes consecutive batches, and the batches are those of one process alone: the numbers are its, too.
    Raises `CorruptError` where a view sees NaN or infinity.
    """
    batches = list(batched(range(source.count), batch_size))
    rank, ranks = accelerator.process_index, accelerator.num_processes
    share = batches[len(batches) * rank // ranks : len(batches) * (rank + 1) // ranks]
    rows = gather_object([tuple(seen) for seen in _look_at_share(source, views, share, accelerator.is_main_process)])
    columns = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    for view, seen in zip(views, columns, strict=True):
        if not np.isfinite(seen).all():
            what = getattr(view, "name", type(view).__name__)
            raise CorruptError(f"{what} features: are not finite on the {source.label}", "use other --feature-weights")
    return columns


def _look_at_share(
    source: Source, views: Sequence[View], share: Sequence[tuple[int, ...]], show: bool
) -> Iterator[list[Rows]]:
    def prepare(positions: tuple[int, ...]) -> list[Tensor]:
        images = source.images(positions)
        return [view.prepare(images) for view in views]

    done, total = 0, sum(map(len, share))
    # The flags are the process's, not the thread's: they hold for the generator that runs ahead, too.
    with repeatable(), ProgressReport(source.label, total, "images", show) as progress:
        prepared = prefetch(prepare, share, ahead=_BATCHES_AHEAD, threads=1)
        for positions, inputs in zip(share, prepared, strict=True):
            yield [view.look(batch) for view, batch in zip(views, inputs, strict=True)]
            done += len(positions)
            progress.update(done)
