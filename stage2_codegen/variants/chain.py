"""The chain of strided convolutions that the DCGAN family shares: one map a power of two, 4 x 4 first.

    generator  z -> 512 @ 4 -> 256 @ 8 -> 128 @ 16 -> 64 @ 32 -> codes @ 64     transposed 4 x 4, norm, ReLU; tanh
    critic     codes @ 64 -> 64 @ 32 -> 128 @ 16 -> 256 @ 8 -> 512 @ 4 -> score  4 x 4, leaky ReLU

Papers differ by their configuration and by the modules that they insert after some of the maps. The layout is the one
whose parameters and operations are those that Tian et al. publish for GIU-GANs, WGAN-GP, SNGAN and SAGAN (their tables
1 and 4 to 7).
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from data.errors import UsageError
from stage2_codegen.configs.chain import ChainConfig
from stage2_codegen.modules import BatchNorm2d, MapToVector, VectorToMap, last_layer, scored, spectral_norm
from stage2_codegen.variants.contract import CodeGenerator, CodeShape
from stage2_codegen.variants.shapes import Maps, sides

MakeModule = Callable[[int, int], nn.Module]  # (channels, side) of a map -> a module for it
Insert = Callable[[int, int], list[nn.Module]]  # (channels, side) of a map -> what follows it


def hidden_sides(code_shape: CodeShape) -> list[int]:
    """Return the sides of the maps between z and the codes: 4, 8, ..., S / 2."""
    return sides(Maps.of(code_shape).size // 2)


def channels_at(side: int, code_shape: CodeShape, config: ChainConfig) -> int:
    """Return the channels of the hidden map of this side."""
    channels, size, _ = Maps.of(code_shape)
    # They double with each halving of the side, as in DCGAN, up to the 512 of its 64-pixel networks. No map should hold
    # less than the codes do.
    return max(config.width * min(size // (2 * side), 8), 2 * channels)


def chosen_sides(
    field: str, chosen: Sequence[int] | None, published: Sequence[int], code_shape: CodeShape
) -> Sequence[int]:
    """Return the sides that a configuration names, or the published ones where it names none.

    Raises `UsageError`, which names the flag of `field`, for a side that no map has.
    """
    wanted, existing = published if chosen is None else chosen, hidden_sides(code_shape)
    if missing := [side for side in wanted if side not in existing]:
        raise UsageError(
            f"--model.{field.replace('_', '-')}: no map of side {', '.join(map(str, missing))} for {code_shape[1]} x "
            f"{code_shape[2]} codes",
            f"choose among {', '.join(map(str, existing))}",
        )
    return wanted


def nothing(channels: int, side: int) -> list[nn.Module]:
    """Insert no module."""
    return []


def after(sides: Sequence[int], make: MakeModule) -> Insert:
    """Insert a module after each map of these sides."""
    return lambda channels, side: [make(channels, side)] if side in sides else []


def batch_norm(channels: int, side: int) -> nn.Module:
    """Make the batch normalisation that follows every map of the generators here."""
    return BatchNorm2d(channels)


def prepared(layer: nn.Conv2d | nn.ConvTranspose2d, config: ChainConfig, normalised: bool) -> nn.Module:
    """Initialise the layer, put it under spectral normalisation where `normalised`, and return it."""
    # In this order: a normalised weight is computed at every call, and values written to it are lost.
    if config.init_std:
        nn.init.normal_(layer.weight, 0, config.init_std)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return spectral_norm(layer) if normalised else layer


class Generator(CodeGenerator):
    """z (N, z_dim) -> codes (N, C, S, S), in (-1, 1) unless they are standardised."""

    def __init__(
        self, code_shape: CodeShape, config: ChainConfig, insert: Insert = nothing, norm: MakeModule = batch_norm
    ) -> None:
        super().__init__()
        self.z_dim = config.z_dim
        # Every convolution has a bias, although batch normalisation cancels it: the published counts include them.
        normalised = config.spectral_norm == "both"
        inputs, layers = config.z_dim, list[nn.Module]()
        base = Maps.of(code_shape).base
        for side in hidden_sides(code_shape):
            outputs = channels_at(side, code_shape, config)
            enlarge = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1) if layers else VectorToMap(inputs, outputs, base)
            layers += [prepared(enlarge, config, normalised)]
            layers += [norm(outputs, side), nn.ReLU(), *insert(outputs, side)]
            inputs = outputs
        # DCGAN (section 3): no batch norm at the generator's output, and a tanh, unless codes are unbounded.
        layers += [prepared(nn.ConvTranspose2d(inputs, code_shape[0], 4, 2, 1), config, normalised)]
        self.layers = nn.Sequential(*layers, *([] if config.standardise else [nn.Tanh()]))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class Critic(nn.Module):
    """Codes (N, C, S, S) -> scores (N, 1)."""

    def __init__(self, code_shape: CodeShape, config: ChainConfig, insert: Insert = nothing) -> None:
        super().__init__()
        normalised = config.spectral_norm != "none"
        inputs, layers = code_shape[0], list[nn.Module]()
        for side in reversed(hidden_sides(code_shape)):
            outputs = channels_at(side, code_shape, config)
            layers += [prepared(nn.Conv2d(inputs, outputs, 4, 2, 1), config, normalised)]
            if config.critic_batch_norm and len(layers) > 1:  # not at the input (DCGAN, section 3)
                layers += [batch_norm(outputs, side)]
            layers += [nn.LeakyReLU(config.slope), *insert(outputs, side)]
            inputs = outputs

        def to_scores(count: int) -> nn.Module:
            # A kernel as large as the map. Under a gradient penalty its scale may have to stay free: the critic's slope
            # must be able to reach 1.
            return prepared(
                MapToVector(inputs, count, Maps.of(code_shape).base), config, normalised and config.spectral_norm_last
            )

        self.layers = nn.Sequential(*layers, last_layer(to_scores, config.classes))

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        return scored(self.layers[-1], self.layers[:-1](codes), classes).flatten(1)
