"""Parts of FastGAN's networks (Liu et al., figures 3 and 4): up-blocks, down-blocks, and the pyramid that gates maps.

The paper gives no widths and no details of the blocks; these are those of the authors' networks, which have no biases.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.choices import Activation
from stage2_codegen.modules import GLU, BatchNorm2d, SkipLayerExcitation, VectorToMap, spectral_norm
from stage2_codegen.rank_noise import normal_rows
from stage2_codegen.variants.contract import CodeGenerator

SLOPE = 0.2  # of every leaky ReLU here
FEW_POSITIONS = 16  # of a map: up to 4 x 4
INIT_STD = 0.02  # DCGAN's, as in the authors' networks


def initialise(network: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and gains from N(1, 0.02), and normalise the convolutions spectrally."""
    # In this order: a normalised weight is computed at every call, and values written to it are lost.
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0, INIT_STD)
            spectral_norm(layer)
        elif isinstance(layer, BatchNorm2d):
            nn.init.normal_(layer.weight, 1, INIT_STD)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps the side of a map, or halves it with a kernel of 4 and a stride of 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)


# What a row of three weights w is on a map whose pixels are repeated: [w2, w1 + w2, w0 + w1, w0], the sums over the
# copies of a pixel, in the order in which a transposed convolution spreads it.
_SPREAD = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


