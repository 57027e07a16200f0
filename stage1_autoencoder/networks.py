"""Networks of stage one: pixels <-> latents (Liu, Yao, Ren, "An Acceleration Framework for High Resolution Image
Synthesis", section 3.1 and figure 3a).

The paper gives the shape of the networks (strided encoder ending in tanh, mirrored decoder, a convolutional
discriminator, no normalisation anywhere) but no widths or kernels; those are ours. Nothing is computed at full size:
the first and last halving merely rearrange pixels, which leaves the time to see more pictures (docs/experiments.md).
Everything is convolutional, so weights trained on 128 x 128 crops serve any size that is a multiple of the factor.
"""

import itertools
import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import MismatchError, UsageError
from data.files.checkpoints import fingerprint, load_weights, put_weights
from data.latents import LatentStore
from stage1_autoencoder.default import is_default, load_default

SLOPE = 0.2  # of every leaky ReLU here
FACTORS = (2, 4, 8, 16)
CODE_DEVIATION, MAX_GAIN = 0.5, 64.0  # see `Autoencoder.balance`
BOUND = 0.99  # of latents whose tanh the decoder undoes; further out noise would be blown up
PIXELS = "pixels"  # the name that stands for no autoencoder at all


def unbounded(latents: Tensor) -> Tensor:
    """The encoder's last tanh undone, up to `BOUND`; of the same shape."""
    return torch.atanh(latents.clamp(-BOUND, BOUND))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float | None = None) -> nn.Conv2d:
    """A biased convolution that keeps (or halves) the map; He-normal for leaky ReLU, or N(0, gain^2 / fan_in)."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
    gain = nn.init.calculate_gain("leaky_relu", SLOPE) if gain is None else gain
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs * kernel * kernel))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + conv3(lrelu(conv3(lrelu(x)))), the identity at initialisation (there is no normalisation to tame it)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = conv(channels, channels, 3, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))


def widths(factor: int, width: int) -> list[int]:
    """Channels after each halving: w, 3w, 3w, ..."""
    return [width] + [3 * width] * (int(math.log2(factor)) - 1)


def _frequencies(factor: int, code_channels: int) -> list[tuple[int, int, int]]:
    """Of each channel at the start: colour (0 is grey), and half-waves down and across a patch."""
    order = sorted(
        ((u + v + 2 * (c > 0), c, u, v) for c in range(3) for u in range(factor) for v in range(factor)),
    )
    return [channel[1:] for channel in order[:code_channels]]


def patch_basis(factor: int, code_channels: int) -> tuple[Tensor, Tensor]:
    """Weights that analyse a colour patch into its lowest frequencies and put it together again.

    Products of cosines (the basis of the DCT), times grey, blue-yellow and red-green, in order of frequency with
    colour counted as higher; each (code_channels, 3, f, f). They are orthogonal, so synthesis undoes analysis on what
    they span. Channels beyond 3 f^2 are zero. See `Autoencoder.balance` for how large the rest become.
    """
    position = (torch.arange(factor) + 0.5) * math.pi / factor
    waves = torch.stack([torch.cos(position * k) * (1.0 if k == 0 else math.sqrt(2)) for k in range(factor)])
    colours = torch.tensor([[1.0, 1.0, 1.0], [-0.5, -0.5, 1.0], [1.0, -1.0, 0.0]])
    colours = colours / colours.norm(dim=1, keepdim=True) / math.sqrt(3)
    analysis, synthesis = torch.zeros(2, code_channels, 3, factor, factor)
    for channel, (c, u, v) in enumerate(_frequencies(factor, code_channels)):
        wave = torch.einsum("c,i,j->cij", colours[c], waves[u], waves[v])
        analysis[channel], synthesis[channel] = wave / factor**2, wave * 3
    return analysis, synthesis


class Encoder(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> (N, code_channels, H/f, W/f) in (-1, 1).

    A linear map of each f x f patch runs beside the convolutions, whose last one starts at zero. It starts as the
    patch's lowest frequencies, so that training begins with a usable code and the convolutions learn what a linear code
    cannot hold.
    """

    def __init__(self, factor: int, code_channels: int, width: int) -> None:
        super().__init__()
        channels = widths(factor, width)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), conv(12, channels[0], 3), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [conv(inputs, outputs, 4, stride=2), nn.LeakyReLU(SLOPE)]
        layers += [ResidualBlock(channels[-1]), ResidualBlock(channels[-1])]
        layers += [nn.LeakyReLU(SLOPE), conv(channels[-1], code_channels, 3, gain=0.0)]
        self.layers = nn.Sequential(*layers)
        self.patch = nn.Conv2d(3, code_channels, factor, stride=factor, bias=False)
        self.patch.weight.data, _ = patch_basis(factor, code_channels)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.layers(images) + self.patch(images))


