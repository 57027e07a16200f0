"""Directions in z along which the pictures of a generator change most.

Where a layer reads z linearly, they are the right singular vectors of its weight (Shen and Zhou, "Closed-Form
Factorization of Latent Semantics in GANs", CVPR 2021, "Unsupervised Semantic Factorization"). Elsewhere they are the
principal components of the generator's codes, regressed onto z (Härkönen et al., "GANSpace: Discovering Interpretable
GAN Controls", NeurIPS 2020, as for BigGAN).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.inversion import compared

DRAWS = 512  # samples whose principal components are taken
DRAWN_AT_ONCE = 16
NOISE_SEED = 0  # of all noise besides z


def directions(generator: ImageGenerator, count: int) -> Tensor:
    """Return the strongest directions first, as orthogonal or nearly orthogonal unit vectors (count, z_dim).

    They move the noise in z and never its class. There are at most `noise_dim` of them.
    """
    count = min(count, generator.generator.noise_dim)
    weight = entered_weight(generator)
    found = principal_directions(generator, count) if weight is None else strongest(weight, count)
    return F.pad(found, (0, generator.generator.z_dim - found.shape[1]))


def entered_weight(generator: ImageGenerator) -> Tensor | None:
    """Return the weights of the linear layers that read the noise in z, (outputs, noise_dim); None where none does.

    Such a layer may also read other inputs after the noise, such as the embedding of a class.
    """
    z = generator.noise([0])
    noise = z[:, : generator.generator.noise_dim]
    weights: list[Tensor] = []

    def remember(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read = inputs[0].flatten(1)[:, : noise.shape[1]]
        if read.shape == noise.shape and torch.equal(read, noise):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            matrix = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
            weights.append(matrix[:, : noise.shape[1]].movedim(1, -1).flatten(0, -2))

    layers = [layer for layer in generator.generator.modules() if isinstance(layer, nn.Linear | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_pre_hook(remember) for layer in layers]
    try:
        generator.codes(z, NOISE_SEED)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(weights) if weights else None


def strongest(weight: Tensor, count: int) -> Tensor:
    """Return the right singular vectors of the largest singular values, (outputs, inputs) -> (count, inputs)."""
    return signed(torch.linalg.svd(weight.float(), full_matrices=False).Vh[:count])


def principal_directions(generator: ImageGenerator, count: int) -> Tensor:
    """Return directions of the noise in z (count, noise_dim) along which codes move by their principal components."""
    z = generator.noise(range(DRAWS))
    codes = torch.cat([compared(generator.codes(part, NOISE_SEED)) for part in z.split(DRAWN_AT_ONCE)])
    U, S, _ = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
    coordinates = U[:, :count] * S[:count]
    noise = z[:, : generator.generator.noise_dim]
    regressed = torch.linalg.lstsq(coordinates, noise - noise.mean(0)).solution
    return signed(F.normalize(regressed))


def signed(rows: Tensor) -> Tensor:
    """Give each direction the sign with which its largest entry is positive, so that all machines agree."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign()