class UpConv(nn.Conv2d):
    """Nearest upsampling by 2, then a 3 x 3 convolution; (N, C, H, W) -> (N, C', 2H, 2W)."""

    spread: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        # (16, 9), from the weights of a pair of channels to the kernel of both steps in one.
        self.register_buffer("spread", torch.kron(_SPREAD, _SPREAD), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        # The two make one transposed convolution: a pixel repeated 2 x 2 and seen through a 3 x 3 kernel spreads over
        # 4 x 4 outputs. That takes 4 instead of 9 multiplications for an output, and never writes the upsampled map.
        # On the smallest maps, where most of the time goes into weights, the larger kernel costs more than that saves.
        if input.shape[-2] * input.shape[-1] <= FEW_POSITIONS:
            return F.conv2d(F.interpolate(input, scale_factor=2), self.weight, padding=1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1, 2)  # (C', 9, C), which is how memory has it
        kernel = torch.matmul(self.spread.to(weight), weight).unflatten(1, (4, 4))  # (C', 4, 4, C)
        return F.conv_transpose2d(input, kernel.permute(3, 0, 1, 2), stride=2, padding=1)


class NoiseInjection(nn.Module):
    """x (N, C, H, W) + weight noise, where noise (N, 1, H, W) is N(0, 1), new at every call, also in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))  # a network starts without noise, and learns how much helps

    def forward(self, x: Tensor) -> Tensor:
        noise = normal_rows(x.shape[0], 1, *x.shape[2:], device=x.device)  # `len` would fix N in an exported program
        return x + self.weight * noise.to(x.dtype)


def first_block(z_dim: int, outputs: int, base: tuple[int, int]) -> nn.Sequential:
    """Make the block (N, z_dim, 1, 1) -> (N, outputs, 4, 4), or the sides of another `base`."""
    return nn.Sequential(VectorToMap(z_dim, 2 * outputs, base, bias=False), BatchNorm2d(2 * outputs), GLU())


def simple_up_block(inputs: int, outputs: int) -> nn.Sequential:
    """Make a block (N, inputs, H, W) -> (N, outputs, 2H, 2W), whose GLU halves the channels of its convolution."""
    return nn.Sequential(UpConv(inputs, 2 * outputs), BatchNorm2d(2 * outputs), GLU())


def double_up_block(inputs: int, outputs: int) -> nn.Sequential:
    """Make a `simple_up_block` with a second convolution, and with noise before each normalisation."""
    layers: list[nn.Module] = []
    for convolution in (UpConv(inputs, 2 * outputs), conv(outputs, 2 * outputs, 3)):
        layers += [convolution, NoiseInjection(), BatchNorm2d(2 * outputs), GLU()]
    return nn.Sequential(*layers)


def activated(convolution: nn.Conv2d) -> list[nn.Module]:
    """Add batch normalisation and leaky ReLU to a convolution."""
    return [convolution, BatchNorm2d(convolution.out_channels), nn.LeakyReLU(SLOPE, inplace=True)]


class DownBlock(nn.Module):
    """The mean of two convolutions and of a pooled 1 x 1 convolution; (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*activated(conv(inputs, outputs, 4, stride=2)), *activated(conv(outputs, outputs, 3)))
        self.direct = nn.Sequential(nn.AvgPool2d(2), *activated(conv(inputs, outputs, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2  # a mean in the authors' networks, not a sum


class Pyramid(nn.Module):
    """Blocks in a row, each of which doubles or halves the side, with skip-layer excitation between maps (eq. 1).

    `widths` are the channels of the maps by side, in the order of flow; the first map is the input. A pair (low, high)
    of sides in `skips` gates the later map by the earlier one, before the next block reads it.
    """

    def __init__(
        self,
        widths: Mapping[int, int],
        blocks: Sequence[nn.Module],
        skips: Sequence[tuple[int, int]],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.sides = list(widths)
        self.blocks = nn.ModuleList(blocks)
        self.source = {high: low for low, high in skips}
        self.gates = nn.ModuleDict(
            {str(high): SkipLayerExcitation(widths[low], widths[high], activation) for low, high in skips}
        )

    def forward(self, x: Tensor, style: Mapping[int, Tensor] | None = None) -> dict[int, Tensor]:
        """Return all maps by side; a gate reads that of `style` where it has one of its side, else the sample's own."""
        # All maps are returned: heads, gates and the critic's decoders read different ones.
        style, maps = style or {}, {self.sides[0]: x}
        for side, block in zip(self.sides[1:], self.blocks, strict=True):
            x = block(x)
            if side in self.source:  # before the next block, so that all larger maps feel the gate
                low = self.source[side]
                x = self.gates[str(side)](style.get(low, maps[low]), x)
            maps[side] = x
        return maps


class GatedGenerator(CodeGenerator, ABC):
    """A generator that is a pyramid between a first and a last step; its gates can take the style of another z."""

    pyramid: Pyramid

    @abstractmethod
    def first_map(self, z: Tensor) -> Tensor:
        """Make the maps (N, C, 4, 4) of z (N, z_dim) with which the pyramid starts."""

    @abstractmethod
    def codes(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Draw codes (N, C, S, S) from the pyramid's maps, which are given by side."""

    def maps(self, z: Tensor, style: Mapping[int, Tensor] | None = None) -> dict[int, Tensor]:
        """Return the pyramid's maps by side, gated by those of `style` where it has them."""
        # Convolutions are fastest in this layout, and all later maps keep it.
        maps: dict[int, Tensor] = self.pyramid(self.first_map(z).contiguous(memory_format=torch.channels_last), style)
        return maps

    def forward(self, z: Tensor) -> Tensor:
        return self.codes(self.maps(z))

    def style(self, z: Tensor) -> dict[int, Tensor]:
        """Return the maps of z that gates read, by side."""
        maps = self.maps(z)
        return {side: maps[side] for side in self.pyramid.source.values()}

    def styled(self, z: Tensor, style: Mapping[int, Tensor]) -> Tensor:
        """Draw codes of z with the gates reading `style`, as in section 4 and figure 7 of the paper."""
        return self.codes(self.maps(z, style))


class Decoder(nn.Sequential):
    """Features (N, inputs, 8, 8) -> codes (N, outputs, side, side), in (-1, 1) or unbounded (section 3.2)."""

    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, unbounded: bool) -> None:
        maps = [inputs, *widths]
        blocks = [simple_up_block(read, written) for read, written in pairwise(maps)]
        super().__init__(*blocks, conv(maps[-1], outputs, 3), *([] if unbounded else [nn.Tanh()]))
