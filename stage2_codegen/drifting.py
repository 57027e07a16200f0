"""Drift of generated samples towards real ones and away from each other: an objective that needs no adversary.

After Deng, Li, Li, Du, He, "Generative Modeling via Drifting", arXiv:2602.04770, 2026. A critic tells all samples the
same: what would look more real now. Early on they may all run after one motif. The drift draws each sample towards the
real ones nearest to it and away from other samples. It needs features, as the paper found; here it takes those that
the critic sees, and the codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.losses import AnyCritic, Loss, LossAndLogs
from stage2_codegen.ranks import count_ranks, rows_of_all_ranks, this_rank

TEMPERATURES = (0.02, 0.05, 0.2)  # of the kernels, in units of the mean distance; the paper's
PARTS = 3  # a side, of a map whose moments are compared part by part
MOST_PLACES = 32  # a side, of a map that is compared place by place; larger ones are averaged down to it
ITSELF = 1e6  # distance from a sample to itself, so that it does not repel itself


def drift(generated: Tensor, real: Tensor) -> Tensor:
    """Where each generated vector should move, of unit mean square a temperature; (L, N, D), (L, M, D) -> (L, N, D).

    At each of L places, with k(x, y) = exp(-|x - y| / temperature) normalised over both of its arguments,
    V(x) = sum over real r and other generated g of k(x, r) k(x, g) (r - g). Before it is brought to unit size, its mean
    is zero where both are distributed alike.
    """
    distances = torch.cdist(generated, torch.cat([real, generated], 1))
    distances = distances / distances.mean().clamp(min=1e-12)
    count = generated.shape[1]
    distances[:, :, -count:] += ITSELF * torch.eye(count, device=generated.device)
    total = torch.zeros_like(generated)
    for temperature in TEMPERATURES:
        logits = -distances / temperature
        kernel = (logits.softmax(2) * logits.softmax(1)).sqrt()
        to_real, to_generated = kernel[:, :, :-count], kernel[:, :, -count:]
        attraction = to_real * to_generated.sum(2, keepdim=True) @ real
        repulsion = to_generated * to_real.sum(2, keepdim=True) @ generated
        field = attraction - repulsion
        total += field / field.square().mean().sqrt().clamp(min=1e-12)
    return total


def descriptors(seen: Sequence[Tensor]) -> list[Tensor]:
    """What is compared of each sample, in fp32 at least: vectors at places, each (N, L, D).

    `seen` is (codes, pictures, *maps of features), (N, C, H, W) each. Of maps it takes every place and the moments, of
    codes the moments alone; pictures are for the critic.
    """
    codes, _, *maps = (at_least_fp32(x) for x in seen)
    found = moments(codes)
    for features in maps:
        found += [_vectors(_at_most(features, MOST_PLACES)), *moments(features)]
    return found


def moments(features: Tensor) -> list[Tensor]:
    """Mean and deviation of each channel over the map, (N, 1, C), and over its parts where it has enough places."""
    sides = [1, PARTS] if features.shape[-1] >= 2 * PARTS else [1]
    found = []
    for side in sides:
        mean = F.adaptive_avg_pool2d(features, side)
        square = F.adaptive_avg_pool2d(features.square(), side)
        found += [_vectors(mean), _vectors((square - mean.square()).clamp(min=1e-4).sqrt())]
    return found


def _vectors(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)."""
    return features.flatten(2).transpose(1, 2)


def _at_most(features: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(features, side) if features.shape[-1] > side else features


def drift_loss(generated: Tensor, real: Tensor) -> Tensor:
    """A scalar whose gradient moves each vector along its drift, in units of their deviation; both (N, L, D).

    That of |x - (x + V(x))|^2 / 2 with x + V(x) held fixed, the paper's objective, whose own value says nothing: V has
    unit size. Samples of all ranks attract and repel.
    """
    everyone = rows_of_all_ranks(generated)
    field = drift(everyone.transpose(0, 1), rows_of_all_ranks(real).transpose(0, 1)).transpose(0, 1)
    return -(generated * field.chunk(count_ranks())[this_rank()]).mean() / everyone.std(correction=0).clamp(min=1e-6)


class Drifting:
    """An adversarial loss whose generator also drifts; `real` and `fake` are (codes, pictures, *maps of features)."""

    def __init__(self, adversarial: Loss, weight: float) -> None:
        self.adversarial, self.weight = adversarial, weight

    def critic_loss(
        self, critic: AnyCritic, real: Sequence[Tensor], fake: Sequence[Tensor], penalty_factor: float = 1.0
    ) -> LossAndLogs:
        """The adversarial loss alone."""
        return self.adversarial.critic_loss(critic, real, fake, penalty_factor)

    def generator_loss(self, critic: AnyCritic, real: Sequence[Tensor], fake: Sequence[Tensor]) -> LossAndLogs:
        """Adversarial loss + weight times the sum over descriptors of `drift_loss`."""
        loss, logs = self.adversarial.generator_loss(critic, real, fake)
        with full_precision(fake[0]):
            pairs = zip(descriptors(fake), descriptors(real), strict=True)
            drifts = torch.stack([drift_loss(generated, aim) for generated, aim in pairs])
        return loss + self.weight * drifts.sum(), logs