class Decoder(nn.Module):
    """(N, code_channels, h, w) -> (N, 3, f h, f w) in (-1, 1); the mirror of `Encoder`.

    The linear path undoes the encoder's: the tanh, up to `BOUND`, and the map of a patch.
    """

    def __init__(self, factor: int, code_channels: int, width: int) -> None:
        super().__init__()
        channels = widths(factor, width)[::-1]
        layers: list[nn.Module] = [conv(code_channels, channels[0], 3)]
        layers += [ResidualBlock(channels[0]), ResidualBlock(channels[0]), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [conv(inputs, 4 * outputs, 3), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, conv(channels[-1], 12, 3, gain=0.0), nn.PixelShuffle(2))
        self.patch = nn.ConvTranspose2d(code_channels, 3, factor, stride=factor, bias=False)
        _, self.patch.weight.data = patch_basis(factor, code_channels)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.layers(latents) + self.patch(unbounded(latents)))


class Discriminator(nn.Sequential):
    """Patch discriminator: (N, 3, H, W) -> logits (N, 1, H/8 - 1, W/8 - 1); each sees a patch of 46 pixels."""

    def __init__(self, width: int = 64) -> None:
        channels = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            layers += [conv(inputs, outputs, 4, stride=2), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, conv(channels[-1], 1, 4, gain=1.0))


