"""LRM GAN (anonymous, "Lightweight Long-Range Generative Adversarial Networks", sections 3.1 to 3.4).

    generator  noise and metadata -> dense -> 4 x 4 -> up-blocks -> map of S/4 -> codes of stage 1
               twice: conv block, two residual blocks, up-block -> map of S/2, S -> codes of stages 2, 3
    critics    one for each stage, unconditional

The paper gives the three stages, whose number "is easily adjusted", the layers of their blocks (appendix A), the map
with the long-range module (32 x 32 or 64 x 64), the losses (eqs. 1, 4, 5) with 1, 5, 50, Adam's 2e-4, and totals of 7.0
M and 7.6 M parameters at 256 x 256. Where it is silent, this follows the multi-stage text-to-image networks that it
builds on. Generated images draw on vectors of training images, which a reader of their scores should know.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from data.errors import UsageError
from data.latents import LatentStore
from stage2_codegen.configs.lrm import LRMConfig
from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.interpolation import slerp
from stage2_codegen.losses import BCE, AnyCritic, LossAndLogs
from stage2_codegen.modules import GLU, BatchNorm1d, BatchNorm2d, LongRange, MapToVector, SelfAttention
from stage2_codegen.modules.instance_norm import InstanceNorm2d
from stage2_codegen.picture_vectors import Standardiser, bank_rows
from stage2_codegen.variants.contract import CodeGenerator, CodeShape
from stage2_codegen.variants.shapes import BASE, sides

SLOPE = 0.2  # of every leaky ReLU here
METADATA_WIDTH = 128  # what the generator sees of a metadata vector


def channels_at(side: int, config: LRMConfig, code_channels: int) -> int:
    """Return 512 at 4 x 4, ..., 32, 16, 8 at 64, 128, 256, but never less than twice the code's channels."""
    # Not published; those of the lineage give 7.16 M parameters, where the paper has 7.0 M. Codes have more channels
    # than pictures, hence the bound. At S = 16 the refining stages stand on the widest maps, which gives 33 M.
    return max(64 * config.width // side, 2 * code_channels)


def long_range_side(size: int, config: LRMConfig) -> int:
    """Return the side of the map with the long-range module, by default one that an up-block follows.

    Raises `UsageError` where there is no map of the side that is asked for.
    """
    side = config.long_range_size or min(32, size // 2)
    if side not in sides(size):
        raise UsageError(
            f"long_range_size {side}: codes of {size} x {size} have no such map",
            f"give --model.long-range-size one of {', '.join(map(str, sides(size)))}",
        )
    return side


def strides(size: int, config: LRMConfig) -> list[int]:
    """Return by what the side of each stage's codes is smaller than `size`: 4, 2, 1 for the paper's three.

    Raises `UsageError` for so many stages that there is no map for the first.
    """
    if config.stages > (most := len(sides(size))):
        raise UsageError(
            f"stages {config.stages}: codes of {size} x {size} have {most} maps", f"give --model.stages 1 to {most}"
        )
    return [1 << stage for stage in reversed(range(config.stages))]


def initialise(network: nn.Module) -> None:
    """Draw orthogonal weights, and gains of N(1, 0.02), as in the multi-stage lineage."""
    # By type of layer, so that the long-range module's w and c, which are parameters of their own, stay N(0, 1).
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
        elif isinstance(layer, BatchNorm1d | BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.02)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution of 3 x 3 that keeps the side of a map, or of 4 x 4 that halves it with a stride of 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)


Norm = Callable[[int], nn.Module]
instance_norm: Norm = InstanceNorm2d  # without weights
batch_norm: Norm = BatchNorm2d


def block(inputs: int, outputs: int, norm: Norm) -> list[nn.Module]:
    """Make a 3 x 3 convolution, a normalisation and a GLU, which halves the channels."""
    # The paper lists the layers of a block without an order; this is the lineage's.
    return [conv(inputs, 2 * outputs), norm(2 * outputs), GLU()]


class Residual(nn.Module):
    """x + conv3-IN-GLU-conv3-IN (appendix A.1), of the same shape (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = [conv(channels, channels), instance_norm(channels)]
        self.layers = nn.Sequential(*block(channels, channels, instance_norm), *last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def long_range(channels: int, side: int, config: LRMConfig) -> tuple[nn.Module, int]:
    """Make the module on the chosen map, the paper's or one of its ablations; return it with its output channels."""
    if config.long_range == "lrm":
        module = LongRange(channels, side, config.merge, config.relation)
        return module, module.out_channels
    if config.long_range == "residual":
        return Residual(channels), channels
    return (SelfAttention(channels) if config.long_range == "attention" else nn.Identity()), channels


class Stem(nn.Sequential):
    """Noise and metadata (N, inputs) -> (N, width, 4, 4)."""

    def __init__(self, inputs: int, width: int) -> None:
        doubled = 2 * width * BASE * BASE
        dense = nn.Linear(inputs, doubled, bias=False)
        super().__init__(dense, BatchNorm1d(doubled), GLU(), nn.Unflatten(1, (width, BASE, BASE)))


class Generator(CodeGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) unless standardised; `judged` gives all stages, coarse to fine.

    With metadata `z_dim` is one more than the configuration's: the last entry picks the row of `bank`.
    """

    bank: Tensor  # (metadata_rows, metadata_dim)

    def __init__(self, code_shape: CodeShape, config: LRMConfig) -> None:
        super().__init__()
        check(config)
        channels, size, _ = code_shape
        self.has_metadata = config.metadata_dim > 0
        self.z_dim = config.z_dim + self.has_metadata
        if self.has_metadata:
            # The bank stays in the generator and an entry of z picks its row: a sample is a function of z alone, and
            # needs no VGG. Until `condition` has shown the data, the rows are different but always the same vectors.
            fixed = torch.Generator().manual_seed(0)
            bank = torch.randn(config.metadata_rows, config.metadata_dim, generator=fixed, device="cpu")
            self.register_buffer("bank", bank.to(torch.get_default_device()))
            self.standardiser = Standardiser(config.metadata_dim)
            self.metadata = nn.Linear(config.metadata_dim, METADATA_WIDTH)
        first = channels_at(BASE, config, channels)
        self.stem = Stem(config.z_dim + METADATA_WIDTH * self.has_metadata, first)
        self.stages, self.heads = nn.ModuleList(), nn.ModuleList()
        self._add_stages(first, channels, size, config)
        initialise(self)

    def _add_stages(self, read: int, channels: int, size: int, config: LRMConfig) -> None:
        layers: list[nn.Module] = []
        first = size // strides(size, config)[0]
        norm = instance_norm  # of the block that reads the map so far, which has `read` channels
        for side in sides(size):
            if side > first:  # later stages refine the map before they enlarge it
                width = channels_at(side // 2, config, channels)
                layers += [*block(read, width, norm), Residual(width), Residual(width)]
                read, norm = width, instance_norm
            if side > BASE:
                width = channels_at(side, config, channels)
                layers += [nn.Upsample(scale_factor=2), *block(read, width, norm)]
                read, norm = width, instance_norm
            if side == long_range_side(size, config):
                # The spatial branch of `matmul` adds a constant to each channel. Instance norm right after the next
                # convolution would subtract it (all but a border effect of the zero padding); batch norm keeps what
                # differs between samples, and after the GLU it is a constant no more. The norm stays when the module
                # is ablated, so that nothing else changes.
                module, read = long_range(read, side, config)
                layers, norm = [*layers, module], batch_norm
            if side >= first:
                self.stages.append(nn.Sequential(*layers))
                # A head on the last map of each stage, whose stage then continues from the same map.
                bound = [] if config.standardise else [nn.Tanh()]
                self.heads.append(nn.Sequential(conv(read, channels), *bound))
                layers = []

    def row(self, choice: Tensor) -> Tensor:
        """Return rows of the bank (N,), all equally likely for choice (N,) ~ N(0, 1): floor(Phi(choice) rows)."""
        rows = len(self.bank)
        return (torch.special.ndtr(choice.float()) * rows).long().clamp(max=rows - 1)

    def judged(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.drawn(z[:, :-1], self.bank[self.row(z[:, -1])]) if self.has_metadata else self.drawn(z)

    def truncated(self, z: Tensor, truncation: float) -> Tensor:
        """Scale the noise of z (N, z_dim), but not the entry that picks the row."""
        # No row is more usual than another.
        if not self.has_metadata:
            return super().truncated(z, truncation)
        return torch.cat([truncation * z[:, :-1], z[:, -1:]], 1)

    def like(self, vector: Tensor) -> Self:
        """Return the same generator with the vector (n,) of one picture in place of its bank (figure 3)."""
        if not self.has_metadata:
            return super().like(vector)
        if len(vector) != (length := int(self.standardiser.length)):
            if not length:
                fix = "train it anew: an earlier version did not keep how its vectors are standardised"
                raise UsageError("this generator does not know how to take a picture's vector", fix)
            what = f"this generator takes vectors of {length} entries, and the picture has {len(vector)}"
            raise UsageError(what, "describe the picture as those of its training were: with VGG-16, or without")
        liking = copy.deepcopy(self)
        liking.bank = self.standardiser(vector[None])
        return liking

    def between(self, start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
        """Draw codes (N, C, S, S) on the way from one z (N, z_dim) to another, with blended metadata."""
        # Moving the entry that picks the row would show the rows in between, which have nothing to do with either end.
        if not self.has_metadata:
            return super().between(start, stop, share)
        first, last = (self.bank[self.row(z[:, -1])] for z in (start, stop))
        vectors = torch.lerp(first, last, share.to(first)[:, None])
        return self.drawn(slerp(start[:, :-1], stop[:, :-1], share), vectors)[-1]

    def drawn(self, noise: Tensor, vectors: Tensor | None = None) -> tuple[Tensor, ...]:
        """Draw all stages, coarse to fine, from noise (N, n) and, with metadata, vectors (N, metadata_dim)."""
        z = noise if vectors is None else torch.cat([noise, self.metadata(vectors)], 1)
        maps = self.stem(z).contiguous(memory_format=torch.channels_last)
        outputs = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            maps = stage(maps)
            outputs.append(head(maps))
        return tuple(outputs)

    def forward(self, z: Tensor) -> Tensor:
        return self.judged(z)[-1]


def check(config: LRMConfig) -> None:
    """Raise `UsageError` for metadata that is both asked for and switched off."""
    if config.metadata_dim and not config.metadata_rows:
        raise UsageError("metadata_rows 0: leaves no metadata", "give 1 or more, or --model.metadata-dim 0")
    if config.metadata and not config.metadata_dim:
        raise UsageError("metadata_dim 0: excludes metadata", "leave out --model.metadata or --model.metadata-dim")


def condition(generator: Generator, store: LatentStore, config: LRMConfig) -> None:
    """Fill the generator's bank from `config.metadata`, or from the store itself.

    Raises what `bank_rows` and `Standardiser.fit` raise.
    """
    if generator.has_metadata:
        vectors = bank_rows(store, config.metadata, config.metadata_rows).to(generator.bank.device)
        generator.standardiser.fit(vectors)
        generator.bank.copy_(generator.standardiser(vectors))


class StageCritic(nn.Sequential):
    """Codes (N, C, side, side) -> scores (N, 1): 4 x 4 convolutions of stride 2 down to 4 x 4, then 3 x 3 ones.

    Batch normalisation makes a score depend on the whole batch, so a gradient penalty cannot be used with it.
    """

    def __init__(self, channels: int, side: int, config: LRMConfig) -> None:
        # Not published: widths that double from 32 to 256, so that the three critics together have the paper's size.
        first, last = max(config.critic_width, 2 * channels), max(8 * config.critic_width, 2 * channels)
        maps = [channels, *(min(first << level, last) for level in range(len(sides(side)) - 1))]
        layers: list[nn.Module] = []
        for level, (inputs, outputs) in enumerate(itertools.pairwise(maps)):
            norm = [batch_norm(outputs)] if level else []  # the first layer sees the codes as they are
            layers += [conv(inputs, outputs, 4, 2), *norm, nn.LeakyReLU(SLOPE)]
        depth = 2 if side >= 256 else 1  # not published; with these 3 x 3 convolutions the critics have its 7.6 M
        for inputs in [maps[-1], last][:depth]:
            layers += [conv(inputs, last), batch_norm(last), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, MapToVector(last, 1, BASE), nn.Flatten())


class Critic(nn.Module):
    """Codes of all stages, or real codes (N, C, S, S) -> scores (N, stages)."""

    def __init__(self, code_shape: CodeShape, config: LRMConfig) -> None:
        super().__init__()
        channels, size, _ = code_shape
        self.strides = strides(size, config)
        self.stages = nn.ModuleList(StageCritic(channels, size // stride, config) for stride in self.strides)
        initialise(self)

    def forward(self, judged: Tensor | tuple[Tensor, ...]) -> Tensor:
        # The paper resizes real images. Here every second, fourth, ... code is taken: averaging would shrink their
        # covariance, which colour consistency asks the generator's stages to share.
        if isinstance(judged, Tensor):
            judged = tuple(judged[:, :, ::stride, ::stride] for stride in self.strides)
        return torch.cat([critic(codes) for critic, codes in zip(self.stages, judged, strict=True)], 1)


def colour_statistics(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (N, C) and covariance (N, C, C) of the colours of each sample over its positions."""
    colours = at_least_fp32(codes).flatten(2)  # (N, C, positions)
    mean = colours.mean(2)
    centred = colours - mean[:, :, None]
    return mean, centred @ centred.mT / centred.shape[2]  # not N - 1: the positions are the population


def colour_consistency(lower: Tensor, upper: Tensor, config: LRMConfig) -> Tensor:
    """Return lambda1 |mean_i - mean_(i-1)|^2 + lambda2 |cov_i - cov_(i-1)|_F^2 (eq. 1), averaged over samples.

    `lower` and `upper` are codes (N, C, H, W) of stages i - 1 and i. With `colour_reduction` mean, entries are averaged
    instead of summed.
    """
    with full_precision(upper):
        # As in the lineage, the lower stage is a target without gradient: it learns from its own critic.
        targets = colour_statistics(lower.detach())
        gaps = [(own - target).square() for own, target in zip(colour_statistics(upper), targets, strict=True)]
        # As means over the C and C x C entries, the weights mean the same for any number of channels. Sums would be 16
        # and 256 times as strong for C = 16.
        means, covariances = (g.mean() if config.colour_reduction == "mean" else g.sum() / len(g) for g in gaps)
        return config.mean_weight * means + config.covariance_weight * covariances


class MultiStageLoss:
    """Half the original GAN loss for each stage, and colour consistency between stages (eqs. 4 and 5)."""

    def __init__(self, config: LRMConfig) -> None:
        self.config, self.adversarial = config, BCE(0.5)

    def critic_loss(
        self, critic: AnyCritic, real: Tensor, fake: tuple[Tensor, ...], penalty_factor: float = 1.0
    ) -> LossAndLogs:
        return self.adversarial.critic_loss(critic, real, fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: tuple[Tensor, ...]) -> LossAndLogs:
        loss, logs = self.adversarial.generator_loss(critic, real, fake)
        pairs = [colour_consistency(lower, upper, self.config) for lower, upper in itertools.pairwise(fake)]
        colour = sum(pairs, torch.zeros_like(loss))  # a single stage has nothing to agree with
        return loss + self.config.colour_weight * colour, {**logs, "loss/colour": colour.detach()}


def loss(config: LRMConfig) -> MultiStageLoss:
    """Make the loss of all stages (eqs. 4 and 5)."""
    return MultiStageLoss(config)
