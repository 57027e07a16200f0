"""Moments of batch normalisation that belong to averaged weights.

The average of a generator takes over the live network's running moments, which are those of other weights. Before it is
looked at, they are measured anew with its own weights, as for averages of classifiers (Izmailov et al., "Averaging
Weights Leads to Wider Optima and Better Generalization", algorithm 1) and as the "standing statistics" of generators
(Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis"). That is done to a copy: training
goes on with the average as it is, and so does a resumed run.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from stage2_codegen.modules import BatchNorm1d, BatchNorm2d
from stage2_codegen.rank_noise import normal_rows
from stage2_codegen.ranks import count_ranks
from stage2_codegen.variants.contract import CodeGenerator

DRAWS = 256

type _Layer = BatchNorm1d | BatchNorm2d


def _layers(generator: CodeGenerator) -> list[_Layer]:
    return [layer for layer in generator.modules() if isinstance(layer, BatchNorm1d | BatchNorm2d)]


@contextmanager
def _collecting(layers: Sequence[_Layer]) -> Iterator[None]:
    """Inside, layers normalise by the batch, and keep the plain means of the moments of all batches since."""
    before = [(layer, layer.training, layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = None  # torch's word for the plain mean
        layer.num_batches_tracked = copy.deepcopy(layer.num_batches_tracked)  # the count it goes by
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

    The noise is always the same. Collective: `rows` is over all ranks, each of which draws its share. Only layers of
    batch normalisation go into training mode, where spectral normalisation would move its singular vectors. They, and
    the caller's random numbers, are left as they were. Raises `UsageError` for batches with one value a channel.
    """
    if not (layers := _layers(generator)):
        return
    device = next(generator.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _collecting(layers):
        torch.manual_seed(0)
        for _ in range(math.ceil(DRAWS / rows)):
            generator.judged(normal_rows(rows // count_ranks(), generator.z_dim, device=device))


class SettledAverage:
    """An averaged generator with moments of its own, for all that looks at it: previews, scores and weights.

    `generator` is a copy of `average` as of the last `refresh`; without batch normalisation it is `average` itself.
    """

    def __init__(self, average: CodeGenerator, rows: int) -> None:
        """`rows`: size of the batches to measure with, over all ranks."""
        self.average, self.rows = average, rows
        self.generator = copy.deepcopy(average) if _layers(average) else average

    def refresh(self) -> None:
        """Take over the weights as they now are, and measure their moments; collective."""
        if self.generator is not self.average:
            self.generator.load_state_dict(self.average.state_dict())
            measure_moments(self.generator, self.rows)
