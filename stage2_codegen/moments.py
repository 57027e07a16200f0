"""Moments of batch normalisation that belong to averaged weights.

The average of a generator takes over the live network's running moments, which belong to other weights. Before the
average is used, its moments are measured with its own weights, as for averages of classifiers (Izmailov et al.,
"Averaging Weights Leads to Wider Optima and Better Generalization", algorithm 1) and as the "standing statistics" of
generators (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis").
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from stage2_codegen.modules import BatchNorm1d, BatchNorm2d
from stage2_codegen.ranks import count_ranks
from stage2_codegen.variants.contract import CodeGenerator

DRAWS = 256  # samples that moments are measured on, at least

type _Layer = BatchNorm1d | BatchNorm2d


def _layers(generator: CodeGenerator) -> list[_Layer]:
    return [layer for layer in generator.modules() if isinstance(layer, BatchNorm1d | BatchNorm2d)]


@contextmanager
def _collecting(layers: Sequence[_Layer]) -> Iterator[None]:
    """Inside, layers normalise by the batch and keep the plain means of the moments of all batches so far."""
    before = [(layer, layer.training, layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = None  # torch's word for the plain mean
        # A plain mean goes by this count, which is put back afterwards; a copy, because the reset is in place.
        layer.num_batches_tracked = copy.deepcopy(layer.num_batches_tracked)
        layer.reset_running_stats()
    try:
        yield
    finally:
        for layer, was_training, momentum, count in before:
            layer.train(was_training)
            layer.momentum, layer.num_batches_tracked = momentum, count


@torch.no_grad()
def measure_moments(generator: CodeGenerator, rows: int) -> None:
    """Set running moments to their means over batches of `rows` that `generator` draws, `DRAWS` samples or a few more.

    All ranks must call it: `rows` counts those of all ranks, each of which draws its share. The modes of the layers and
    the caller's random numbers stay as they were. Raises `UsageError` for batches with one value in each channel.
    """
    if not (layers := _layers(generator)):
        return
    device = next(generator.parameters()).device
    # Only batch normalisation goes into training mode: there, spectral normalisation would move its singular vectors.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _collecting(layers):
        torch.manual_seed(0)  # always the same noise: equal weights get equal moments, also in a resumed run
        for _ in range(math.ceil(DRAWS / rows)):
            generator.judged(generator.random_z(rows // count_ranks(), device))


class SettledAverage:
    """An averaged generator with moments of its own, as previews, scores and saved weights use it.

    `generator` is a copy of `average` as of the last `refresh`; without batch normalisation it is `average` itself.
    """

    def __init__(self, average: CodeGenerator, rows: int) -> None:
        """Take the average, and the size of the batches to measure with, over all ranks."""
        self.average, self.rows = average, rows
        # A copy is measured, so that training, also when resumed, continues with the average as it is.
        self.generator = copy.deepcopy(average) if _layers(average) else average

    def refresh(self) -> None:
        """Take over the weights as they now are, and measure their moments; all ranks must call it."""
        if self.generator is not self.average:
            self.generator.load_state_dict(self.average.state_dict())
            measure_moments(self.generator, self.rows)
