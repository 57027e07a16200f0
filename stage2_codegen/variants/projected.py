"""A critic on frozen ImageNet features of the decoded codes.

After Sauer, Chitta, Mueller, Geiger, "Projected GANs Converge Faster", NeurIPS 2021, which works on pixels.

    generator  z -> 4 x 4 -> 8 -> ... -> S codes; residual up-blocks, small maps gate large ones as in FastGAN
    view       codes -> pictures, augmented -> backbone -> random mixing of four scales; and the pictures themselves
    critic     a small head for each scale, and one on the pictures -> scores of places; relativistic pairing
    drift      features and codes of each sample move towards those of real ones and away from others'

The paper has the frozen backbone, the mixing, the heads, and augmentation of what the backbone sees. All else is
decided here.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError
from data.latents import LatentStore
from stage1_autoencoder.bounds import BOUND, unbounded
from stage2_codegen.augment import augmentation
from stage2_codegen.codes import CodeScale
from stage2_codegen.colouring import KERNEL, colouring_kernel
from stage2_codegen.configs.choices import BackboneName
from stage2_codegen.configs.projected import ProjectedConfig
from stage2_codegen.drifting import Drifting
from stage2_codegen.fp32 import full_precision
from stage2_codegen.frozen.backbones import open_backbone
from stage2_codegen.frozen.context import Context, Frozen
from stage2_codegen.frozen.projection import CHANNELS, Mixing
from stage2_codegen.losses import Loss, RelativisticPairing
from stage2_codegen.modules import GLU, BatchNorm2d, last_layer, scored
from stage2_codegen.variants.contract import CodeShape, Judged
from stage2_codegen.variants.shapes import Maps, sides
from stage2_codegen.variants.sle_networks import GatedGenerator, NoiseInjection, Pyramid, UpConv, conv

SLOPE = 0.2  # of every leaky ReLU here
# Channels of the generator's maps by side, times `width`: most of the computation is on small maps.
WIDTHS = {4: 2.0, 8: 1.0, 16: 1.0, 32: 0.5, 64: 0.5, 128: 0.25, 256: 0.125}
HEAD, PICTURE_HEAD = (64, 64), (32, 32)  # channels after each halving of a head
# Pixels per side of what the backbone sees. Below 96 the coarse scales have no positions left to judge.
SMALLEST_VIEW, LARGEST_VIEW = 96, 256
STRIDES = (4, 8, 16, 32)  # of the maps that a backbone gives
BACKBONE = "backbone"
ROWS_FOR_STATISTICS = 1024  # latents of the store, to measure the means and correlations of its codes


class UpBlock(nn.Module):
    """(N, C, H, W) -> (N, C', 2H, 2W): two convolutions with noise and batch normalisation, beside a 1 x 1 path."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for convolution in (UpConv(inputs, 2 * outputs), conv(outputs, 2 * outputs, 3)):
            layers += [convolution, NoiseInjection(), BatchNorm2d(2 * outputs), GLU()]
        self.main = nn.Sequential(*layers)
        self.direct = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + 0.7 * F.interpolate(self.direct(x), scale_factor=2)


class Generator(GatedGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) unless standardised."""

    center: Tensor
    colouring: Tensor

    def __init__(self, code_shape: CodeShape, config: ProjectedConfig) -> None:
        super().__init__()
        channels, self.size, self.base = shape = Maps.of(code_shape)
        self.z_dim = config.z_dim
        times = {side: WIDTHS[side * shape.stretch] for side in sides(self.size)}
        widths = {side: max(int(factor * config.width), 2 * channels, 4) for side, factor in times.items()}
        ratio = max(4, self.size // 16)  # the gates of FastGAN's generator (`sle.py`)
        skips = [(low, low * ratio) for low in (4, 8, 16) if low * ratio <= self.size]
        self.first = nn.Linear(config.z_dim, 2 * widths[4] * math.prod(self.base))
        self.first_gate = nn.Sequential(BatchNorm2d(2 * widths[4]), GLU())
        blocks = [UpBlock(read, written) for read, written in pairwise(widths.values())]
        self.pyramid = Pyramid(widths, blocks, skips, "swish")
        self.head = conv(widths[self.size], channels, 3)
        # Training starts from nearly grey pictures, at about a tenth of the data's deviation, and adds detail.
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(9 * widths[self.size]))
        self.bound = nn.Identity() if config.standardise else nn.Tanh()
        # A fixed filter before the tanh gives the output the means, deviations and correlations of the data's codes:
        # training starts at their scale, no cell saturates, and neighbouring patches fit together.
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("colouring", nn.init.dirac_(torch.empty(channels, channels, KERNEL, KERNEL)))

    def first_map(self, z: Tensor) -> Tensor:
        first: Tensor = self.first_gate(self.first(z).unflatten(1, (-1, *self.base)))
        return first

    def codes(self, maps: Mapping[int, Tensor]) -> Tensor:
        drawn = F.pad(self.head(maps[self.size]), (KERNEL // 2,) * 4, mode="reflect")
        codes: Tensor = self.bound(F.conv2d(drawn, self.colouring.to(drawn), self.center.to(drawn)))
        return codes


def condition(generator: Generator, store: LatentStore, config: ProjectedConfig) -> None:
    """Give the generator the means and the colouring of the data's codes, as they were before the encoder's tanh."""
    latents = torch.from_numpy(store.read_spaced(ROWS_FOR_STATISTICS))
    codes = CodeScale.of(store, config.standardise).to_codes(latents)
    drawn = codes if config.standardise else unbounded(codes)  # the filter stands before the generator's tanh
    generator.center.copy_(drawn.mean((0, 2, 3)))
    generator.colouring.copy_(colouring_kernel(drawn))


class Viewed:
    """Codes (N, C, S, S) -> (codes, pictures, *maps of features from fine to coarse), which are what is judged.

    Nothing in it is trained. `augment` is the policy by which pictures are augmented, empty for none. Raises
    `UsageError` for a side of the view that does not suit the scales.
    """

    def __init__(self, config: ProjectedConfig, context: Context, augment: str = "") -> None:
        check_view(config)
        self.context = context
        is_whole = config.decode == "full" or context.autoencoder.factor == 1
        # The linear approximation costs next to nothing, unlike the decoder.
        self.decode = context.autoencoder.decode if is_whole else context.linear_decoder
        self.augment = augmentation(augment, torch.ones(3))
        self.backbone = context.frozen[BACKBONE].network if config.backbone != "none" else None
        self.view_side, self.scales = config.view_side, config.scales
        widths = feature_widths(config, context)
        self.mixing = Mixing(widths).to(context.std.device) if config.mixing and widths else None
        # In units of their deviation over the examples, one gamma suits the maps of all scales.
        with torch.no_grad(), full_precision(context.examples):
            self.units = [x.std() for x in self.features(self.pictures(context.examples))]

    def __call__(self, codes: Judged) -> tuple[Tensor, ...]:
        assert isinstance(codes, Tensor)
        pictures = self.augment(self.pictures(codes))
        assert isinstance(pictures, Tensor)
        # No head reads the codes: they are for the drift, which compares their moments.
        scaled = codes / self.context.std.to(codes).view(-1, 1, 1)
        maps = [x / unit for x, unit in zip(self.features(pictures), self.units, strict=True)]
        return scaled, pictures, *maps

    def features(self, pictures: Tensor) -> Sequence[Tensor]:
        """Return the mixed maps of pictures (N, 3, H, W), from fine to coarse, (N, C_k, H_k, W_k)."""
        if self.backbone is None:
            return ()
        own = next(self.backbone.parameters()).dtype  # its file's, which may differ from the codes'
        maps = self.backbone(self.resized(pictures).to(own))[: self.scales]
        return self.mixing(maps) if self.mixing else maps

    def pictures(self, codes: Tensor) -> Tensor:
        """Decode codes (N, C, S, S) to pictures (N, 3, H, W) in [-1, 1]."""
        return self.decode(inward(self.context.scale.to_latents(codes)))

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, in pixels, to which pictures are resized for the backbone."""
        shorter = min(height, width)
        side = self.view_side or min(max(shorter, SMALLEST_VIEW), LARGEST_VIEW)
        return round(height * side / shorter), round(width * side / shorter)

    def resized(self, pictures: Tensor) -> Tensor:
        """Resize pictures (N, 3, H, W) to the size that the backbone sees."""
        # Shrunk by averages over areas: bilinear sampling would skip pixels, and with them whatever hides between.
        shown = pictures.shape[-2:]
        height, width = self.seen_size(*shown)
        if shown[0] < height:
            return F.interpolate(pictures, (height, width), mode="bilinear")
        return F.adaptive_avg_pool2d(pictures, (height, width)) if shown[0] > height else pictures


def feature_widths(config: ProjectedConfig, context: Context) -> list[int]:
    """Return the channels of the judged maps as the backbone gives them."""
    widths = context.frozen[BACKBONE].network.widths if config.backbone != "none" else ()
    return list(widths)[: config.scales]  # type: ignore[arg-type]


def check_view(config: ProjectedConfig) -> None:
    """Raise `UsageError` unless every judged map of features has at least 2 x 2 places."""
    least = 2 * STRIDES[config.scales - 1]
    if config.view_side and (config.view_side < least or config.view_side % STRIDES[-1]):
        raise UsageError(
            f"--model.view-side {config.view_side}: does not suit {config.scales} scales of features",
            f"give a multiple of {STRIDES[-1]} from {least} on, or 0",
        )


def inward(latents: Tensor) -> Tensor:
    """Clamp latents to the range that the decoder takes, with the gradient of the identity."""
    # With the clamp's own gradient, which is 0 outside the range, a saturated cell would never find its way back.
    return latents + (latents.clamp(-BOUND, BOUND) - latents).detach()


def view(config: ProjectedConfig, context: Context) -> Viewed:
    """Make the view of training, with the configuration's augmentation."""
    return Viewed(config, context, config.augment)


class Head(nn.Sequential):
    """Maps (N, inputs, H, W) -> scores of places (N, 1, h, w), after a halving convolution for each of `widths`."""

    def __init__(self, inputs: int, widths: Sequence[int], classes: int) -> None:
        layers: list[nn.Module] = []
        for read, written in pairwise([inputs, *widths]):
            layers += [nn.Conv2d(read, written, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        last = widths[-1] if widths else inputs
        layers += [nn.Conv2d(last, last, 3, 1, 1), nn.LeakyReLU(SLOPE)]

        def to_scores(count: int) -> nn.Module:
            # Without a bias, which would cancel in every difference of two scores.
            return nn.Conv2d(last, count, 3, 1, 1, bias=False)

        super().__init__(*layers, last_layer(to_scores, classes))

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        *layers, last = self
        for layer in layers:
            x = layer(x)
        return scored(last, x, classes)


class Critic(nn.Module):
    """The output of a `Viewed`, or codes (N, C, S, S), which it then views without augmentation -> scores (N, k).

    There is a head for each scale and one on the pictures. Raises `UsageError` where neither is left.
    """

    def __init__(self, code_shape: CodeShape, config: ProjectedConfig, context: Context | None = None) -> None:
        super().__init__()
        context = context or Context.stand_in(code_shape, frozen(config))
        self.viewed = Viewed(config, context)
        inputs = [CHANNELS if config.mixing else width for width in feature_widths(config, context)]
        if not inputs and not config.picture_head:
            raise UsageError("backbone none: leaves nothing to judge", "add --model.picture-head")
        halvings = (2, 1, 0, 0)  # the finer a scale, the more, so that all heads score maps of about the same side
        self.heads = nn.ModuleList(
            Head(read, HEAD[:count], config.classes) for read, count in zip(inputs, halvings, strict=False)
        )
        # A pretrained network overlooks the grid of patches that a decoder makes of wrong codes.
        self.picture_head = Head(3, PICTURE_HEAD, config.classes) if config.picture_head else None

    def forward(self, judged: Judged, classes: Tensor | None = None) -> Tensor:
        _, pictures, *maps = self.viewed(judged) if isinstance(judged, Tensor) else judged
        scores = [judge(x, classes) for judge, x in zip(self.heads, maps, strict=True)]
        if self.picture_head is not None:
            scores.insert(0, self.picture_head(pictures, classes))
        largest = scores[0].shape[-2:]
        # All maps of scores are enlarged to the largest, so that every head has the same weight.
        return torch.cat([F.interpolate(x, largest).flatten(1) for x in scores], 1)


def loss(config: ProjectedConfig, context: Context | None = None) -> Loss:
    """Make the relativistic pairing loss, with the drift where it has a weight."""
    # In place of the paper's hinge loss and spectral normalisation, under which all samples followed one motif.
    adversarial = RelativisticPairing(config.gamma)
    return Drifting(adversarial, config.drift_weight) if config.drift_weight else adversarial


def frozen(config: ProjectedConfig) -> dict[str, Frozen]:
    """Open the backbone, where there is one; raises what `open_backbone` raises."""
    if config.backbone == "none":
        return {}
    name: BackboneName = config.backbone
    return {BACKBONE: open_backbone(name, config.backbone_weights)}
