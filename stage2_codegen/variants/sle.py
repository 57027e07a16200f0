"""FastGAN (Liu et al., "Towards Faster and Stabilized GAN Training", sections 3.1 and 3.2).

    generator  z -> 4 x 4 -> 8 -> ... -> S/2 -> S, maps of 4, 8, 16 gating those of S/4, S/2, S; codes of S/2 and S
    critic     codes of S -> ... -> 16 x 16 (f1) -> 8 x 8 (f2) -> scores 5 x 5;  codes of S/2 -> 8 x 8 -> scores 5 x 5
    decoders   f2 and the second branch -> the whole sample, a quadrant of f1 -> that quadrant of the sample

The paper gives the module (eq. 1), the decoders on real samples alone (eq. 2) and the hinge loss (eqs. 3 and 4). It has
no widths, and its parameter totals cannot be reached; networks and settings are those of the code that the authors
published ("the code"), with equal parameter counts at 256 x 256. Decided here: how they scale to other sides, and how
they draw codes, which have more channels than pictures.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError
from stage2_codegen.augment import augmentation
from stage2_codegen.configs.sle import SLEConfig
from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.frozen.context import Context, Frozen
from stage2_codegen.frozen.perceptual import load_lpips
from stage2_codegen.losses import AnyCritic, Hinge, Loss, LossAndLogs
from stage2_codegen.modules import last_layer, scored
from stage2_codegen.variants.contract import CodeShape, Judged
from stage2_codegen.variants.shapes import Maps
from stage2_codegen.variants.sle_networks import (
    SLOPE,
    Decoder,
    DownBlock,
    GatedGenerator,
    Pyramid,
    activated,
    conv,
    double_up_block,
    first_block,
    initialise,
    simple_up_block,
)
from stage2_codegen.variants.sle_tasks import TaskHead, View, WithTasks

# Channels of the maps by side, at a width of 64: those of the code, for 256 x 256 pixels.
GENERATOR_WIDTHS = {4: 1024, 8: 512, 16: 256, 32: 128, 64: 128, 128: 64, 256: 32}
CRITIC_WIDTHS = {256: 16, 128: 32, 64: 64, 32: 128, 16: 256, 8: 512}
BRANCH_WIDTHS = {64: 32, 32: 64, 16: 128, 8: 256}
DECODER_WIDTHS = {16: 128, 32: 64, 64: 64, 128: 32}

LPIPS = "lpips-vgg16"  # the frozen network of `--model.reconstruct lpips`

Reconstruction = tuple[Tensor, Tensor]  # what a decoder made, and what it should have made


def widths_at(table: Mapping[int, int], largest: int, width: int, least: int) -> dict[int, int]:
    """Return the channels of the maps up to side `largest`, in the table's order and never below `least`.

    Raises `UsageError` for a width at which some map would have no channels.
    """
    if width < 4:
        raise UsageError(f"width {width}: leaves maps without channels", "give --model.width 4 or more")
    return {side: max(at_64 * width // 64, least) for side, at_64 in table.items() if side <= largest}


class Generator(GatedGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) unless standardised; `judged` also gives those of side S/2."""

    def __init__(self, code_shape: CodeShape, config: SLEConfig) -> None:
        super().__init__()
        channels, self.size, base = Maps.of(code_shape)
        self.z_dim = config.z_dim
        # Maps before an output hold at least twice what a code does.
        widths = widths_at(GENERATOR_WIDTHS, self.size, config.width, 2 * channels)
        kinds = [double_up_block, simple_up_block] * 3  # to 8, 16, ..., 256
        blocks = [kind(read, written) for kind, (read, written) in zip(kinds, pairwise(widths.values()), strict=False)]
        # At 256 x 256 these are the code's 4 -> 64, 8 -> 128 and 16 -> 256. Below 64 x 64 those that do not fit are
        # left out, since a gate over less than a factor of 4 would skip one block at most.
        ratio = max(4, self.size // 16)
        skips = [(low, low * ratio) for low in (4, 8, 16) if low * ratio <= self.size]
        self.first = first_block(config.z_dim, widths[4], base)
        self.pyramid = Pyramid(widths, blocks, skips if config.excitation != "none" else [], config.activation)
        self.half_head = conv(widths[self.size // 2], channels, 1)
        self.head = conv(widths[self.size], channels, 3)
        # The code has a tanh at 1024 pixels only; codes are bounded at every side.
        self.bound = nn.Identity() if config.standardise else nn.Tanh()
        initialise(self)

    def first_map(self, z: Tensor) -> Tensor:
        first: Tensor = self.first(z[:, :, None, None])
        return first

    def codes(self, maps: Mapping[int, Tensor]) -> Tensor:
        codes: Tensor = self.bound(self.head(maps[self.size]))
        return codes

    def judged(self, z: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(z)
        return self.bound(self.half_head(maps[self.size // 2])), self.codes(maps)


def quadrant_of(maps: Tensor, quadrant: int) -> Tensor:
    """Cut out quadrant 0, 1, 2 or 3 in reading order, (N, C, H, W) -> (N, C, H/2, W/2)."""
    # The text crops to "1/8 of its height and width", figure 4 and the code to a quadrant.
    row, column = divmod(quadrant, 2)
    return maps.chunk(2, 2)[row].chunk(2, 3)[column]


class Critic(nn.Module):
    """(half, full) codes, or real codes (N, C, S, S) -> scores (N, 25 + 25), (N, 25) at S = 16.

    Called with a `quadrant` it also returns the reconstructions of the whole, of the quadrant and, for S > 16, of the
    whole by the second branch, each with its target; called with the name of a `task`, its answers (N, outputs) alone.
    Batch normalisation makes a score depend on the whole batch, so a gradient penalty cannot be used with it.
    """

    def __init__(self, code_shape: CodeShape, config: SLEConfig, context: Context | None = None) -> None:
        super().__init__()
        channels, size, _ = Maps.of(code_shape)
        if config.reconstruct == "lpips" and channels != 3:
            raise UsageError(
                f"reconstruct lpips: needs images of 3 channels, these codes have {channels}",
                "give --model.reconstruct l1",
            )
        widths = widths_at(CRITIC_WIDTHS, size, config.width, channels)
        blocks = [DownBlock(read, written) for read, written in pairwise(widths.values())]
        # The critic's gates are in the code alone: at 256 x 256 they are 256 -> 32, 128 -> 16 and 64 -> 8.
        ratio = min(8, size // 8)
        skips = [(low, low // ratio) for low in widths if low // ratio >= 8]
        self.stem = nn.Sequential(conv(channels, widths[size], 3), nn.LeakyReLU(SLOPE, inplace=True))
        self.pyramid = Pyramid(widths, blocks, skips if config.excitation == "both" else [], config.activation)
        self.score = nn.Sequential(*activated(conv(widths[8], 2 * widths[8], 1)), Scores(2 * widths[8], config.classes))
        features = [widths[8], widths[16]]  # that the decoders read
        # The second branch is in the code alone. At S = 16 it would start from codes that have 8 x 8 places already.
        self.branch: nn.Sequential | None = None
        if size > 16:
            maps = list(widths_at(BRANCH_WIDTHS, size // 4, config.width, channels).values())
            down = [layer for read, written in pairwise(maps) for layer in activated(conv(read, written, 4, stride=2))]
            self.branch = nn.Sequential(conv(channels, maps[0], 4, stride=2), nn.LeakyReLU(SLOPE, inplace=True), *down)
            self.branch_score = Scores(maps[-1], config.classes)
            features.append(maps[-1])
        if config.reconstruct != "none":
            up = list(widths_at(DECODER_WIDTHS, min(128, size // 2), config.width, 2 * channels).values())
            self.decoders = nn.ModuleList(Decoder(read, up, channels, config.standardise) for read in features)
        if "rotation" in config.tasks and code_shape[1] != code_shape[2]:
            raise UsageError("tasks rotation: needs square codes", "leave it out of --model.tasks")
        self.tasks = nn.ModuleDict({task: TaskHead(widths[8], task) for task in config.tasks})
        initialise(self)

    def forward(
        self, judged: Judged, quadrant: int | None = None, classes: Tensor | None = None, task: str | None = None
    ) -> Tensor | tuple[Tensor, list[Reconstruction]]:
        # Real codes are subsampled, as in the code: averages would have statistics that no real codes have.
        half, full = (judged[:, :, ::2, ::2], judged) if isinstance(judged, Tensor) else judged
        maps = self.pyramid(self.stem(full))
        if task is not None:
            answers: Tensor = self.tasks[task](maps[8])
            return answers
        scores, features = self.score[-1](self.score[:-1](maps[8]), classes), [maps[8]]
        if self.branch is None:
            # Nobody judges `half` here, but DDP wants every parameter of the generator in the graph.
            scores = scores + 0 * half.mean()
        else:
            features.append(self.branch(half))
            scores = torch.cat([scores, self.branch_score(features[1], classes)], 1)
        if quadrant is None:
            return scores
        features.insert(1, quadrant_of(maps[16], quadrant))
        # Targets are the samples as augmented, since the critic has seen nothing else.
        targets = [full, quadrant_of(full, quadrant), full]
        made = [decoder(feature) for decoder, feature in zip(self.decoders, features, strict=True)]
        return scores, [(codes, resized(target, codes)) for codes, target in zip(made, targets, strict=False)]


class Scores(nn.Sequential):
    """(N, inputs, 8, 8) -> (N, 25)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(last_layer(lambda count: nn.Conv2d(inputs, count, 4, bias=False), classes))

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        return scored(self[0], features, classes).flatten(1)


def resized(codes: Tensor, like: Tensor) -> Tensor:
    """Shrink codes (N, C, H, W) to the height and width of others by averages over areas."""
    return F.adaptive_avg_pool2d(codes, (like.shape[-2], like.shape[-1]))


class SelfSupervised:
    """An adversarial loss whose critic also reconstructs real samples (eqs. 2 and 3)."""

    def __init__(self, adversarial: Hinge, distance: Callable[[Tensor, Tensor], Tensor], weight: float) -> None:
        self.adversarial, self.distance, self.weight = adversarial, distance, weight

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Judged, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return the adversarial loss + weight sum over decoders of E[distance to their part of the real sample]."""
        quadrant = int(torch.randint(4, ()))  # one for each batch, as in the code; ranks have the same seed
        scores_real, pairs = critic(real, quadrant=quadrant)
        loss, logs = self.adversarial.of_scores(at_least_fp32(scores_real), at_least_fp32(critic(fake)))
        # Three decoders, as in the code, where the text has two; their distances in fp32, also inside LPIPS.
        with full_precision(real):
            distances = [self.distance(at_least_fp32(made), at_least_fp32(target)) for made, target in pairs]
            reconstruction = torch.stack(distances).sum()
        return loss + self.weight * reconstruction, {**logs, "loss/reconstruction": reconstruction.detach()}

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Judged) -> LossAndLogs:
        return self.adversarial.generator_loss(critic, real, fake)


def frozen(config: SLEConfig) -> dict[str, Frozen]:
    """Open LPIPS where the decoders minimise it; raises what `load_lpips` raises, and `UsageError` without a file."""
    if config.reconstruct != "lpips":
        return {}
    if not config.vgg_weights:
        raise UsageError("reconstruct lpips: needs the weights of VGG-16", "give them with --model.vgg-weights")
    return {LPIPS: load_lpips(Path(config.vgg_weights))}


def loss(config: SLEConfig, context: Context | None = None) -> Loss:
    """Make the hinge loss, with self-supervision (eq. 2) unless it is switched off; raises what `frozen` raises."""
    inner = _reconstructing(config, context)
    if not config.tasks:
        return inner
    # Another view is the critic's own augmentation, applied once more; a shift does where it has none.
    view = augmentation(config.augment or "translation", context.std if context else torch.ones(3))
    return WithTasks(inner, config.tasks, config.task_weight, cast(View, view))


def _reconstructing(config: SLEConfig, context: Context | None) -> Loss:
    hinge = Hinge(config.soft_margin)
    if config.reconstruct == "none":
        return hinge
    if config.reconstruct == "lpips":
        lpips = (context.frozen if context else frozen(config))[LPIPS].network
        return SelfSupervised(hinge, lpips, config.reconstruct_weight)
    # Eq. 2 leaves the distance open. The code has LPIPS, which needs RGB; codes have a mean absolute error instead.
    distance = {"l1": F.l1_loss, "mse": F.mse_loss}[config.reconstruct]
    return SelfSupervised(hinge, distance, config.reconstruct_weight)
