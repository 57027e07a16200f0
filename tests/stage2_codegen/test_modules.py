"""Modules against formulas written out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from data.errors import UsageError
from stage2_codegen.modules import (
    ChannelLongRange,
    GraphConvolution,
    LongRange,
    PixelNorm,
    SkipLayerExcitation,
    SpatialLongRange,
)


def test_pixel_norm_divides_each_position_by_its_root_mean_square() -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    out = PixelNorm()(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                rms = math.sqrt(sum(x[n, c, i, j].item() ** 2 for c in range(5)) / 5 + 1e-8)
                for c in range(5):
                    assert abs(out[n, c, i, j].item() - x[n, c, i, j].item() / rms) < 1e-10


MISSPELT: dict[str, tuple[Callable[[str], nn.Module], str]] = {
    "adjacency": (lambda word: GraphConvolution(2, 3, adjacency=word), "soft or binary"),  # type: ignore[arg-type]
    "node_features": (lambda word: GraphConvolution(2, 3, node_features=word), "conv or diag"),  # type: ignore[arg-type]
    "merge": (lambda word: LongRange(2, 3, merge=word), "concat or gated or sum"),  # type: ignore[arg-type]
    "relation": (lambda word: LongRange(2, 3, relation=word), "matmul or pairwise"),  # type: ignore[arg-type]
    "relation of positions": (lambda word: SpatialLongRange(2, 3, word), "matmul or pairwise"),  # type: ignore[arg-type]
    "relation of channels": (lambda word: ChannelLongRange(2, word), "matmul or pairwise"),  # type: ignore[arg-type]
    "activation": (lambda word: SkipLayerExcitation(2, 3, word), "leaky_relu or swish"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("option", MISSPELT)
def test_misspelt_options_are_refused_with_those_there_are(option: str) -> None:
    make, choices = MISSPELT[option]
    with pytest.raises(UsageError, match=f"{option.split()[0]} sotf") as caught:
        make("sotf")
    assert choices in caught.value.fix
    for choice in choices.split(" or "):
        make(choice)
