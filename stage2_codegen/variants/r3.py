"""The modern recipe: relativistic pairing, zero-centred penalties on real and fake, residual networks, schedules.

After Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN! A modern baseline GAN", NeurIPS 2024.

    generator  z -> dense 4 x 4 -> block -> up, block -> ... -> S x S -> codes
    critic     mirrored: codes -> S x S -> block, down -> ... -> 4 x 4, block -> dense 1

This follows the recipe (loss, mirrored residual networks without normalisation, Adam with beta1 = 0, a burn-in), not
the paper's networks. Codes are standardised, and the generator has no last activation.
"""

import dataclasses
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from stage2_codegen.configs.r3 import SCHEDULED, R3Config
from stage2_codegen.losses import RelativisticPairing
from stage2_codegen.modules import ResidualBlock, last_layer, scored
from stage2_codegen.variants.accel import map_channels
from stage2_codegen.variants.contract import CodeGenerator, CodeShape
from stage2_codegen.variants.shapes import Maps

SLOPE = 0.2  # of every leaky ReLU here


def schedule(config: R3Config, kimg: float) -> R3Config:
    """Return the configuration after `kimg` thousand samples of training.

    Its scheduled fields go along half a cosine from start to end values, and then keep the end values.
    """
    # The numbers in the configuration suit runs of some hundred thousand samples, where the paper's see tens of
    # millions: the start explores, the end settles.
    progress = min(kimg / config.burnin_kimg, 1.0) if config.burnin_kimg > 0 else 1.0
    start = (1 + math.cos(math.pi * progress)) / 2  # from 1 to 0
    ends = {name: (getattr(config, name), getattr(config, f"end_{name}")) for name in SCHEDULED}
    now: dict[str, Any] = {name: start * first + (1 - start) * last for name, (first, last) in ends.items()}
    return dataclasses.replace(config, **now)


def he_init[Layer: nn.Linear | nn.Conv2d](layer: Layer, slope: float = 1.0) -> Layer:
    """Initialise a layer so that it keeps the variance, after a leaky ReLU of this slope (1: none); return it."""
    nn.init.kaiming_normal_(layer.weight, slope)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def fit(inputs: int, outputs: int) -> list[nn.Module]:
    """Make a 1 x 1 convolution where the width changes, otherwise nothing."""
    # Outside the blocks, as in the paper. It commutes with resampling, so it is put where the map is smaller.
    return [] if inputs == outputs else [he_init(nn.Conv2d(inputs, outputs, 1))]


class Generator(CodeGenerator):
    """z (N, z_dim) -> standardised codes (N, C, S, S), unbounded."""

    def __init__(self, code_shape: CodeShape, config: R3Config) -> None:
        super().__init__()
        shape = Maps.of(code_shape)
        self.base = shape.base
        # The widths of `accel`, with one block on each level: both cost about the same, and only the recipe differs.
        maps = map_channels(shape, config.width)
        self.z_dim = config.z_dim
        # A dense layer starts the maps, where the paper modulates a constant.
        self.dense = he_init(nn.Linear(config.z_dim, maps[0] * math.prod(self.base)))
        layers: list[nn.Module] = [ResidualBlock(maps[0], len(maps))]
        for inputs, outputs in itertools.pairwise(maps):
            layers += [*fit(inputs, outputs), nn.Upsample(scale_factor=2, mode="bilinear")]
            layers += [ResidualBlock(outputs, len(maps))]
        # Without a tanh, since standardised codes have no bounds.
        to_codes = he_init(nn.Conv2d(maps[-1], code_shape[0], 3, padding=1), SLOPE)
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(SLOPE), to_codes)

    def forward(self, z: Tensor) -> Tensor:
        maps = self.dense(z).unflatten(1, (-1, *self.base)).contiguous(memory_format=torch.channels_last)
        return self.layers(maps)


class Critic(nn.Module):
    """Codes (N, C, S, S) -> scores (N, 1); the mirror of `Generator`."""

    def __init__(self, code_shape: CodeShape, config: R3Config) -> None:
        super().__init__()
        # Without normalisation: under R1 and R2 a score must depend on its own sample alone.
        shape = Maps.of(code_shape)
        maps = map_channels(shape, config.width)[::-1]
        layers: list[nn.Module] = [he_init(nn.Conv2d(code_shape[0], maps[0], 3, padding=1))]
        for inputs, outputs in itertools.pairwise(maps):
            # Averaging 2 x 2 is bilinear resampling to half the side.
            layers += [ResidualBlock(inputs, len(maps)), nn.AvgPool2d(2), *fit(inputs, outputs)]
        layers += [ResidualBlock(maps[-1], len(maps)), nn.LeakyReLU(SLOPE), nn.Flatten()]

        def to_scores(count: int) -> nn.Module:
            # Without a bias, which would cancel in every difference of two scores.
            return he_init(nn.Linear(maps[-1] * math.prod(shape.base), count, bias=False), SLOPE)

        self.layers = nn.Sequential(*layers, last_layer(to_scores, config.classes))

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        return scored(self.layers[-1], self.layers[:-1](codes), classes)


def loss(config: R3Config) -> RelativisticPairing:
    """Make the relativistic pairing loss with penalties on both sides (section 2)."""
    return RelativisticPairing(config.gamma, config.penalty)
