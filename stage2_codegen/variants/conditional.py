"""Generators that draw samples of a given class.

The class joins the noise at the input through an embedding, as in Mirza and Osindero, "Conditional Generative
Adversarial Nets", section 3.2, so that any variant's generator can be conditioned. The critic's part is `ClassScores`.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.interpolation import slerp
from stage2_codegen.modules import PixelNorm
from stage2_codegen.rank_noise import normal_rows, uniform_rows
from stage2_codegen.variants.contract import CodeGenerator, CodeShape, Judged, Variant

CLASS_DIM = 64  # length of the embedding


def build_generator(variant: Variant, code_shape: CodeShape, config: VariantConfig) -> CodeGenerator:
    """Build the generator of a variant, conditional where its configuration has classes."""
    if not config.classes:
        return variant.Generator(code_shape, config)
    inner = replace(config, z_dim=config.z_dim + CLASS_DIM)
    return ConditionalGenerator(variant.Generator(code_shape, inner), config.classes)


class ConditionalGenerator(CodeGenerator):
    """z (N, noise_dim + classes) -> codes (N, C, S, S).

    The first entries of z are noise, and the others the weights of the classes: 1 for the sample's class, 0 for others.
    A walk from one class to another goes through weights in between.
    """

    frequencies: Tensor  # (classes,)

    def __init__(self, generator: CodeGenerator, classes: int) -> None:
        """Wrap `generator`, which takes `CLASS_DIM` entries of noise more than this one."""
        super().__init__()
        self.generator = generator
        self.classes = classes
        self.z_dim = generator.z_dim - CLASS_DIM + classes
        # Normalised to the size of the noise, so that neither drowns the other in the first layer.
        self.embedding = nn.Sequential(nn.Linear(classes, CLASS_DIM, bias=False), PixelNorm())
        self.register_buffer("frequencies", torch.full((classes,), 1 / classes))

    @property
    def noise_dim(self) -> int:
        return self.z_dim - self.classes

    @property
    def unconditional(self) -> CodeGenerator:
        return self.generator

    def of_classes(self, noise: Tensor, classes: Tensor | None) -> Tensor:
        assert classes is not None
        return torch.cat([noise, F.one_hot(classes, self.classes).to(noise)], 1)

    def classes_of(self, z: Tensor) -> Tensor:
        _, weights = self._split(z)
        return weights.argmax(1)

    def random_z(self, count: int, device: torch.device) -> Tensor:
        noise = normal_rows(count, self.noise_dim, device=device)
        return self.of_classes(noise, self.frequent(uniform_rows(count, device=device)))

    def frequent(self, chances: Tensor) -> Tensor:
        """Return classes (N,), as frequent as in the data where `chances` (N,) are U[0, 1)."""
        # The last bound may round to just below 1, hence the clamp.
        bounds = self.frequencies.cumsum(0)
        return torch.searchsorted(bounds, chances.to(bounds), right=True).clamp(max=self.classes - 1)

    def set_frequencies(self, frequencies: NDArray[np.float64]) -> None:
        """Take the frequencies of the classes in the data, (classes,), which add up to 1."""
        self.frequencies.copy_(torch.from_numpy(frequencies))

    def truncated(self, z: Tensor, truncation: float) -> Tensor:
        noise, weights = self._split(z)
        return torch.cat([noise * truncation, weights], 1)

    def forward(self, z: Tensor) -> Tensor:
        codes: Tensor = self.generator(self._inner(z))
        return codes

    def judged(self, z: Tensor) -> Judged:
        return self.generator.judged(self._inner(z))

    def between(self, start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
        (first, first_weights), (last, last_weights) = self._split(start), self._split(stop)
        weights = torch.lerp(first_weights, last_weights, share.to(start)[:, None])
        codes: Tensor = self(torch.cat([slerp(first, last, share), weights], 1))
        return codes

    def style(self, z: Tensor) -> dict[int, Tensor]:
        return self.generator.style(self._inner(z))

    def styled(self, z: Tensor, style: Mapping[int, Tensor]) -> Tensor:
        return self.generator.styled(self._inner(z), style)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        noise, weights = z.split([self.noise_dim, self.classes], 1)
        return noise, weights

    def _inner(self, z: Tensor) -> Tensor:
        """The z (N, noise_dim + CLASS_DIM) of the variant's own generator."""
        noise, weights = self._split(z)
        return torch.cat([noise, self.embedding(weights)], 1)
