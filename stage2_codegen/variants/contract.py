"""What a variant is: networks, a configuration and a loss; the trainer knows nothing else about it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self, get_origin, get_type_hints

from torch import Tensor, nn

from data.errors import UsageError
from data.latents import LatentStore
from stage2_codegen.augment import Judged, augmentation
from stage2_codegen.choices import check_choice
from stage2_codegen.frozen.context import Context, Frozen
from stage2_codegen.interpolation import slerp
from stage2_codegen.losses import Loss

CodeShape = tuple[int, int, int]  # (C, S, S)


@dataclass(frozen=True)
class VariantConfig:
    """Fields every variant has, because the trainer reads them; a variant sets its paper's defaults."""

    z_dim: int = 512
    """Length of the noise vector, N(0, 1)."""
    lr: float = 2e-4
    """Learning rate of Adam for the generator."""
    critic_lr: float = 2e-4
    """Learning rate of Adam for the critic."""
    beta1: float = 0.0
    """Adam's first decay."""
    beta2: float = 0.9
    """Adam's second decay."""
    n_critic: int = 1
    """Critic updates for each generator update."""
    ema_halflife_kimg: float = 10.0
    """Half-life of the averaged generator, thousands of samples."""
    penalty_every: int = 1
    """Apply a gradient penalty at every so many critic updates only, as many times as strong."""
    standardise: bool = False
    """Train on latents with zero mean and unit deviation a channel instead of the encoder's [-1, 1]."""
    one_batch_of_fakes: bool = False
    """Let both networks learn from the same generated batch in a step, which spares drawing it twice."""
    augment: str = ""
    """What is done alike to real and fake before the critic: comma-separated names of `stage2_codegen.augment`."""


# least <= number < limit by the end of a field's name, so `width` bounds `critic_width` too; all others are 0 or more
RANGES = {
    **dict.fromkeys(("z_dim", "n_critic", "penalty_every", "width"), (1, math.inf)),
    **dict.fromkeys(("beta1", "beta2"), (0, 1)),
}


def check_config(config: VariantConfig) -> None:
    """`UsageError` unless every field holds one of its choices or a number that training can use."""
    kinds = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), f"--model.{field.name.replace('_', '-')}"
        if get_origin(kinds[field.name]) is Literal:
            check_choice(flag, value, kinds[field.name])
            continue
        least, limit = next((r for end, r in RANGES.items() if field.name.endswith(end)), (0, math.inf))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not least <= number < limit:
                below = "" if math.isinf(limit) else f" and less than {limit}"
                raise UsageError(f"{flag} {number}: is impossible", f"give {least} or more{below}")


class CodeGenerator(nn.Module):
    """Base of every generator: z (N, z_dim) -> codes (N, C, S, S)."""

    z_dim: int

    def judged(self, z: Tensor) -> Judged:
        """What the critic sees of a batch in training; a generator with outputs at several scales gives all."""
        return self(z)

    def between(self, start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
        """Codes (N, C, S, S) of points that lie `share` (N,) of the way from one z (N, z_dim) to another."""
        return self(slerp(start, stop, share))

    def style(self, z: Tensor) -> dict[int, Tensor]:
        """Maps that gate larger ones, by their side; none where a generator has no gates."""
        return {}

    def styled(self, z: Tensor, style: Mapping[int, Tensor]) -> Tensor:
        """Codes of z, with the gates of these sides reading the maps of `style` in place of its own."""
        return self(z)


class JudgedBy(nn.Module):
    """A generator with `judged` as its forward: the form in which several processes share it."""

    def __init__(self, generator: CodeGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Judged:
        return self.generator.judged(z)


def constant(config: Any, kimg: float) -> Any:
    """The schedule of a variant that has none."""
    return config


def unconditional(generator: Any, store: LatentStore, config: Any) -> None:
    """For generators that keep nothing of the data."""


View = Callable[[Judged], Judged]


def augmented(config: Any, context: Context) -> View:
    """The view of a critic that sees the codes themselves."""
    return augmentation(config.augment, context.std)


def no_networks(config: Any) -> dict[str, Frozen]:
    """For variants that train all they use."""
    return {}


class Variant(NamedTuple):
    """A record of `VARIANTS`.

    `Generator(code_shape, config)`: z (N, z_dim) -> codes; `Critic(code_shape, config)`: what is judged, or real
    codes -> scores (N, k); `loss(config)` -> an object with `critic_loss` and `generator_loss`; `schedule(config,
    kimg)` -> the configuration as of that moment of the training; `condition(generator, store, config)` shows a new
    generator its data once; `view(config, context)` -> what is done in training, alike to real and generated codes,
    before the critic: a differentiable function without weights of its own to train.

    `frozen(config)` opens the pretrained networks that the variant needs. Where it `uses_context`, `Critic` and `loss`
    take a `Context` as their last argument; without one they open what they need and stand alone.
    """

    Config: type[VariantConfig]
    Generator: Callable[[CodeShape, Any], CodeGenerator]
    Critic: Callable[..., nn.Module]
    loss: Callable[..., Loss]
    schedule: Callable[[Any, float], Any] = constant
    condition: Callable[[Any, LatentStore, Any], None] = unconditional
    view: Callable[[Any, Context], View] = augmented
    frozen: Callable[[Any], Mapping[str, Frozen]] = no_networks
    uses_context: bool = False

    def given(self, context: Context) -> Self:
        """The same variant, whose critic and loss know what they use and do not train."""
        if not self.uses_context:
            return self
        return self._replace(Critic=partial(self.Critic, context=context), loss=partial(self.loss, context=context))
