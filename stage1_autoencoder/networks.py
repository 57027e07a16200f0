"""Networks of stage one: pixels <-> latents (Liu, Yao, Ren, "An Acceleration Framework for High Resolution Image
Synthesis", section 3.1 and figure 3a).

The paper gives the shape of the networks (strided encoder ending in tanh, mirrored decoder, a convolutional
discriminator, no normalisation anywhere) but no widths or kernels; those are ours. Everything is convolutional, so
weights trained on 128 x 128 crops serve any size that is a multiple of the factor.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import MismatchError, UsageError
from data.files.checkpoints import check_weights, fingerprint, load_weights, put_weights
from data.latents import LatentStore
from data.limits import Limit
from stage1_autoencoder.borrowed import Borrowed, build, is_borrowed, read, resolved
from stage1_autoencoder.bounds import CODE_DEVIATION, unbounded
from stage1_autoencoder.default import is_default, load_default
from stage1_autoencoder.patches import frequencies, patch_basis
from stage1_autoencoder.tiles import in_tiles, is_divided

SLOPE = 0.2  # of every leaky ReLU here
FACTORS = (2, 4, 8, 16)
# It keeps channels that are nearly constant on the images, such as colour on grey ones, from exploding.
MAX_GAIN = 64.0
REACH = 8  # latents on each side that a latent of the encoder, or pixels of the decoder, depend on; rounded up
PIXELS = "pixels"  # the name that stands for no autoencoder at all


@dataclass(frozen=True)
class Form:
    """The shape in JSON of the arguments that build an autoencoder."""

    factor: Annotated[int, Limit(least=1, most=64)]
    code_channels: Annotated[int, Limit(least=1, most=1 << 12)]
    width: Annotated[int, Limit(least=0, most=1 << 12)]
    borrowed: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Described:
    autoencoder: Form


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float | None = None) -> nn.Conv2d:
    """Make a convolution with a bias that keeps or halves the side of a map; its weights are N(0, gain^2 / fan_in).

    Without a `gain` they are He-normal for leaky ReLU.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
    gain = nn.init.calculate_gain("leaky_relu", SLOPE) if gain is None else gain
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs * kernel * kernel))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + conv3(lrelu(conv3(lrelu(x)))), of the same shape (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        # The block starts as the identity: without normalisation the variance would grow with every block.
        self.conv2 = conv(channels, channels, 3, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))


def widths(factor: int, width: int) -> list[int]:
    """Return the channels after each halving: w, 3w, 3w, ..."""
    return [width] + [3 * width] * (int(math.log2(factor)) - 1)