class Autoencoder(nn.Module):
    """Encoder F and decoder H of the paper: `decode(encode(images))` is close to `images`.

    With factor 1 and 3 channels it is the identity and has no weights: the way to train a generator on pixels, which is
    what the paper's acceleration is measured against.
    """

    def __init__(self, factor: int = 4, code_channels: int = 16, width: int = 64) -> None:
        super().__init__()
        self.factor, self.code_channels, self.width = factor, code_channels, width
        if (factor, code_channels) == (1, 3):
            self.encoder: Encoder | nn.Identity = nn.Identity()
            self.decoder: Decoder | nn.Identity = nn.Identity()
            return
        if factor not in FACTORS:
            raise UsageError(f"--factor {factor}: is not supported", f"choose one of {', '.join(map(str, FACTORS))}")
        if code_channels < 1 or width < 1:
            raise UsageError(f"--code-channels {code_channels} --width {width}: must be positive", "give 1 or more")
        self.encoder = Encoder(factor, code_channels, width)
        self.decoder = Decoder(factor, code_channels, width)

    @property
    def config(self) -> dict[str, int]:
        return {"factor": self.factor, "code_channels": self.code_channels, "width": self.width}

    @property
    def device(self) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def fingerprint(self) -> str:
        """Identity of these weights: latents are only decodable by the autoencoder that made them."""
        return fingerprint(self.state_dict(), self.config)

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> latents (N, code_channels, H/factor, W/factor) in [-1, 1].

        Raises `UsageError` when a side is not a multiple of the factor.
        """
        check_multiple(images.shape[-2:], self.factor)
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, code_channels, h, w) -> images (N, 3, h factor, w factor) in [-1, 1]."""
        return self.decoder(latents)

    def mirror(self, latents: Tensor) -> Tensor:
        """Latents of the mirrored images: mirrored, and each channel with its sign.

        Exact for the linear path; the convolutions learn it where they are trained with `mirror`.
        """
        signs = torch.ones(self.code_channels, 1, 1)
        for channel, (_, _, across) in enumerate(_frequencies(self.factor, self.code_channels)):
            signs[channel] = (-1) ** across  # a cosine of odd frequency is odd about the middle of its patch
        return latents.flip(-1) * signs.to(latents, non_blocking=True)  # a GPU that trains meanwhile need not wait

    def forward(self, images: Tensor, noise: Tensor | None = None, mirrored: Tensor | None = None) -> Tensor:
        """Reconstructions; with `noise`, of the shape of the latents, those of latents the encoder did not make.

        Rows where `mirrored`, (N,) of bool, go through `mirror` and are mirrored back as images.
        """
        latents = self.encode(images)
        if mirrored is not None:
            latents = torch.where(mirrored.view(-1, 1, 1, 1), self.mirror(latents), latents)
        # Not clamped to [-1, 1]: at the ends noise would then be halved, a reward for codes that saturate.
        rebuilt = self.decode(latents if noise is None else latents + noise)
        return rebuilt if mirrored is None else torch.where(mirrored.view(-1, 1, 1, 1), rebuilt.flip(-1), rebuilt)

    @torch.no_grad()
    def balance(self, images: Tensor) -> None:
        """Give every channel of the linear path the same deviation on `images`; the decoder's undoes it.

        On photographs a patch's grey mean varies twenty times as much as its higher frequencies, which would be lost in
        noise and hardly matter to a critic. Images without colour or detail do not blow up what they lack.
        """
        assert isinstance(self.encoder, Encoder)
        assert isinstance(self.decoder, Decoder)
        deviations = self.encoder.patch(images).std(dim=(0, 2, 3))
        gains = (CODE_DEVIATION / deviations).clamp(max=MAX_GAIN).view(-1, 1, 1, 1)
        self.encoder.patch.weight *= gains
        self.decoder.patch.weight /= gains

    @classmethod
    def built_in(cls, name: str) -> Self:
        """The one that "default" or "default:F" stands for; with "pixels" none, images are their own latents.

        Raises what `load_default` does.
        """
        if name == PIXELS:
            return cls(factor=1, code_channels=3).eval()
        weights = load_default(name)
        return cls.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], name)

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """The autoencoder of its run folder, ready for inference, or a built-in one where `is_built_in`.

        Raises `InputError` without one, `CorruptError` on damage, `MismatchError` for another kind of run.
        """
        if is_built_in(run):
            return cls.built_in(str(run))
        weights = load_weights(Path(run) / "weights")
        if weights.state.get("kind") != "autoencoder":
            raise MismatchError(f"{run}: is not the run of an autoencoder", "give the run folder of one")
        return cls.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], run)

    @classmethod
    def of_store(cls, store: LatentStore, moved_to: Path | None = None) -> Self:
        """The one that made these latents: the store names it, or it is the run `moved_to`.

        Raises what `load` does, and `MismatchError` for another one, which would decode them to noise.
        """
        recorded = store.seal["autoencoder_run"]  # a built-in name, whatever folder is called so, or a whole path
        built_in = is_built_in(moved_to) if moved_to else recorded == PIXELS or is_default(recorded)
        run = str(moved_to or recorded)
        autoencoder = cls.built_in(run) if built_in else cls.load(run)
        if autoencoder.fingerprint == store.fingerprint:
            return autoencoder
        if built_in and run == recorded and is_default(run):
            raise MismatchError(
                f"{store.path}: was encoded by {recorded} of another version; in this one that is another autoencoder",
                "encode again into another --out, or use the version of codegan that made the store",
            )
        raise MismatchError(
            f"{store.path}: was encoded by another autoencoder than {run}",
            "give the right one with --autoencoder, or encode again into another --out",
        )

    @classmethod
    def from_weights(cls, tensors: dict[str, Tensor], config: dict[str, Any], origin: str | Path) -> Self:
        """An autoencoder for inference; `origin` is named when the weights do not fit."""
        autoencoder = cls(**config)
        put_weights(autoencoder, tensors, origin)
        return autoencoder.eval().requires_grad_(False)


def is_built_in(run: str | Path) -> bool:
    """Whether `run` is a name that `Autoencoder.built_in` knows, and not a run folder that has this name."""
    return (str(run) == PIXELS or is_default(str(run))) and not (Path(run) / "weights").exists()


def check_multiple(sides: tuple[int, ...] | torch.Size, factor: int) -> None:
    """Raise `UsageError` unless every side is a positive multiple of `factor`."""
    for side in sides:
        if side <= 0 or side % factor:
            raise UsageError(
                f"size {side}: is not a multiple of the autoencoder's factor {factor}",
                f"choose a --size such as {max(factor, round(side / factor) * factor)}",
            )
