"""The code GAN of the acceleration framework (Liu, Yao, Ren, sections 3.2 and 3.3, table 2).

    generator  z -> dense 4096 -> 4 x 4 x 256 -> ... -> 64 x 64 x 128 -> 64 x 64 x 16
    critic     mirrored, 64 x 64 x 128 -> ... -> 4 x 4 x 256 -> dense 256 -> 1

Published: those maps, pixel normalisation after the generator's convolutions, WGAN-GP with weight 10. Not published,
and decided here: two 3 x 3 convolutions a level with leaky ReLU 0.2 (one at 4 x 4), nearest upsampling, average
pooling, z of 512, Adam 2e-4 (0, 0.9), one critic update a step, and tanh at the end because codes lie in [-1, 1].
The same networks with C = 3 are the pixel GAN that the paper accelerates; its widths go on to 512 and 1024 pixels, to
time them.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.losses import WGANGP
from stage2_codegen.modules import PixelNorm, last_layer, scored
from stage2_codegen.variants.contract import CodeGenerator, CodeShape
from stage2_codegen.variants.shapes import BASE, sides

SLOPE = 0.2


def channels_at(side: int, width: int, code_channels: int) -> int:
    """Channels of the map of this side; at least twice the code's."""
    divisor = {64: 2, 128: 2, 256: 4, 512: 8, 1024: 16}.get(side, 1)
    return max(width // divisor, 2 * code_channels)


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class Generator(CodeGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) with `output` tanh."""

    def __init__(self, code_shape: CodeShape, config: AccelConfig) -> None:
        super().__init__()
        channels, size, _ = code_shape
        self.z_dim = config.z_dim
        self.bound = nn.Tanh() if config.output == "tanh" and not config.standardise else nn.Identity()
        first = channels_at(BASE, config.width, channels)
        self.dense = nn.Linear(config.z_dim, first * BASE * BASE)
        layers: list[nn.Module] = [nn.LeakyReLU(SLOPE), PixelNorm(), *self._convs(first, first)]
        inputs = first
        for side in sides(size)[1:]:
            outputs = channels_at(side, config.width, channels)
            layers += [nn.Upsample(scale_factor=2), *self._convs(inputs, outputs), *self._convs(outputs, outputs)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, conv(inputs, channels, 1))

    @staticmethod
    def _convs(inputs: int, outputs: int) -> list[nn.Module]:
        return [conv(inputs, outputs), nn.LeakyReLU(SLOPE), PixelNorm()]

    def forward(self, z: Tensor) -> Tensor:
        maps = self.dense(z).unflatten(1, (-1, BASE, BASE)).contiguous(memory_format=torch.channels_last)
        return self.bound(self.layers(maps))


class Critic(nn.Module):
    """Codes (N, C, S, S) -> scores (N, 1). No normalisation: a score depends on its own sample alone."""

    def __init__(self, code_shape: CodeShape, config: AccelConfig) -> None:
        super().__init__()
        channels, size, _ = code_shape
        maps = [channels_at(side, config.width, channels) for side in reversed(sides(size))]
        layers: list[nn.Module] = [conv(channels, maps[0], 1), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(maps):
            layers += [conv(inputs, inputs), nn.LeakyReLU(SLOPE), conv(inputs, outputs), nn.LeakyReLU(SLOPE)]
            layers += [nn.AvgPool2d(2)]
        last = maps[-1]
        layers += [conv(last, last), nn.LeakyReLU(SLOPE), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.dense1 = nn.Linear(last * BASE * BASE, last)
        self.dense2 = last_layer(lambda scores: nn.Linear(last, scores), config.classes)

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        return scored(self.dense2, F.leaky_relu(self.dense1(self.layers(codes)), SLOPE), classes)


def loss(config: AccelConfig) -> WGANGP:
    return WGANGP(config.gp_weight, config.drift, config.penalty)
