"""The code GAN of the acceleration framework (Liu, Yao, Ren, sections 3.2 and 3.3, table 2).

    generator  z -> dense 4096 -> 4 x 4 x 256 -> ... -> 64 x 64 x 128 -> 64 x 64 x 16
    critic     mirrored, 64 x 64 x 128 -> ... -> 4 x 4 x 256 -> dense 256 -> 1

The paper gives those maps, pixel normalisation, and WGAN-GP with weight 10. Layers and hyperparameters between them are
decided here, as in progressive growing. The same networks with C = 3 are the pixel GAN that the paper accelerates.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.losses import WGANGP
from stage2_codegen.modules import PixelNorm, last_layer, scored
from stage2_codegen.variants.contract import CodeGenerator, CodeShape
from stage2_codegen.variants.shapes import Maps, sides

SLOPE = 0.2  # of every leaky ReLU here, as in progressive growing


def channels_at(side: int, width: int, code_channels: int) -> int:
    """Return the channels of the map of this side."""
    # 256 at 4 x 4 and 128 at 64 x 64 are those of table 2, which also gives the pixel GAN's 64 at 256 x 256. The larger
    # sides are for timing that GAN up to 1024 pixels.
    divisor = {64: 2, 128: 2, 256: 4, 512: 8, 1024: 16}.get(side, 1)
    return max(width // divisor, 2 * code_channels)  # no map should hold less than the codes do


def map_channels(shape: Maps, width: int) -> list[int]:
    """Return the channels of the maps of side 4, 8, ..., S."""
    return [channels_at(side * shape.stretch, width, shape.channels) for side in sides(shape.size)]


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Make a convolution with a bias that keeps the side of a map, He-initialised for leaky ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class Generator(CodeGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) with `output` tanh."""

    def __init__(self, code_shape: CodeShape, config: AccelConfig) -> None:
        super().__init__()
        channels, _, self.base = shape = Maps.of(code_shape)
        self.z_dim = config.z_dim
        # Not published: codes lie in [-1, 1] as the encoder's tanh leaves them, unless they are standardised.
        self.bound = nn.Tanh() if config.output == "tanh" and not config.standardise else nn.Identity()
        first, *others = map_channels(shape, config.width)
        self.dense = nn.Linear(config.z_dim, first * math.prod(self.base))
        layers: list[nn.Module] = [nn.LeakyReLU(SLOPE), PixelNorm(), *self._convs(first, first)]
        inputs = first
        # Two convolutions on each level, one at 4 x 4 beside the dense layer, after nearest upsampling.
        for outputs in others:
            layers += [nn.Upsample(scale_factor=2), *self._convs(inputs, outputs), *self._convs(outputs, outputs)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, conv(inputs, channels, 1))

    @staticmethod
    def _convs(inputs: int, outputs: int) -> list[nn.Module]:
        # "After convolutional operations", the paper says; progressive growing normalises after the activation.
        return [conv(inputs, outputs), nn.LeakyReLU(SLOPE), PixelNorm()]

    def forward(self, z: Tensor) -> Tensor:
        maps = self.dense(z).unflatten(1, (-1, *self.base)).contiguous(memory_format=torch.channels_last)
        return self.bound(self.layers(maps))


class Critic(nn.Module):
    """Codes (N, C, S, S) -> scores (N, 1); the mirror of `Generator`."""

    def __init__(self, code_shape: CodeShape, config: AccelConfig) -> None:
        super().__init__()
        # Without normalisation: under the gradient penalty a score must depend on its own sample alone.
        shape = Maps.of(code_shape)
        maps = map_channels(shape, config.width)[::-1]
        layers: list[nn.Module] = [conv(shape.channels, maps[0], 1), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(maps):
            layers += [conv(inputs, inputs), nn.LeakyReLU(SLOPE), conv(inputs, outputs), nn.LeakyReLU(SLOPE)]
            layers += [nn.AvgPool2d(2)]
        last = maps[-1]  # also the width of the dense layer: 256 in table 2
        layers += [conv(last, last), nn.LeakyReLU(SLOPE), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.dense1 = nn.Linear(last * math.prod(shape.base), last)
        self.dense2 = last_layer(lambda scores: nn.Linear(last, scores), config.classes)

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        return scored(self.dense2, F.leaky_relu(self.dense1(self.layers(codes)), SLOPE), classes)


def loss(config: AccelConfig) -> WGANGP:
    """Make the Wasserstein loss with a gradient penalty (eqs. 5 to 8)."""
    return WGANGP(config.gp_weight, config.drift, config.penalty)
