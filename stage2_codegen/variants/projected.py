"""A critic on frozen ImageNet features of the decoded codes, after Projected GAN.

After Sauer, Chitta, Mueller, Geiger, "Projected GANs Converge Faster", NeurIPS 2021, which works on pixels.

    generator  z -> 4 x 4 -> 8 -> ... -> S codes; residual up-blocks, small maps gate large ones as in FastGAN
    view       codes -> pictures, augmented -> backbone -> random mixing of four scales; and the pictures themselves
    critic     a small head a scale, and one on the pictures -> scores of places; relativistic pairing
    drift      features and codes of each sample move towards those of real ones and away from others'

Published: the frozen backbone, the mixing, a head a scale, augmentation of what the backbone sees. Decided here:
pictures come from the codes by a linear approximation of the decoder, which costs next to nothing
(`linear_decoder.py`); a head on the pictures, because a pretrained network overlooks a grid of patches; relativistic
pairing with lazy penalties on the features (Huang et al., as in `r3`) in place of hinge loss and spectral
normalisation, under which all samples chase one motif; the drift (`drifting.py`), which keeps samples apart; the
generator, a plain residual one that spends its time where the maps are small; one batch of generated samples a step,
whose features both updates share; the learning rate.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError
from data.latents import LatentStore
from stage1_autoencoder.networks import BOUND, unbounded
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
from stage2_codegen.variants.sle_networks import GatedGenerator, NoiseInjection, Pyramid, UpConv, conv

SLOPE = 0.2
# Channels of the generator's maps by side, times `width`: most of the time goes where it buys most.
WIDTHS = {4: 2.0, 8: 1.0, 16: 1.0, 32: 0.5, 64: 0.5, 128: 0.25, 256: 0.125}
HEAD, PICTURE_HEAD = (64, 64), (32, 32)  # channels after each halving of a head
SMALLEST_VIEW, LARGEST_VIEW = 96, 256  # pixels a side of what the backbone sees
STRIDES = (4, 8, 16, 32)  # of the maps that a backbone gives
BACKBONE = "backbone"
ROWS_FOR_STATISTICS = 1024


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
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) unless standardised.

    Before the last tanh a fixed filter gives what the last convolution draws the means, deviations and correlations of
    the data's codes, so that training starts at their scale, no cell saturates and neighbours fit together.
    """

    center: Tensor
    colouring: Tensor

    def __init__(self, code_shape: CodeShape, config: ProjectedConfig) -> None:
        super().__init__()
        channels, self.size, _ = code_shape
        self.z_dim = config.z_dim
        widths = {
            side: max(int(times * config.width), 2 * channels, 4) for side, times in WIDTHS.items() if side <= self.size
        }
        ratio = max(4, self.size // 16)
        skips = [(low, low * ratio) for low in (4, 8, 16) if low * ratio <= self.size]
        self.first = nn.Linear(config.z_dim, 2 * widths[4] * 4 * 4)
        self.first_gate = nn.Sequential(BatchNorm2d(2 * widths[4]), GLU())
        blocks = [UpBlock(read, written) for read, written in pairwise(widths.values())]
        self.pyramid = Pyramid(widths, blocks, skips, "swish")
        self.head = conv(widths[self.size], channels, 3)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(9 * widths[self.size]))  # grey first, then detail
        self.bound = nn.Identity() if config.standardise else nn.Tanh()
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("colouring", nn.init.dirac_(torch.empty(channels, channels, KERNEL, KERNEL)))

    def first_map(self, z: Tensor) -> Tensor:
        first: Tensor = self.first_gate(self.first(z).unflatten(1, (-1, 4, 4)))
        return first

    def codes(self, maps: Mapping[int, Tensor]) -> Tensor:
        drawn = F.pad(self.head(maps[self.size]), (KERNEL // 2,) * 4, mode="reflect")
        codes: Tensor = self.bound(F.conv2d(drawn, self.colouring.to(drawn), self.center.to(drawn)))
        return codes


def condition(generator: Generator, store: LatentStore, config: ProjectedConfig) -> None:
    """Give the generator the means and the colouring of the data's codes, as they are before the tanh."""
    latents = torch.from_numpy(store.read_spaced(ROWS_FOR_STATISTICS))
    codes = CodeScale.of(store, config.standardise).to_codes(latents)
    drawn = codes if config.standardise else unbounded(codes)
    generator.center.copy_(drawn.mean((0, 2, 3)))
    generator.colouring.copy_(colouring_kernel(drawn))


class Viewed:
    """Codes -> (codes, pictures, *maps of features from fine to coarse): what is judged; nothing of it is trained.

    In training the pictures are augmented, with draws of their own for every sample. Each map is in units of its
    deviation over the context's examples, so that one gamma suits all. The codes, divided by the deviations of the
    data's, are for the drift alone.
    """

    def __init__(self, config: ProjectedConfig, context: Context, augment: str = "") -> None:
        check_view(config)
        self.context = context
        is_whole = config.decode == "full" or context.autoencoder.factor == 1
        self.decode = context.autoencoder.decode if is_whole else context.linear_decoder
        self.augment = augmentation(augment, torch.ones(3))
        self.backbone = context.frozen[BACKBONE].network if config.backbone != "none" else None
        self.view_side, self.scales = config.view_side, config.scales
        widths = feature_widths(config, context)
        self.mixing = Mixing(widths).to(context.std.device) if config.mixing and widths else None
        with torch.no_grad(), full_precision(context.examples):
            self.units = [x.std() for x in self.features(self.pictures(context.examples))]

    def __call__(self, codes: Judged) -> tuple[Tensor, ...]:
        assert isinstance(codes, Tensor)
        pictures = self.augment(self.pictures(codes))
        assert isinstance(pictures, Tensor)
        scaled = codes / self.context.std.to(codes).view(-1, 1, 1)
        maps = [x / unit for x, unit in zip(self.features(pictures), self.units, strict=True)]
        return scaled, pictures, *maps

    def features(self, pictures: Tensor) -> Sequence[Tensor]:
        """(N, 3, H, W) -> mixed maps from fine to coarse, (N, C_k, H_k, W_k)."""
        if self.backbone is None:
            return ()
        own = next(self.backbone.parameters()).dtype  # that of its file, whatever else is computed in
        maps = self.backbone(self.resized(pictures).to(own))[: self.scales]
        return self.mixing(maps) if self.mixing else maps

    def pictures(self, codes: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, 3, H, W) in [-1, 1]."""
        return self.decode(inward(self.context.scale.to_latents(codes)))

    def side(self, picture_side: int) -> int:
        return self.view_side or min(max(picture_side, SMALLEST_VIEW), LARGEST_VIEW)

    def resized(self, pictures: Tensor) -> Tensor:
        """Pictures of the side that the backbone sees."""
        shown, side = pictures.shape[-1], self.side(pictures.shape[-1])
        if shown < side:
            return F.interpolate(pictures, (side, side), mode="bilinear")
        return F.adaptive_avg_pool2d(pictures, side) if shown > side else pictures


def feature_widths(config: ProjectedConfig, context: Context) -> list[int]:
    """Channels of the judged maps as the backbone gives them."""
    widths = context.frozen[BACKBONE].network.widths if config.backbone != "none" else ()
    return list(widths)[: config.scales]  # type: ignore[arg-type]


def check_view(config: ProjectedConfig) -> None:
    """`UsageError` unless every judged map of features has at least 2 x 2 places."""
    least = 2 * STRIDES[config.scales - 1]
    if config.view_side and (config.view_side < least or config.view_side % STRIDES[-1]):
        raise UsageError(
            f"--model.view-side {config.view_side}: does not suit {config.scales} scales of features",
            f"give a multiple of {STRIDES[-1]} from {least} on, or 0",
        )


def inward(latents: Tensor) -> Tensor:
    """Latents within what the decoder takes, with the gradient of the identity: a saturated cell finds its way back."""
    return latents + (latents.clamp(-BOUND, BOUND) - latents).detach()


def view(config: ProjectedConfig, context: Context) -> Viewed:
    return Viewed(config, context, config.augment)


class Head(nn.Sequential):
    """A halving convolution for each of `widths`, then scores of places, (N, 1, h, w)."""

    def __init__(self, inputs: int, widths: Sequence[int], classes: int) -> None:
        layers: list[nn.Module] = []
        for read, written in pairwise([inputs, *widths]):
            layers += [nn.Conv2d(read, written, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        last = widths[-1] if widths else inputs
        layers += [nn.Conv2d(last, last, 3, 1, 1), nn.LeakyReLU(SLOPE)]

        def to_scores(count: int) -> nn.Module:
            return nn.Conv2d(last, count, 3, 1, 1, bias=False)  # pairs of scores would not feel a bias

        super().__init__(*layers, last_layer(to_scores, classes))

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        *layers, last = self
        for layer in layers:
            x = layer(x)
        return scored(last, x, classes)


class Critic(nn.Module):
    """What a `Viewed` gives, or codes (N, C, S, S), which it then views as they are -> scores (N, k).

    One head a scale and one on the pictures; every head counts alike, for its map of scores is enlarged to the largest.
    """

    def __init__(self, code_shape: CodeShape, config: ProjectedConfig, context: Context | None = None) -> None:
        super().__init__()
        context = context or Context.stand_in(code_shape, frozen(config))
        self.viewed = Viewed(config, context)
        inputs = [CHANNELS if config.mixing else width for width in feature_widths(config, context)]
        if not inputs and not config.picture_head:
            raise UsageError("backbone none: leaves nothing to judge", "add --model.picture-head")
        halvings = (2, 1, 0, 0)  # to maps of about the same side
        self.heads = nn.ModuleList(
            Head(read, HEAD[:count], config.classes) for read, count in zip(inputs, halvings, strict=False)
        )
        self.picture_head = Head(3, PICTURE_HEAD, config.classes) if config.picture_head else None

    def forward(self, judged: Judged, classes: Tensor | None = None) -> Tensor:
        _, pictures, *maps = self.viewed(judged) if isinstance(judged, Tensor) else judged
        scores = [judge(x, classes) for judge, x in zip(self.heads, maps, strict=True)]
        if self.picture_head is not None:
            scores.insert(0, self.picture_head(pictures, classes))
        side = scores[0].shape[-1]
        return torch.cat([F.interpolate(x, (side, side)).flatten(1) for x in scores], 1)


def loss(config: ProjectedConfig, context: Context | None = None) -> Loss:
    adversarial = RelativisticPairing(config.gamma)
    return Drifting(adversarial, config.drift_weight) if config.drift_weight else adversarial


def frozen(config: ProjectedConfig) -> dict[str, Frozen]:
    """The backbone; raises what `open_backbone` raises."""
    if config.backbone == "none":
        return {}
    name: BackboneName = config.backbone
    return {BACKBONE: open_backbone(name, config.backbone_weights)}
