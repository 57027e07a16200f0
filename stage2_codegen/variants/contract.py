"""What a variant is: networks, a configuration and a loss; the trainer knows nothing else about it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from data.latents import LatentStore
from stage2_codegen.augment import Judged, augmentation
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.frozen.context import Context, Frozen
from stage2_codegen.interpolation import slerp
from stage2_codegen.losses import Loss
from stage2_codegen.rank_noise import normal_rows

CodeShape = tuple[int, int, int]  # (C, S, S)


class Batch(NamedTuple):
    """Real codes (N, C, S, S) and, in conditional training, their classes (N,)."""

    codes: Tensor
    classes: Tensor | None = None

    def parts(self, count: int) -> list["Batch"]:
        """Equal parts in order."""
        classes = [None] * count if self.classes is None else self.classes.chunk(count)
        return [Batch(*part) for part in zip(self.codes.chunk(count), classes, strict=True)]


class CodeGenerator(nn.Module):
    """Base of every generator: z (N, z_dim) -> codes (N, C, S, S).

    z is noise, N(0, 1), of length `noise_dim`; a conditional generator's also holds the class (`conditional.py`).
    """

    z_dim: int

    @property
    def noise_dim(self) -> int:
        return self.z_dim

    @property
    def unconditional(self) -> "CodeGenerator":
        """The network of the variant itself."""
        return self

    def of_classes(self, noise: Tensor, classes: Tensor | None) -> Tensor:
        """z (N, z_dim) of noise (N, noise_dim) and, in a conditional generator, of classes (N,)."""
        return noise

    def classes_of(self, z: Tensor) -> Tensor | None:
        """The classes (N,) that z (N, z_dim) was made of, in a conditional generator."""
        return None

    def random_z(self, count: int, device: torch.device) -> Tensor:
        """This rank's z (count, z_dim) of a batch, with classes as frequent as in the data."""
        return normal_rows(count, self.noise_dim, device=device)

    def truncated(self, z: Tensor, truncation: float) -> Tensor:
        """z (N, z_dim) with its noise scaled: below 1, samples are more alike and more usual.

        As the first layer of a generator is linear in the noise, that draws its first map towards the mean, as the
        truncation trick of Karras et al., "A Style-Based Generator Architecture", section B, does with styles.
        """
        return z * truncation

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
