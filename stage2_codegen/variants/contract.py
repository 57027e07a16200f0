"""What a variant is: networks, a configuration and a loss; the trainer knows nothing else about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from data.latents import LatentStore
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
    standardise: bool = False
    """Train on latents with zero mean and unit deviation a channel instead of the encoder's [-1, 1]."""
    augment: str = ""
    """What is done alike to real and fake before the critic: comma-separated names of `stage2_codegen.augment`."""


Judged = Tensor | tuple[Tensor, ...]  # codes, or several scales of them from coarse to fine


class CodeGenerator(nn.Module):
    """Base of every generator: z (N, z_dim) -> codes (N, C, S, S)."""

    z_dim: int

    def judged(self, z: Tensor) -> Judged:
        """What the critic sees of a batch in training; a generator with outputs at several scales gives all."""
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


class Variant(NamedTuple):
    """A record of `VARIANTS`.

    `Generator(code_shape, config)`: z (N, z_dim) -> codes; `Critic(code_shape, config)`: what is judged, or real
    codes -> scores (N, k); `loss(config)` -> an object with `critic_loss` and `generator_loss`; `schedule(config,
    kimg)` -> the configuration as of that moment of the training; `condition(generator, store, config)` shows a new
    generator its data once.
    """

    Config: type[VariantConfig]
    Generator: Callable[[CodeShape, Any], CodeGenerator]
    Critic: Callable[[CodeShape, Any], nn.Module]
    loss: Callable[[Any], Loss]
    schedule: Callable[[Any, float], Any] = constant
    condition: Callable[[Any, LatentStore, Any], None] = unconditional