class Encoder(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> (N, code_channels, H/f, W/f) in (-1, 1).

    A linear map of each f x f patch runs beside the convolutions. It starts as the patch's lowest frequencies, so that
    training begins with a usable code and the convolutions learn what a linear code cannot hold.
    """

    def __init__(self, factor: int, code_channels: int, width: int) -> None:
        super().__init__()
        channels = widths(factor, width)
        # The first halving only rearranges pixels, since convolutions at full size cost more than they bring: in the
        # same time the network sees more pictures, and reconstructs them better (docs/experiments.md).
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), conv(12, channels[0], 3), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [conv(inputs, outputs, 4, stride=2), nn.LeakyReLU(SLOPE)]
        # Depth is added where maps are smallest and a convolution costs least.
        layers += [ResidualBlock(channels[-1]), ResidualBlock(channels[-1])]
        # Zero at first: random output would hide the linear path.
        layers += [nn.LeakyReLU(SLOPE), conv(channels[-1], code_channels, 3, gain=0.0)]
        self.layers = nn.Sequential(*layers)
        self.patch = nn.Conv2d(3, code_channels, factor, stride=factor, bias=False)
        self.patch.weight.data, _ = patch_basis(factor, code_channels)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.layers(images) + self.patch(images))


class Decoder(nn.Module):
    """(N, code_channels, h, w) -> (N, 3, f h, f w) in (-1, 1); the mirror of `Encoder`, with its own linear path."""

    def __init__(self, factor: int, code_channels: int, width: int) -> None:
        super().__init__()
        channels = widths(factor, width)[::-1]
        layers: list[nn.Module] = [conv(code_channels, channels[0], 3)]
        layers += [ResidualBlock(channels[0]), ResidualBlock(channels[0]), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(channels):
            # Pixels are shuffled after the convolution, so that it works on the smaller map.
            layers += [conv(inputs, 4 * outputs, 3), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE)]
        # As in the encoder: nothing is computed at full size, and the last convolution starts at zero.
        self.layers = nn.Sequential(*layers, conv(channels[-1], 12, 3, gain=0.0), nn.PixelShuffle(2))
        self.patch = nn.ConvTranspose2d(code_channels, 3, factor, stride=factor, bias=False)
        _, self.patch.weight.data = patch_basis(factor, code_channels)

    def forward(self, latents: Tensor) -> Tensor:
        # Frequencies have long tails, which the tanh bends and a linear map cannot bend back: undone here, the linear
        # path is exact from the start (docs/experiments.md).
        return torch.tanh(self.layers(latents) + self.patch(unbounded(latents)))


class Discriminator(nn.Sequential):
    """Patch discriminator: (N, 3, H, W) -> logits (N, 1, H/8 - 1, W/8 - 1); each sees 46 x 46 pixels.

    The paper says only that it is convolutional.
    """

    def __init__(self, width: int = 64) -> None:
        channels = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            layers += [conv(inputs, outputs, 4, stride=2), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, conv(channels[-1], 1, 4, gain=1.0))  # no leaky ReLU follows for the gain to make up


class Autoencoder(nn.Module):
    """Encoder F and decoder H of the paper: `decode(encode(images))` is close to `images`.

    With factor 1 and 3 channels it is the identity and has no weights. A generator is then trained on pixels, which is
    what the paper measures its acceleration against. With a description of another library's networks (`borrowed`) it
    is those. Raises `UsageError` for a factor or a width that the networks cannot have.
    """

    def __init__(
        self,
        factor: int = 4,
        code_channels: int = 16,
        width: int = 64,
        borrowed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.factor, self.code_channels, self.width, self.borrowed = factor, code_channels, width, borrowed
        self.reach: int | None = REACH
        if borrowed is not None:
            made: Borrowed = build(borrowed)
            self.encoder: nn.Module = made.encoder
            self.decoder: nn.Module = made.decoder
            self.factor, self.code_channels, self.width = made.factor, made.code_channels, 0
            self.reach = made.reach
            return
        if (factor, code_channels) == (1, 3):
            self.encoder, self.decoder, self.reach = nn.Identity(), nn.Identity(), None
            return
        if factor not in FACTORS:
            raise UsageError(f"--factor {factor}: is not supported", f"choose one of {', '.join(map(str, FACTORS))}")
        if code_channels < 1 or width < 1:
            raise UsageError(f"--code-channels {code_channels} --width {width}: must be positive", "give 1 or more")
        self.encoder = Encoder(factor, code_channels, width)
        self.decoder = Decoder(factor, code_channels, width)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build an autoencoder of this form."""
        form = {"factor": self.factor, "code_channels": self.code_channels, "width": self.width}
        return form if self.borrowed is None else {**form, "borrowed": dict(self.borrowed)}

    @property
    def device(self) -> torch.device:
        """The device of the weights; without any, the CPU."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def fingerprint(self) -> str:
        """The identity of these weights, by which a store knows the autoencoder that can decode its latents."""
        return fingerprint(self.state_dict(), self.config)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (N, 3, H, W) in [-1, 1] to latents (N, code_channels, H/factor, W/factor) in [-1, 1].

        Raises `UsageError` when a side is not a multiple of the factor.
        """
        check_multiple(images.shape[-2:], self.factor)
        return self._applied(self.encoder, images, self.factor, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (N, code_channels, h, w) to images (N, 3, h factor, w factor) in [-1, 1]."""
        return self._applied(self.decoder, latents, 1, self.factor)

    def _applied(self, network: nn.Module, x: Tensor, inside: int, outside: int) -> Tensor:
        if self.reach is None or not is_divided(network, x, max(x.shape[-2:]) * self.factor // inside):
            return network(x)
        return in_tiles(network, x, self.factor, self.reach, inside, outside)

    def mirror(self, latents: Tensor) -> Tensor:
        """Return latents (N, C, h, w) of the mirrored images: `latents` mirrored, each channel times its sign.

        This is exact for the linear path; the convolutions learn it where they are trained with `mirror`.
        """
        if self.borrowed is not None:  # nothing is known of what its channels mean
            return latents.flip(-1)
        signs = torch.ones(self.code_channels, 1, 1)
        for channel, (_, _, across) in enumerate(frequencies(self.factor, self.code_channels)):
            signs[channel] = (-1) ** across  # a cosine of odd frequency is odd about the middle of its patch
        return latents.flip(-1) * signs.to(latents, non_blocking=True)  # a GPU that trains meanwhile need not wait

    def forward(self, images: Tensor, noise: Tensor | None = None, mirrored: Tensor | None = None) -> Tensor:
        """Reconstruct images (N, 3, H, W), from latents with `noise` of their shape added where it is given.

        Where `mirrored` (N,) holds, the latents go through `mirror`, and the images they decode to are mirrored back.
        """
        latents = self.encode(images)
        if mirrored is not None:
            latents = torch.where(mirrored.view(-1, 1, 1, 1), self.mirror(latents), latents)
        # The sum is not clamped to [-1, 1]: that would halve the noise at the ends and so reward saturated codes.
        rebuilt = self.decode(latents if noise is None else latents + noise)
        return rebuilt if mirrored is None else torch.where(mirrored.view(-1, 1, 1, 1), rebuilt.flip(-1), rebuilt)

    @torch.no_grad()
    def balance(self, images: Tensor) -> None:
        """Give every channel of the linear path the same deviation on `images` (N, 3, H, W) in [-1, 1].

        On photographs a patch's grey mean varies twenty times as much as its higher frequencies, which would be lost in
        noise and hardly matter to a critic. Channels that `images` lack grow by `MAX_GAIN` at most.
        """
        assert isinstance(self.encoder, Encoder)
        assert isinstance(self.decoder, Decoder)
        # The last convolution is zero still, so the linear path alone is what the tanh gets.
        deviations = self.encoder.patch(images).std(dim=(0, 2, 3))
        gains = (CODE_DEVIATION / deviations).clamp(max=MAX_GAIN).view(-1, 1, 1, 1)
        self.encoder.patch.weight *= gains
        self.decoder.patch.weight /= gains  # so that the linear path as a whole stays what it was

    @classmethod
    def built_in(cls, name: str) -> Self:
        """Load the one that "default" or "default:F" names; for "pixels" it is the identity.

        Raises what `load_default` raises.
        """
        if name == PIXELS:
            return cls(factor=1, code_channels=3).eval()
        weights = load_default(name)
        return cls.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], name)

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """Load the autoencoder of a run folder for inference, a built-in or a borrowed one by its name.

        Raises `InputError` where there is none, `CorruptError` on damage, `MismatchError` for another kind of run.
        """
        if is_built_in(run):
            return cls.built_in(str(run))
        if is_borrowed(run):
            description, tensors = read(run)
            return cls.from_weights(tensors, {"borrowed": description}, run)
        weights = load_weights(Path(run) / "weights")
        if weights.state.get("kind") != "autoencoder":
            raise MismatchError(f"{run}: is not the run of an autoencoder", "give the run folder of one")
        check_weights(weights, _Described, ("autoencoder",), run)
        return cls.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], run)

    @classmethod
    def of_store(cls, store: LatentStore, moved_to: Path | None = None) -> Self:
        """Load the one that made a store's latents: the store names it, or it is now in the run folder `moved_to`.

        Raises what `load` raises, and `MismatchError` for another one, which would decode the latents to noise.
        """
        # Either a built-in name, even where a folder has the same name, or an absolute path.
        store.need("autoencoder_run", "autoencoder", "data")
        recorded = store.seal["autoencoder_run"]
        built_in = is_built_in(moved_to) if moved_to else recorded == PIXELS or is_default(recorded)
        run = str(moved_to or recorded)
        autoencoder = cls.built_in(run) if built_in else cls.load(run)
        if autoencoder.fingerprint == store.fingerprint:
            return autoencoder
        if built_in and run == recorded and is_default(run):
            raise MismatchError(
                f"{store.path}: was encoded by {recorded} of another version, whose autoencoder differs",
                "encode again into another --out, or use the version of codegan that made the store",
            )
        raise MismatchError(
            f"{store.path}: was encoded by another autoencoder than {run}",
            "give the right one with --autoencoder, or encode again into another --out",
        )

    @classmethod
    def from_weights(cls, tensors: dict[str, Tensor], config: dict[str, Any], origin: str | Path) -> Self:
        """Build an autoencoder for inference; an error about weights that do not fit names `origin`."""
        autoencoder = cls(**config)
        put_weights(autoencoder, tensors, origin)
        return autoencoder.eval().requires_grad_(False)


def is_built_in(run: str | Path) -> bool:
    """Return whether `run` is a name that `Autoencoder.built_in` knows and no run folder has."""
    return (str(run) == PIXELS or is_default(str(run))) and not (Path(run) / "weights").exists()


def location(run: str | Path) -> str:
    """Return what a store records of the place of its autoencoder: a name, or an absolute path."""
    if is_built_in(run):
        return str(run)
    return resolved(run) if is_borrowed(run) else str(Path(run).resolve())


def check_multiple(sides: tuple[int, ...] | torch.Size, factor: int) -> None:
    """Raise `UsageError` unless every side is a positive multiple of `factor`."""
    for side in sides:
        if side <= 0 or side % factor:
            raise UsageError(
                f"size {side}: is not a multiple of the autoencoder's factor {factor}",
                f"choose a --size such as {max(factor, round(side / factor) * factor)}",
            )
