"""The contract of a variant (networks, a configuration and a loss), which is all that the trainer knows about it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from data.errors import UsageError
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
        """Divide the batch into equal parts, in order."""
        classes = [None] * count if self.classes is None else self.classes.chunk(count)
        return [Batch(*part) for part in zip(self.codes.chunk(count), classes, strict=True)]


class CodeGenerator(nn.Module):
    """Base of every generator: z (N, z_dim) -> codes (N, C, S, S).

    z is noise, N(0, 1), of length `noise_dim`; a conditional generator's also holds the class (`conditional.py`).
    """

    z_dim: int

    @property
    def noise_dim(self) -> int:
        """Length of the noise in z."""
        return self.z_dim

    @property
    def unconditional(self) -> "CodeGenerator":
        """The variant's own network, which a conditional generator wraps."""
        return self

    def of_classes(self, noise: Tensor, classes: Tensor | None) -> Tensor:
        """Make z (N, z_dim) from noise (N, noise_dim) and, in a conditional generator, classes (N,)."""
        return noise

    def classes_of(self, z: Tensor) -> Tensor | None:
        """Return the classes (N,) from which z (N, z_dim) was made, in a conditional generator."""
        return None

    def random_z(self, count: int, device: torch.device) -> Tensor:
        """Draw this rank's z (count, z_dim) of a batch, with classes as frequent as in the data."""
        return normal_rows(count, self.noise_dim, device=device)

    def truncated(self, z: Tensor, truncation: float) -> Tensor:
        """Scale the noise of z (N, z_dim) by `truncation`: below 1, samples are more typical and less varied."""
        # The first layer is linear in the noise, so this moves the first map towards its mean, as the truncation trick
        # of Karras et al., "A Style-Based Generator Architecture", appendix B, does with styles.
        return z * truncation

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return all parameters in groups, always the same, each with the present factor of its learning rate."""
        return [(list(self.parameters()), 1.0)]

    def grow(self, config: Any) -> bool:
        """Take the form that the schedule asks for; return whether the network grew, and optimisers start anew."""
        return False

    def judged(self, z: Tensor) -> Judged:
        """Generate what the critic sees in training: codes, or a tuple of several scales that ends with the codes."""
        return self(z)

    def like(self, vector: Tensor) -> Self:
        """Return the same generator, told by the vector (n,) of one picture what to draw.

        Raises `UsageError` where a generator is not told by such vectors.
        """
        raise UsageError("this generator is not given pictures to draw from", "train the variant lrm")

    def between(self, start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
        """Generate codes (N, C, S, S) at points `share` (N,) of the way from one z (N, z_dim) to another."""
        return self(slerp(start, stop, share))

    def style(self, z: Tensor) -> dict[int, Tensor]:
        """Return the maps that gate larger ones, by their side; none where a generator has no gates."""
        return {}

    def styled(self, z: Tensor, style: Mapping[int, Tensor]) -> Tensor:
        """Generate codes of z, whose gates read the maps of `style`, where it has them, in place of z's own."""
        return self(z)


class JudgedBy(nn.Module):
    """A generator whose forward is `judged`."""

    def __init__(self, generator: CodeGenerator) -> None:
        super().__init__()
        self.generator = generator  # DDP shares gradients of what goes through a module's forward only

    def forward(self, z: Tensor) -> Judged:
        return self.generator.judged(z)


def constant(config: Any, kimg: float) -> Any:
    """The schedule of a variant that has none."""
    return config


def unconditional(generator: Any, store: LatentStore, config: Any) -> None:
    """The condition of generators that keep nothing of the data."""


View = Callable[[Judged], Judged]


def augmented(config: Any, context: Context) -> View:
    """Make the view of a critic that sees the codes themselves, augmented."""
    return augmentation(config.augment, context.std)


def no_networks(config: Any) -> dict[str, Frozen]:
    """The frozen networks of variants that train everything they use."""
    return {}


class Variant(NamedTuple):
    """A row of `VARIANTS`.

    `Generator(code_shape, config)` maps z (N, z_dim) to codes, and `Critic(code_shape, config)` maps what is judged, or
    real codes, to scores (N, k). `loss(config)` makes an object with `critic_loss` and `generator_loss`.
    `schedule(config, kimg)` returns the configuration at that moment of the training. `condition(generator, store,
    config)` shows a new generator its data once. `view(config, context)` makes the function that real and generated
    codes go through before the critic in training; it is differentiable, and has no weights to train.

    `frozen(config)` opens the pretrained networks that the variant needs. Where it `uses_context`, `Critic` and `loss`
    take a `Context` as their last argument; without one they open what they need themselves.
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
        """Return the same variant with this context given to its critic and loss."""
        if not self.uses_context:
            return self
        return self._replace(Critic=partial(self.Critic, context=context), loss=partial(self.loss, context=context))
